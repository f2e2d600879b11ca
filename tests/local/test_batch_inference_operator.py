"""BatchInferenceOperator against the local AWS: one job for one task, and green only if everything was scored."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from batch_bench import Batches
from running_task import aws_environment
from scoring_task import ScoringTask, trigger_of
from serving import ROLE, Serving, unique

from airflow_dlaws.jobs.transform import TransformResult
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.process import LocalAws


@pytest.fixture
def scoring(serving: Serving, batches: Batches, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> ScoringTask:
    """A task of its own, with two objects to score."""
    aws_environment(monkeypatch, local_aws)
    batches.put("in/a.csv", "x\nxx\n")
    batches.put("in/month=1/b.csv", "xxx")
    return ScoringTask(serving, batches)


@pytest.fixture
def forever(scoring: ScoringTask) -> dict[str, Any]:
    """Arguments of a job that takes longer than any test."""
    return {"model_name": scoring.serving.model(score=True, seconds=50.0)}


def test_a_task_scores_all_objects_and_counts_their_records(scoring: ScoringTask) -> None:
    models = scoring.models()
    result = from_json(TransformResult, scoring.score())
    assert scoring.batches.stored("out/") == {"a.csv.out": "1\n2\n", "month=1/b.csv.out": "3\n"}
    prefix = f"s3://{scoring.bucket}/out"
    assert (result.objects, result.records) == (2, 3)
    assert result.counts == {f"{prefix}/a.csv.out": 2, f"{prefix}/month=1/b.csv.out": 1}
    assert (result.adopted, result.attempts, result.instance_count) == (False, 1, 1)
    assert scoring.jobs() == ["Completed"]
    assert scoring.models() == models  # the one that was made is gone
    assert any(f"transform-jobs/{result.job_name}" in str(value) for value in scoring.pushed.values())


def test_waiting_in_the_worker_gives_the_same_result(scoring: ScoringTask) -> None:
    assert scoring.operator(deferrable=False).execute(scoring.task().context)["records"] == 3


def test_a_model_of_the_user_s_stays(scoring: ScoringTask) -> None:
    model = scoring.serving.model(score=True)
    result = scoring.score(model_name=model)
    assert (result["model_name"], result["records"]) == (model, 3)
    assert scoring.sagemaker.describe_model(ModelName=model)["ModelName"] == model


def test_an_approved_version_of_the_registry_scores(scoring: ScoringTask) -> None:
    group = unique("group")
    scoring.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    container = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve-test:1", "ModelDataUrl": scoring.artifact}
    arn = scoring.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        ModelApprovalStatus="Approved",
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    assert scoring.score(model_package_arn=arn)["records"] == 3


def test_a_manifest_names_what_is_scored(scoring: ScoringTask) -> None:
    manifest = scoring.batches.put("m.json", json.dumps([{"prefix": f"s3://{scoring.bucket}/in/"}, "month=1/b.csv"]))
    result = scoring.score(data={"uri": manifest, "kind": "ManifestFile"})
    assert result["counts"] == {f"s3://{scoring.bucket}/out/month=1/b.csv.out": 1}


def test_rows_can_carry_their_predictions(scoring: ScoringTask) -> None:
    scoring.batches.put("in/a.csv", "id-1,x,y\nid-2,xx,y\n")
    scoring.score(
        data=f"s3://{scoring.bucket}/in/a.csv", input_filter="$[1:]", join_input=True, output_filter="$[0,-1]"
    )
    assert scoring.batches.stored("out/") == {"a.csv.out": "id-1,3\nid-2,4\n"}


def test_objects_that_are_not_split_have_no_records(scoring: ScoringTask) -> None:
    result = scoring.score(split="None")
    assert (result["objects"], result["records"], result["counts"]) == (2, None, {})


def test_a_retry_adopts_the_running_job(scoring: ScoringTask, forever: dict[str, Any]) -> None:
    first = scoring.defer(**forever)
    again = scoring.defer(task=scoring.task(try_number=2), **forever)
    assert again.trigger.reference == first.trigger.reference
    assert again.kwargs["submission"]["adopted"] is True
    assert scoring.jobs() == ["InProgress"]
    scoring.sagemaker.stop_transform_job(TransformJobName=first.trigger.reference.name)


def test_a_retry_that_finds_the_job_finished_does_not_wait(scoring: ScoringTask) -> None:
    scoring.score()
    result = scoring.operator().execute(scoring.task(try_number=2).context)
    assert (result["adopted"], result["records"], scoring.jobs()) == (True, 3, ["Completed"])


def test_a_cleared_task_scores_anew_and_stops_the_job_before(scoring: ScoringTask, forever: dict[str, Any]) -> None:
    scoring.defer(**forever)
    result = scoring.score(task=scoring.task(try_number=2, max_tries=3))
    assert result["adopted"] is False
    assert sorted(scoring.jobs()) in (["Completed", "Stopped"], ["Completed", "Stopping"])


def test_marking_a_deferred_task_stops_its_job(scoring: ScoringTask, forever: dict[str, Any]) -> None:
    deferred = scoring.defer(**forever)
    asyncio.run(trigger_of(deferred).on_kill())
    name = deferred.trigger.reference.name
    assert scoring.batches.transformed(name)["TransformJobStatus"] == "Stopped"


def test_the_deadline_stops_the_job_and_fails_the_task(scoring: ScoringTask, forever: dict[str, Any]) -> None:
    deferred = scoring.defer(timeout=timedelta(seconds=1), **forever)
    with pytest.raises(AirflowFailException, match="had not ended at its deadline"):
        scoring.resume(deferred, timeout=timedelta(seconds=1), **forever)
    assert scoring.batches.transformed(deferred.trigger.reference.name)["TransformJobStatus"] == "Stopped"


def test_missing_capacity_is_retried_with_another_job(scoring: ScoringTask, local_aws: LocalAws) -> None:
    local_aws.order_fault(kind="capacity", target="CreateTransformJob", times=1)
    try:
        with pytest.raises(AirflowException, match="capacity") as failed:
            scoring.score()
    finally:
        local_aws.clear_faults()
    assert not isinstance(failed.value, AirflowFailException)
    assert scoring.score(task=scoring.task(try_number=2))["attempts"] == 2


def test_a_bad_row_is_named_before_a_job_is_made(scoring: ScoringTask) -> None:
    rows = [f"{number},UA" for number in range(9000)]
    rows[7311] = "abc,UA"
    place = scoring.batches.put("in/part-3.csv", "\n".join(rows))
    scoring.batches.put("in/part-4.csv", "1,UA\n\n2\n")
    for gone in ("in/a.csv", "in/month=1/b.csv"):
        scoring.batches.s3.delete_object(Bucket=scoring.bucket, Key=gone)
    with pytest.raises(AirflowFailException) as failed:
        scoring.operator(columns={"dep_delay": "number", "carrier": "text"}).execute(scoring.task().context)
    message = str(failed.value)
    assert f"{place} line 7,312: 'dep_delay' = 'abc' is no number" in message
    assert f"s3://{scoring.bucket}/in/part-4.csv line 2: is empty" in message
    assert f"s3://{scoring.bucket}/in/part-4.csv line 3: has 1 values, not 2 (dep_delay,carrier)" in message
    assert "3 rows cannot be scored; no job was started" in message
    assert scoring.jobs() == []


def test_a_row_that_the_model_refuses_is_named_by_line(scoring: ScoringTask) -> None:
    place = scoring.batches.put("in/c.csv", "x\nbad\nxx\n")
    with pytest.raises(AirflowFailException, match="See job logs for more information") as failed:
        scoring.score()
    assert f"{place} line 2: row 2 is bad" in str(failed.value)
    with pytest.raises(AirflowFailException, match="not run again"):
        scoring.operator().execute(scoring.task(try_number=2).context)
    assert scoring.jobs() == ["Failed"]


def test_a_row_of_several_requests_is_named_by_the_lines_it_can_be(scoring: ScoringTask) -> None:
    rows = ["x" * 300] * 5000
    rows[4321] = "bad"  # in the second of two requests: 3,483 lines of 301 bytes fit into the first
    place = scoring.batches.put("in/c.csv", "\n".join(rows))
    with pytest.raises(AirflowFailException) as failed:
        scoring.score(max_payload_mb=1, check_rows=False)
    assert f"{place} line 839 or 4,322: row 839 is bad" in str(failed.value)


def test_an_output_that_is_missing_or_short_is_no_success(scoring: ScoringTask) -> None:
    deferred = scoring.defer()
    scoring.batches.transformed(deferred.trigger.reference.name)
    scoring.batches.put("out/a.csv.out", "1\n")
    with pytest.raises(AirflowFailException, match=r"out/a.csv.out has 1 records for the 2 of"):
        scoring.resume(deferred)
    scoring.batches.s3.delete_object(Bucket=scoring.bucket, Key="out/a.csv.out")
    with pytest.raises(AirflowFailException, match=r"1 of 2 outputs are missing or older than the job.*out/a.csv.out"):
        scoring.resume(deferred)


def test_data_that_change_while_the_job_runs_are_no_success(scoring: ScoringTask) -> None:
    deferred = scoring.defer()
    created = scoring.batches.transformed(deferred.trigger.reference.name)["CreationTime"]
    key = "in/month=1/b.csv"
    while scoring.batches.s3.head_object(Bucket=scoring.bucket, Key=key)["LastModified"] <= created:
        scoring.batches.put(key, "yyy")
    with pytest.raises(AirflowFailException, match="1 input objects were written after the job was created"):
        scoring.resume(deferred)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "s3://no-such-bucket/in/"}, "bucket 'no-such-bucket' does not exist"),
        ({"data": "s3://BUCKET/empty/"}, "has no objects"),
        ({"data": "s3://BUCKET/in/mon"}, "neither one object nor a folder"),
        ({"data": {"uri": "s3://BUCKET/in/a.csv", "kind": "ManifestFile"}}, "is not a list of one"),
        ({"output_s3_uri": "s3://no-such-bucket/out"}, "bucket 'no-such-bucket' does not exist"),
        ({"instance_type": "ml.m5.lagre"}, "ml.m5.large"),
        ({"model_name": "nobody"}, "Could not find model"),
        ({"artifact_uri": "s3://BUCKET/none.tar.gz"}, "Could not find model data"),
    ],
)
def test_bad_input_fails_with_one_clear_message_before_a_job_is_made(
    scoring: ScoringTask, change: dict[str, Any], words: str
) -> None:
    change = json.loads(json.dumps(change).replace("BUCKET", scoring.bucket))
    with pytest.raises(AirflowFailException, match=words):
        scoring.operator(**change).execute(scoring.task().context)
    assert scoring.jobs() == []


def test_the_name_of_a_model_that_is_another_s_is_a_conflict(scoring: ScoringTask) -> None:
    deferred = scoring.defer()
    name = scoring.operator().launcher.model_of(deferred.trigger.reference)
    scoring.batches.transformed(deferred.trigger.reference.name)
    scoring.sagemaker.delete_model(ModelName=name)
    other = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve-test:2"}
    scoring.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=other)
    with pytest.raises(AirflowFailException, match=f"model {name} exists with Image"):
        scoring.operator(tags={}, max_payload_mb=7).execute(scoring.task(try_number=2).context)
