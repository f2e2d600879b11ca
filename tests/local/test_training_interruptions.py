"""Training jobs whose instances are taken away or break, in the local AWS: what AWS tells, and what the script sees.

The scripts run on until they are told to end: a test waits for a line in the log, and orders the fault then.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from trainer import Trainer, channel

#: Counts its lives in the checkpoint folder; what else it finds on its host must be nothing. In the last life it ends.
COUNTS_LIVES = """
trap 'echo saved by $LIFE on $(hostname) > /opt/ml/checkpoints/saved-$LIFE-$(hostname); echo term $LIFE; exit 143' TERM
LIFE=$(ls /opt/ml/checkpoints | grep -c "begun-.*-$(hostname)")
touch /opt/ml/checkpoints/begun-$LIFE-$(hostname)
test -e /opt/ml/model/left && echo 'not a new host' > /opt/ml/output/failure && exit 9
touch /opt/ml/model/left
echo life $LIFE
if [ $LIFE -ge $1 ]; then echo done; exit 0; fi
while :; do sleep 0.05; done
"""


@pytest.fixture(autouse=True)
def no_faults_left(trainer: Trainer) -> Iterator[None]:
    """Cancel what a test has ordered."""
    yield
    trainer.aws.clear_faults()


def counting(trainer: Trainer, last_life: int, **changes: Any) -> str:
    """Start a job with checkpoints of its own that ends by itself in its `last_life`, counted from 0."""
    name = f"lives-{uuid.uuid4().hex[:12]}"
    trainer.put(f"code/{name}/lives.sh", COUNTS_LIVES)
    fixed = {
        "TrainingJobName": name,
        "InputDataConfig": [channel("code", f"s3://{trainer.bucket}/code/{name}/")],
        "CheckpointConfig": {"S3Uri": f"s3://{trainer.bucket}/checkpoints/{name}"},
    }
    return trainer.start(f"exec sh /opt/ml/input/data/code/lives.sh {last_life}", **{**fixed, **changes})


def spot(trainer: Trainer, last_life: int, *, wait: int = 300, **changes: Any) -> str:
    """Start such a job on spot instances."""
    fixed = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": min(wait, 120), "MaxWaitTimeInSeconds": wait},
    }
    return counting(trainer, last_life, **{**fixed, **changes})


def printed(trainer: Trainer, name: str) -> list[str]:
    """Return all lines of all lives and hosts."""
    logs = trainer.aws.client("logs")
    try:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/sagemaker/TrainingJobs")
        events = [event for page in pages for event in page["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [event["message"] for event in events if event["logStreamName"].startswith(f"{name}/")]


def wait_for_line(trainer: Trainer, name: str, line: str, count: int = 1) -> None:
    """Wait until the job has printed a line so often."""
    deadline = time.monotonic() + 60
    while printed(trainer, name).count(line) < count:
        assert time.monotonic() < deadline, (trainer.describe(name), printed(trainer, name))
        time.sleep(0.05)


def states(job: dict[str, Any]) -> list[str]:
    """Return the job's secondary statuses in order."""
    return [row["Status"] for row in job["SecondaryStatusTransitions"]]


LIFE = ["Starting", "Downloading", "Training"]


def test_a_spot_job_that_is_interrupted_three_times_at_gates_completes_and_is_billed_less(trainer: Trainer) -> None:
    name = spot(trainer, 3)
    for life in range(3):
        wait_for_line(trainer, name, f"life {life}")
        trainer.aws.order_fault(kind="interruption", target=name, times=1)
    job = trainer.wait(name)
    assert job["TrainingJobStatus"] == "Completed"
    assert states(job) == [*([*LIFE, "Interrupted"] * 3), *LIFE, "Uploading", "Completed"]
    assert [line for line in printed(trainer, name) if line.startswith("term")] == ["term 0", "term 1", "term 2"]
    assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]


def test_all_hosts_are_interrupted_and_each_finds_what_both_had_saved(trainer: Trainer) -> None:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 10}
    name = spot(trainer, 1, ResourceConfig=resources)
    wait_for_line(trainer, name, "life 0", count=2)
    trainer.aws.order_fault(kind="interruption", target=name, times=1)
    job = trainer.wait(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert printed(trainer, name).count("term 0") == 2
    prefix = job["CheckpointConfig"]["S3Uri"].removeprefix(f"s3://{trainer.bucket}/")
    rows = trainer.s3.list_objects_v2(Bucket=trainer.bucket, Prefix=prefix)["Contents"]
    kept = sorted(row["Key"].rpartition("/")[2] for row in rows)
    assert [key for key in kept if key.startswith("saved")] == ["saved-0-algo-1", "saved-0-algo-2"]


def test_a_script_that_does_not_hear_is_killed_when_its_grace_is_over(trainer: Trainer) -> None:
    deaf = "trap '' TERM; echo deaf; test -e /opt/ml/checkpoints/x && exit 0; touch /opt/ml/checkpoints/x; sleep 600"
    request = trainer.request(
        deaf,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 120, "MaxWaitTimeInSeconds": 300},
        CheckpointConfig={"S3Uri": f"s3://{trainer.bucket}/checkpoints/deaf"},
    )
    trainer.sagemaker.create_training_job(**request)
    name = request["TrainingJobName"]
    wait_for_line(trainer, name, "deaf")
    trainer.aws.order_fault(kind="interruption", target=name, times=1, grace_seconds=0.5)
    job = trainer.wait(name)
    assert (job["TrainingJobStatus"], states(job).count("Interrupted")) == ("Completed", 1)


