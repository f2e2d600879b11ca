"""RegisterModelOperator against the local AWS: one version a task, with what belongs to it."""

from __future__ import annotations

import io
import json
import tarfile
import uuid

import pytest
from airflow.sdk.exceptions import AirflowFailException
from captured_traffic import reference
from running_task import RunningTask, aws_environment

from airflow_dlaws.drift.model_monitor import read_baseline
from airflow_dlaws.jobs import wire
from airflow_dlaws.operators.registry import RegisterModelOperator
from airflow_dlaws.registry.manifest import ModelManifest
from airflow_dlaws.registry.package import PackageResult

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
EVALUATION = {
    "verdict": "better",
    "reason": "better: log_loss improves",
    "passed": True,
    "challenger": {"log_loss": 0.3, "brier": 0.1, "accuracy": 0.9, "auc": None},
    "report_uri": "s3://bucket/evaluation.json",
}


def archive(**members: str) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return body.getvalue()


class Registration:
    """Registers one artifact of one bucket in one group."""

    def __init__(self, aws, bucket):
        self.s3, self.sagemaker, self.bucket = aws.client("s3"), aws.client("sagemaker"), bucket
        self.group = f"flights-{uuid.uuid4().hex[:8]}"
        self.training = {
            "job_name": "train-1",
            "job_arn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/train-1",
            "artifact_uri": f"s3://{bucket}/train-1/output/model.tar.gz",
            "output_uri": f"s3://{bucket}/train-1/output/output.tar.gz",
            "metrics": {"validation:log_loss": 0.31},
        }
        self.s3.put_object(Bucket=bucket, Key="train-1/output/model.tar.gz", Body=archive(model__pt="weights"))
        known = json.dumps(reference().document())
        self.put_output(archive(drift_reference__json=known, model_card__json='{"name": "flights"}'))

    def put_output(self, body):
        self.s3.put_object(Bucket=self.bucket, Key="train-1/output/output.tar.gz", Body=body)

    def run(self, task=None, **options) -> PackageResult:
        self.task = task or RunningTask("register")
        defaults = {"training": self.training, "evaluation": EVALUATION, "approval_status": "Approved"}
        operator = RegisterModelOperator(
            task_id="register",
            aws_conn_id=None,
            model_package_group=self.group,
            image=IMAGE,
            data_uris=f"s3://{self.bucket}/flights/month=2013-01/",
            **(defaults | options),
        )
        return wire.from_json(PackageResult, operator.execute(self.task.context))

    def read(self, uri):
        key = uri.removeprefix(f"s3://{self.bucket}/")
        return json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def versions(self):
        return self.sagemaker.list_model_packages(ModelPackageGroupName=self.group)["ModelPackageSummaryList"]


