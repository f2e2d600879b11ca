"""How a training task ends, against the local AWS: what is tried again, from which checkpoint, and what it cost."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from running_task import RunningTask, aws_environment
from training_task import Training, event_of, trigger_of, wait_until

from airflow_dlaws.jobs.cost import Price
from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.launchers import prices
from airflow_dlaws.launchers.prices import training_price
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.registry.manifest import read_manifest
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.triggers.pause import PauseTrigger

#: Says which checkpoints it finds, and leaves one of its own; ends in its `--lives`-th life, waits in the others.
RESUMES = """
import argparse, json, os, pathlib, time, uuid
parser = argparse.ArgumentParser()
parser.add_argument("--lives", type=int, default=1)
lives = parser.parse_args().lives
folder = pathlib.Path(os.environ["SM_CHECKPOINT_DIR"])
found = sorted(path.name for path in folder.iterdir())
print("found", json.dumps(found), flush=True)
(folder / uuid.uuid4().hex).write_text(os.environ["TRAINING_JOB_NAME"])
print(json.dumps({"dlaws_metrics": {"step": len(found) + 1, "steps": lives, "loss": 0.5}}), flush=True)
if len(found) + 1 < lives:
    time.sleep(600)
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(json.dumps(found))
"""


@pytest.fixture
def training(local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    """A training task of its own, whose script says which checkpoints it finds."""
    yield from resuming(local_aws, bucket, tmp_path, monkeypatch)


def resuming(aws: LocalAws, bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    aws_environment(monkeypatch, aws)
    task = Training(aws, bucket, folder / "code")
    (task.source / "resumes.py").write_text(RESUMES)
    yield task
    aws.clear_faults()


def checkpoints(training: Training) -> dict[str, Any]:
    """Return the parameters of a task whose runs all name the same root of checkpoints."""
    return {"checkpoint_s3_uri": f"s3://{training.bucket}/checkpoints"}


def spot(training: Training, **changes: Any) -> dict[str, Any]:
    return {**checkpoints(training), "spot": True, "max_runtime_s": 120, "max_wait_s": 240, **changes}


def lives(count: int) -> dict[str, Any]:
    return {"hyperparameters": {"lives": count}}


def folders(training: Training) -> dict[str, list[str]]:
    """Return the jobs that have left checkpoints in each folder under the root."""
    pages = training.s3.get_paginator("list_objects_v2").paginate(Bucket=training.bucket, Prefix="checkpoints/")
    found: dict[str, list[str]] = {}
    for row in pages.search("Contents[]"):
        _, folder, _ = row["Key"].split("/")
        body = training.s3.get_object(Bucket=training.bucket, Key=row["Key"])["Body"].read()
        found.setdefault(folder, []).append(body.decode())
    return found


def interrupt(training: Training, aws: LocalAws, job: str, life: int) -> None:
    """Take the job's instances away once it has left its checkpoint of this life."""
    wait_until(
        lambda: has_any(training) and any(jobs.count(job) > life for jobs in folders(training).values()),
        lambda: f"no checkpoint of life {life}",
    )
    aws.order_fault(kind="interruption", target=job, times=1)


def has_any(training: Training) -> bool:
    return "Contents" in training.s3.list_objects_v2(Bucket=training.bucket, Prefix="checkpoints/")


