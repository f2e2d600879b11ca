"""DriftCheckOperator with execution="sagemaker": the processing job finds what the worker finds."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from batch_bench import PROCESSING_IMAGE
from drift_check_bench import NOON, capture
from running_task import resumed
from serving import ROLE

import drift_table as tables
from airflow_dlaws.jobs.wire import to_json

JOB = {"execution": "sagemaker", "image": PROCESSING_IMAGE, "role_arn": ROLE, "instance_type": "ml.m5.large",
       "poll_interval": 0.2}  # fmt: skip


def jobs(drift_check):
    listed = drift_check.aws.client("sagemaker").list_processing_jobs(NameContains="dag-check", MaxResults=100)
    names = [row["ProcessingJobName"] for row in listed["ProcessingJobSummaries"]]
    described = [drift_check.aws.client("sagemaker").describe_processing_job(ProcessingJobName=name) for name in names]
    return [job for job in described if drift_check.bucket in json.dumps(job["ProcessingInputs"])]


def test_a_processing_job_finds_what_the_worker_finds(drifted_check):
    here = drifted_check.report(drifted_check.run())
    there = drifted_check.report(drifted_check.run(**JOB, deferrable=False))
    assert (there.verdict, there.window, there.files) == (here.verdict, here.window, 2)
    (job,) = jobs(drifted_check)
    assert job["NetworkConfig"] == {"EnableNetworkIsolation": True}


def test_a_deferred_check_goes_on_with_the_verdict_of_its_job_and_a_retry_adopts_it(drifted_check):
    operator, context = drifted_check.operator(**JOB), drifted_check.prepared()
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    # Data that come now belong to the next run: the job reads what was there when it was ordered.
    drifted_check.put("data/part-9.csv", tables.as_csv(tables.rows(9000, 5)))
    again = drifted_check.operator(**JOB, deferrable=False).execute(drifted_check.prepared())

    async def first():
        async for event in deferred.value.trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    event = asyncio.run(asyncio.wait_for(first(), 120))
    document = resumed(operator, deferred.value, event, context)
    assert document == again
    assert (document["rows"], document["outcome"]) == (1500, "drift")
    assert len(jobs(drifted_check)) == 1


def test_data_that_were_replaced_under_the_job_give_no_verdict(drifted_check):
    operator, context = drifted_check.operator(**JOB), drifted_check.prepared()
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    drifted_check.put("data/part-1.csv", tables.as_csv(tables.rows(500, 9)))
    with pytest.raises(AirflowFailException, match="data have changed since the check began"):
        drifted_check.operator(**JOB, deferrable=False).execute(drifted_check.prepared())


def test_captured_requests_and_their_labels_are_judged_in_a_job_as_on_the_worker(drift_check):
    drift_check.put("labels.csv", tables.as_csv(capture(drift_check, 1000, 3, start=NOON, shift=6)))
    options = {
        "capture_s3_uri": drift_check.uri("capture"),
        "endpoint_name": "flights",
        "labels": {"data": drift_check.uri("labels.csv")},
    }
    hour = {"data_interval_start": NOON, "data_interval_end": NOON + timedelta(hours=1)}
    here, there = drift_check.run(hour, **options), drift_check.run(hour, **options, **JOB, deferrable=False)
    assert to_json(here) == to_json(there)


def test_a_job_that_cannot_read_its_data_says_why(drift_check):
    drift_check.put("data/a.csv", b"colour,shape\nred,round\n")
    with pytest.raises((AirflowException, AirflowFailException), match="none of the reference's columns"):
        drift_check.operator(**JOB, deferrable=False).execute(drift_check.prepared())