@pytest.fixture
def registration(local_aws, bucket, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    return Registration(local_aws, bucket)


def test_a_version_carries_image_artifact_metrics_drift_reference_and_lineage(registration):
    result = registration.run()
    package = registration.sagemaker.describe_model_package(ModelPackageName=result.package_arn)

    assert (result.version, result.approval_status, result.image) == (1, "Approved", IMAGE)
    assert package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == registration.training["artifact_uri"]
    assert package["MetadataProperties"]["GeneratedBy"] == registration.training["job_arn"]
    assert package["CustomerMetadataProperties"]["verdict"] == "better"
    metrics = registration.read(package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"])
    assert set(metrics["binary_classification_metrics"]) == {"log_loss", "brier", "accuracy"}
    assert registration.read(result.drift_reference_uri) == reference().document()
    baselines = package["DriftCheckBaselines"]["ModelDataQuality"]
    files = [json.dumps(registration.read(baselines[name]["S3Uri"])) for name in ("Statistics", "Constraints")]
    again = read_baseline(*files, created=reference().created, prediction="prediction").profile
    assert [each.name for each in again.features] == [each.name for each in reference().features]
    assert again.rows == reference().rows
    assert registration.read(result.model_card_uri) == {"name": "flights"}
    assert f"model-packages/{registration.group}/1" in registration.task.pushed["_link_ConsoleLink"]


def test_a_reference_of_another_format_is_kept_and_is_no_baseline_of_model_monitor(registration):
    registration.put_output(archive(drift_reference__json='{"rows": 5}'))
    result = registration.run()

    assert registration.read(result.drift_reference_uri) == {"rows": 5}
    assert "DriftCheckBaselines" not in registration.sagemaker.describe_model_package(
        ModelPackageName=result.package_arn
    )


def test_the_manifest_lies_beside_the_artifact_and_pins_its_bytes(registration):
    result = registration.run(lineage={"commit_id": "abc"})
    manifest = wire.from_json(ModelManifest, registration.read(result.manifest_uri))
    etag = registration.s3.head_object(Bucket=registration.bucket, Key="train-1/output/model.tar.gz")["ETag"]

    assert result.manifest_uri == f"s3://{registration.bucket}/train-1/output/manifest.json"
    assert manifest.artifact.etag == etag.strip('"')
    assert manifest.training == registration.training
    assert manifest.evaluation == EVALUATION
    assert manifest.airflow.run_id == "run-1"


def test_a_retry_finds_the_version_of_the_try_before(registration):
    first = registration.run(RunningTask("register", try_number=1, max_tries=2))
    second = registration.run(RunningTask("register", try_number=2, max_tries=2))

    assert first == second
    assert len(registration.versions()) == 1


def test_a_retry_finds_it_also_when_the_note_in_s3_was_never_written(registration):
    first = registration.run()
    for row in registration.s3.list_objects_v2(Bucket=registration.bucket, Prefix="train-1/output/registered/")[
        "Contents"
    ]:
        registration.s3.delete_object(Bucket=registration.bucket, Key=row["Key"])

    assert registration.run() == first
    assert len(registration.versions()) == 1


def test_a_cleared_task_makes_another_version(registration):
    registration.run(RunningTask("register", max_tries=0))
    cleared = registration.run(RunningTask("register", max_tries=1))

    assert cleared.version == 2


def test_what_did_not_pass_its_evaluation_is_not_approved(registration):
    failed = {**EVALUATION, "verdict": "worse", "passed": False, "reason": "worse: log_loss"}

    with pytest.raises(AirflowFailException, match="did not let this model pass"):
        registration.run(evaluation=failed)
    assert registration.run(evaluation=failed, approval_status="PendingManualApproval").version == 1


@pytest.mark.parametrize(
    ("run_type", "allow", "status"),
    [
        ("manual", False, "Approved"),
        ("backfill", False, "PendingManualApproval"),
        ("backfill", "False", "PendingManualApproval"),
        ("backfill", "True", "Approved"),
    ],
)
def test_a_backfill_approves_nothing_unless_told_to(registration, run_type, allow, status):
    result = registration.run(RunningTask("register", run_type=run_type), allow_backfill=allow)
    assert result.approval_status == status


def test_a_permission_that_is_neither_true_nor_false_is_refused(registration):
    with pytest.raises(AirflowFailException, match="allow_backfill='sometimes' must be true or false"):
        registration.run(RunningTask("register", run_type="backfill"), allow_backfill="sometimes")


def test_an_xcom_may_come_as_json_text_and_nothing_else(registration):
    assert registration.run(training=json.dumps(registration.training)).version == 1
    with pytest.raises(AirflowFailException, match=r"ends in \| tojson"):
        registration.run(training=str(registration.training))


def test_without_an_output_archive_there_is_no_drift_reference(registration):
    result = registration.run(training=None, artifact_uri=registration.training["artifact_uri"], evaluation=None)

    assert (result.drift_reference_uri, result.model_card_uri, result.metrics_uri) == (None, None, None)


def test_a_missing_artifact_and_a_broken_archive_are_named(registration):
    missing = f"s3://{registration.bucket}/nothing/model.tar.gz"
    with pytest.raises(AirflowFailException, match=f"cannot read {missing}"):
        registration.run(artifact_uri=missing)

    registration.put_output(archive(model_card__json="{}")[:40])
    with pytest.raises(AirflowFailException, match=r"output.tar.gz: not a readable gzipped tar archive"):
        registration.run()
    assert (
        registration.sagemaker.list_model_package_groups(NameContains=registration.group)[
            "ModelPackageGroupSummaryList"
        ]
        == []
    )