def model_of(training: Training, result: TrainingResult) -> list[str]:
    """Return the checkpoints that the job of a result had found at its last start."""
    uri = S3Uri.parse(result.artifact_uri)
    body = training.s3.get_object(Bucket=uri.bucket, Key=uri.key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        member = archive.extractfile("model.txt")
        assert member is not None
        return list(json.load(member))


def test_an_interrupted_spot_job_ends_well_and_says_what_it_saved_and_cost(
    training: Training, local_aws: LocalAws
) -> None:
    fields = spot(training, **lives(3), price_per_hour=7.2)
    deferred = training.defer("resumes.py", **fields)
    for life in range(2):
        interrupt(training, local_aws, deferred.trigger.reference.name, life)
    result = from_json(TrainingResult, training.resume(deferred, "resumes.py", **fields))
    assert (result.interruptions, len(model_of(training, result))) == (2, 2)
    assert result.training_seconds > result.billable_seconds > 0
    assert result.spot_saving == pytest.approx(1 - result.billable_seconds / result.training_seconds, abs=1e-4)
    assert result.cost_usd == pytest.approx(result.billable_seconds * 7.2 / 3600)
    assert "7.2 USD an hour of ml.m5.large (price_per_hour)" in result.cost_basis
    manifest = read_manifest(ObjectStore(training.s3), S3Uri.parse(str(result.manifest_uri)))
    assert (manifest.cost_usd, manifest.cost_basis) == (result.cost_usd, result.cost_basis)


def test_a_spot_job_out_of_time_is_retried_and_the_retry_goes_on_from_its_checkpoint(
    training: Training, local_aws: LocalAws
) -> None:
    fields = spot(training, **lives(2), max_runtime_s=8, max_wait_s=8)
    deferred = training.defer("resumes.py", **fields)
    wait_until(lambda: has_any(training), lambda: "no checkpoint")
    local_aws.order_fault(kind="capacity", target="CreateTrainingJob")  # for the instances that it asks for next
    local_aws.order_fault(kind="interruption", target=deferred.trigger.reference.name, times=1)
    with pytest.raises(AirflowException, match=r"taken away once.*goes on from the last checkpoint") as failed:
        training.resume(deferred, "resumes.py", **fields)
    assert not isinstance(failed.value, AirflowFailException)
    local_aws.clear_faults()
    # A retry with more time is another request, and the same training.
    result = training.train("resumes.py", task=training.task(try_number=2), **spot(training, **lives(2)))
    assert len(model_of(training, result)) == 1
    assert len(folders(training)) == 1


def test_after_awss_own_fault_a_retry_goes_on_from_the_checkpoint_in_another_job(
    training: Training, local_aws: LocalAws
) -> None:
    fields = {**checkpoints(training), **lives(2)}
    deferred = training.defer("resumes.py", **fields)
    wait_until(lambda: has_any(training), lambda: "no checkpoint")
    local_aws.order_fault(kind="internal", target=deferred.trigger.reference.name, times=1)
    with pytest.raises(AirflowException, match="InternalServerError") as failed:
        training.resume(deferred, "resumes.py", **fields)
    assert not isinstance(failed.value, AirflowFailException)
    result = training.train("resumes.py", task=training.task(try_number=2), **fields)
    assert (result.attempts, len(model_of(training, result))) == (2, 1)


def test_runs_of_a_backfill_at_once_never_find_each_others_checkpoints(training: Training) -> None:
    fields = {**checkpoints(training), **lives(1)}
    runs = [f"backfill__2013-{month:02d}-01" for month in range(1, 6)]
    tasks = [RunningTask("train", run_id=run, run_type="backfill", max_tries=2) for run in runs]
    deferred = [training.defer("resumes.py", task=task, **fields) for task in tasks]  # all run before one is awaited
    results = []
    for task, waiting in zip(tasks, deferred, strict=True):
        results.append(from_json(TrainingResult, training.resume(waiting, "resumes.py", task=task, **fields)))
    assert [model_of(training, result) for result in results] == [[]] * len(runs)
    found = folders(training)
    assert sorted(jobs for jobs in found.values()) == sorted([result.job_name] for result in results)
    # Once more, one after the other, now that all have left something: a cleared run, and a run that is new.
    cleared = RunningTask("train", run_id=runs[0], run_type="backfill", try_number=2, max_tries=3)
    fresh = RunningTask("train", run_id="backfill__2013-06-01", run_type="backfill", max_tries=2)
    for task in (cleared, fresh):
        assert model_of(training, training.train("resumes.py", task=task, **fields)) == []


def test_a_cleared_task_goes_on_only_where_it_is_asked_to(training: Training) -> None:
    fields = {**checkpoints(training), **lives(1), "resume_on_clear": True}
    training.train("resumes.py", **fields)
    cleared = training.task(try_number=2, max_tries=3)
    assert len(model_of(training, training.train("resumes.py", task=cleared, **fields))) == 1
    other = {**fields, "hyperparameters": {"lives": 1, "width": 8}}  # another training may not go on from it
    (training.source / "resumes.py").write_text(RESUMES.replace("parse_args()", "parse_known_args()[0]"))
    cleared = training.task(try_number=3, max_tries=4)
    assert model_of(training, training.train("resumes.py", task=cleared, **other)) == []


def test_a_task_cleared_while_it_trains_waits_for_the_last_checkpoint_of_the_job_it_stops(training: Training) -> None:
    fields = {**checkpoints(training), **lives(2), "resume_on_clear": True}
    late = RESUMES.replace(
        "    time.sleep(600)",
        "    import signal, sys\n"
        "    def save(*_):\n"
        "        time.sleep(1); (folder / 'last').write_text(os.environ['TRAINING_JOB_NAME']); sys.exit(1)\n"
        "    signal.signal(signal.SIGTERM, save)\n"
        "    time.sleep(600)",
    )
    (training.source / "resumes.py").write_text(late)
    training.defer("resumes.py", **fields)
    wait_until(lambda: has_any(training), lambda: "no checkpoint")
    cleared = training.train("resumes.py", task=training.task(try_number=2, max_tries=3), **fields)
    assert "last" in model_of(training, cleared)


def test_a_task_cleared_while_it_takes_up_the_end_of_its_job_trains_again(training: Training) -> None:
    deferred = training.defer()
    payload = asyncio.run(event_of(trigger_of(deferred)))
    first = from_json(TrainingResult, training.go_on(deferred, payload, "good.py"))
    # Airflow 3.3.2 resumes the next life of a task that was cleared while it ran, with what it was resumed with before.
    cleared = training.task(try_number=2, max_tries=3)
    with pytest.raises(TaskDeferred) as again:
        training.go_on(deferred, payload, "good.py", task=cleared)
    second = from_json(TrainingResult, training.resume(again.value, task=cleared))
    assert first.job_name != second.job_name
    assert training.jobs() == ["Completed", "Completed"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_that_may_wait_for_capacity_asks_again_by_itself(
    training: Training, local_aws: LocalAws, deferrable: bool
) -> None:
    local_aws.order_fault(kind="capacity", target="CreateTrainingJob", times=1)
    fields = {"capacity_wait": timedelta(seconds=3), "deferrable": deferrable}
    if not deferrable:
        result = from_json(TrainingResult, training.operator(**fields).execute(training.task().context))
    else:
        first = training.defer(**fields)
        payload = asyncio.run(event_of(trigger_of(first)))
        with pytest.raises(TaskDeferred) as paused:
            training.go_on(first, payload, "good.py", **fields)
        result = from_json(TrainingResult, after_pause(training, paused.value, **fields))
    assert result.attempts == 2
    assert sorted(training.jobs()) == ["Completed", "Failed"]


def after_pause(training: Training, paused: TaskDeferred, **fields: Any) -> Any:
    """Let the pause pass, and the task go on."""
    classpath, kwargs = paused.trigger.serialize()
    assert classpath == "airflow_dlaws.triggers.pause.PauseTrigger"
    assert 0 < kwargs["until"] - time.time() <= 3
    asyncio.run(event_of(PauseTrigger(**kwargs)))  # type: ignore[arg-type]
    with pytest.raises(TaskDeferred) as again:
        training.operator(**fields).resume_execution(paused.method_name, {"event": {}}, training.task().context)
    return training.resume(again.value, **fields)


def test_waiting_for_capacity_ends_with_its_budget_and_leaves_the_rest_to_retries(
    training: Training, local_aws: LocalAws
) -> None:
    local_aws.order_fault(kind="capacity", target="CreateTrainingJob")
    operator = training.operator(capacity_wait=timedelta(seconds=2), deferrable=False)
    began = time.monotonic()
    with pytest.raises(AirflowException, match="CapacityError") as failed:
        operator.execute(training.task().context)
    assert time.monotonic() - began >= 2
    assert not isinstance(failed.value, AirflowFailException)
    assert training.jobs() == ["Failed", "Failed"]


def test_a_quota_in_use_is_missing_capacity_too(training: Training, local_aws: LocalAws) -> None:
    message = (
        "The account-level service limit 'ml.m5.large for training job usage' is 4 Instances, with current utilization "
        "of 4 Instances and a request delta of 1 Instances."
    )
    local_aws.order_fault(
        kind="error", target="CreateTrainingJob", code="ResourceLimitExceeded", message=message, times=1
    )
    fields = {"capacity_wait": timedelta(seconds=1), "deferrable": False}
    result = training.operator(**fields).execute(training.task().context)
    assert (result["attempts"], training.jobs()) == (1, ["Completed"])


def test_a_wait_for_capacity_that_is_too_long_is_refused_at_parse_time(training: Training) -> None:
    with pytest.raises(ValueError, match=r"capacity_wait=2 days.*at most 1 day"):
        training.operator(capacity_wait=timedelta(days=2))


def test_without_a_price_the_task_is_green_and_says_why_there_is_no_cost(
    training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    prices._KNOWN.clear()
    results = [training.train(), training.train(task=training.task(try_number=2, max_tries=3))]
    assert [result.cost_usd for result in results] == [None, None]
    assert all("AccessDenied" in result.cost_basis for result in results)
    assert len([row for row in caplog.records if "is not estimated" in row.getMessage()]) == 1  # said once


def product(instance: str, component: str, price: str, *, region: str = "us-east-1", **changes: Any) -> dict[str, Any]:
    """Return a product as GetProducts gives it; the price is the test's own."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}, **changes}
    return {
        "product": {
            "productFamily": "ML Instance",
            "attributes": {"instanceName": instance, "component": component, "regionCode": region},
        },
        "terms": {"OnDemand": {"SKU.TERM": {"priceDimensions": {"SKU.TERM.RATE": dimension}}}},
    }


PRODUCTS = [
    product("ml.m5.large", "Training", "3.6"),
    product("ml.m5.large", "Hosting", "99"),
    product("ml.m5.large", "Training", "99", region="eu-west-1"),
    product("ml.m5.xlarge", "Training", "1"),
    product("ml.m5.xlarge", "Training", "2"),
    *[product("ml.c5.large", "Notebook", str(number)) for number in range(150)],
    product("ml.c5.large", "Training", "4"),
    product("ml.c5.xlarge", "Training", "7.2"),
]


@pytest.fixture(scope="module")
def priced_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A local AWS with a file of prices."""
    folder = tmp_path_factory.mktemp("priced")
    (folder / "prices.json").write_text(json.dumps({"PriceList": [json.dumps(each) for each in PRODUCTS]}))
    with LocalAws(folder / "state", time_scale=0.05, spot_price=0.5, prices=folder / "prices.json") as aws:
        yield aws


def test_the_price_of_training_is_found_among_all_products(priced_aws: LocalAws) -> None:
    pricing = priced_aws.client("pricing")

    def price(instance_type: str, region: str = "us-east-1") -> Price:
        return training_price(pricing, region=region, instance_type=instance_type)

    assert price("ml.m5.large").usd_per_hour == 3.6
    assert price("ml.m5.large", "eu-west-1").usd_per_hour == 99
    assert price("ml.c5.large").usd_per_hour == 4  # on the second page
    assert price("ml.m5.xlarge").usd_per_hour is None
    assert "2 different prices" in price("ml.m5.xlarge").source
    assert "no price for training on ml.p5.48xlarge" in price("ml.p5.48xlarge").source


def test_a_price_is_asked_for_once_in_a_process(priced_aws: LocalAws) -> None:
    prices._KNOWN.clear()
    pricing = priced_aws.client("pricing")
    first = training_price(pricing, region="us-east-1", instance_type="ml.m5.large")
    priced_aws.order_fault(kind="error", target="GetProducts", code="AccessDeniedException")
    try:
        assert training_price(pricing, region="us-east-1", instance_type="ml.m5.large") == first
        assert training_price(pricing, region="us-east-1", instance_type="ml.c5.large").usd_per_hour is None
    finally:
        priced_aws.clear_faults()
        prices._KNOWN.clear()


def test_the_cost_of_a_job_is_in_its_result(
    priced_aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices._KNOWN.clear()
    priced_aws.client("s3").create_bucket(Bucket="priced")
    for training in resuming(priced_aws, "priced", tmp_path, monkeypatch):
        result = training.train(instance_count=2)
        assert result.cost_usd == pytest.approx(2 * result.billable_seconds * 3.6 / 3600)
        assert "AWS Price List, on demand, us-east-1" in result.cost_basis
        given = training.train(task=training.task(try_number=2, max_tries=3), price_per_hour="36")
        assert given.cost_usd == pytest.approx(given.billable_seconds * 36 / 3600)
        types = ({"name": "a", "instance_type": "ml.m5.large"}, {"name": "b", "instance_type": "ml.c5.xlarge"})
        mixed = training.train(task=training.task(try_number=3, max_tries=4), instance_type=None, instance_groups=types)
        assert (mixed.instance_type, mixed.instance_count) == ("ml.m5.large,ml.c5.xlarge", 2)
        assert mixed.cost_usd == pytest.approx(mixed.billable_seconds * (3.6 + 7.2) / 3600)


def test_progress_is_told_in_the_log_and_as_an_xcom_while_a_worker_waits(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    task = training.task()
    training.operator("resumes.py", deferrable=False, **checkpoints(training), **lives(1)).execute(task.context)
    assert task.pushed["progress"]["step"] == 1
    assert task.pushed["progress"]["sentence"] == "Progress: step 1 of 1, 100% done, loss 0.5"
    assert "Progress: step 1 of 1, 100% done, loss 0.5" in capsys.readouterr().out


def test_progress_is_told_in_the_log_of_a_deferred_task(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    training.train("resumes.py", **checkpoints(training), **lives(1))
    assert "Progress: step 1 of 1, 100% done, loss 0.5" in capsys.readouterr().out
