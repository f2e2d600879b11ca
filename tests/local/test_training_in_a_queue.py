"""DistributedTrainingOperator with a queue of AWS Batch, against the local AWS."""

from __future__ import annotations

import asyncio

import pytest
from airflow.sdk.exceptions import AirflowFailException
from service_queue import service_queue
from training_task import Training, trigger_of, wait_until

from airflow_dlaws.jobs.reference import JobReference, TrainingResult
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.launchers.batch import BatchLauncher
from airflow_dlaws.local.process import LocalAws


def test_a_task_with_a_queue_waits_there_and_returns_the_model_of_its_training_job(
    training: Training, local_aws: LocalAws
) -> None:
    queue = f"queue-{training.run_id}"
    service_queue(local_aws, queue)
    result = training.train(job_queue=queue)
    assert result.job_arn.startswith("arn:aws:batch:")
    assert "/AWSBatch" in result.artifact_uri
    job = result.artifact_uri.split("/")[-3]
    reference = JobReference(engine="batch", name=result.job_name, arn=result.job_arn, region="us-east-1")
    prefix = BatchLauncher(local_aws.client).log_prefix(reference)
    assert job.startswith(prefix)
    assert result.billable_seconds >= 1
    again = from_json(TrainingResult, training.operator(job_queue=queue).execute(training.task(try_number=2).context))
    assert (again.adopted, again.artifact_uri) == (True, result.artifact_uri)
    assert training.jobs() == ["Completed"]


def test_a_bug_in_a_queued_job_is_told_with_its_last_lines(training: Training, local_aws: LocalAws) -> None:
    queue = f"queue-{training.run_id}"
    service_queue(local_aws, queue)
    with pytest.raises(AirflowFailException, match="label column is empty") as failed:
        training.train("raises.py", job_queue=queue)
    assert "reading labels" in str(failed.value)


def test_a_killed_task_leaves_nothing_in_its_queue(training: Training, local_aws: LocalAws) -> None:
    queue = f"queue-{training.run_id}"
    service_queue(local_aws, queue)
    asyncio.run(trigger_of(training.defer("forever.py", job_queue=queue)).on_kill())
    batch = local_aws.client("batch")
    for state in ("SUBMITTED", "RUNNABLE", "SCHEDULED", "STARTING", "RUNNING"):
        wait_until(
            lambda state=state: not batch.list_service_jobs(jobQueue=queue, jobStatus=state)["jobSummaryList"],
            lambda state=state: f"a job is {state}",
        )
    assert training.jobs() in ([], ["Stopped"])