def test_interruptions_can_be_ordered_before_the_job_for_moments_of_its_lives(trainer: Trainer) -> None:
    for seconds in (0.3, 0.1, 0.2):
        trainer.aws.order_fault(kind="interruption", target="CreateTrainingJob", seconds=seconds, times=1)
    job = trainer.wait(spot(trainer, 3))
    assert (job["TrainingJobStatus"], states(job).count("Interrupted")) == ("Completed", 3)


def test_a_spot_job_that_is_interrupted_again_and_again_ends_when_it_has_waited_long_enough(trainer: Trainer) -> None:
    trainer.aws.order_fault(kind="interruption", target="CreateTrainingJob", seconds=0.1)
    job = trainer.wait(spot(trainer, 999, wait=4))
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert states(job).count("Interrupted") >= 1
    assert "Stopping" in states(job)


def test_a_spot_job_for_which_no_instances_come_waits_and_ends_without_having_started(trainer: Trainer) -> None:
    trainer.aws.order_fault(kind="capacity", target="CreateTrainingJob")
    job = trainer.wait(spot(trainer, 0, wait=2))
    assert (job["TrainingJobStatus"], states(job)) == ("Stopped", ["Starting", "Stopping", "MaxWaitTimeExceeded"])
    assert "TrainingStartTime" not in job


def test_an_interrupted_job_can_be_stopped(trainer: Trainer) -> None:
    trainer.aws.order_fault(kind="capacity", target="CreateTrainingJob")
    name = spot(trainer, 99)
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    job = trainer.wait(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")


def test_machines_on_demand_are_never_interrupted(trainer: Trainer) -> None:
    trainer.aws.order_fault(kind="interruption")
    job = trainer.run("sleep 0.5")
    assert (job["TrainingJobStatus"], states(job).count("Interrupted")) == ("Completed", 0)
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"]


def on_demand(trainer: Trainer, last_life: int, retries: int | None) -> str:
    """Start a job with checkpoints that AWS begins anew after faults of its own, `retries` times."""
    changes: dict[str, Any] = {"RetryStrategy": {"MaximumRetryAttempts": retries}} if retries else {}
    return counting(trainer, last_life, **changes)


def break_when_uploaded(trainer: Trainer, name: str, life: int) -> None:
    """Let the instances break once the checkpoint of this life is in S3: later ones would be lost with them."""
    wait_for_line(trainer, name, f"life {life}")
    prefix = trainer.describe(name)["CheckpointConfig"]["S3Uri"].removeprefix(f"s3://{trainer.bucket}/")
    deadline = time.monotonic() + 60
    while "Contents" not in trainer.s3.list_objects_v2(Bucket=trainer.bucket, Prefix=f"{prefix}/begun-{life}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    trainer.aws.order_fault(kind="internal", target=name, times=1)


def test_a_job_whose_instances_break_is_restarted_with_its_checkpoints(trainer: Trainer) -> None:
    name = on_demand(trainer, 2, retries=2)
    for life in range(2):
        break_when_uploaded(trainer, name, life)
    job = trainer.wait(name)
    assert job["TrainingJobStatus"] == "Completed"
    assert states(job) == [*([*LIFE, "Restarting"] * 2), *LIFE, "Uploading", "Completed"]
    assert [line for line in printed(trainer, name) if line.startswith("term")] == []  # what breaks says no goodbye


@pytest.mark.parametrize("retries", [None, 1])
def test_a_job_fails_when_its_restarts_are_used_up(trainer: Trainer, retries: int | None) -> None:
    name = on_demand(trainer, 9, retries)
    for life in range((retries or 0) + 1):
        break_when_uploaded(trainer, name, life)
    job = trainer.wait(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError: ")
    assert states(job).count("Restarting") == (retries or 0)


def test_the_longest_run_is_for_all_lives_together(trainer: Trainer) -> None:
    trainer.aws.order_fault(kind="interruption", target="CreateTrainingJob", seconds=0.7)
    name = spot(trainer, 999, StoppingCondition={"MaxRuntimeInSeconds": 2, "MaxWaitTimeInSeconds": 300})
    job = trainer.wait(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert 2 <= states(job).count("Interrupted") <= 3
