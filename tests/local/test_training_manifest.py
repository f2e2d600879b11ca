"""The manifest that a training task leaves beside its model, and data that change while it works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import job_spec
import pytest
from airflow.sdk.exceptions import AirflowFailException
from running_task import RunningTask, aws_environment

from airflow_dlaws.data.snapshot import ChosenData
from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.data import ChooseDataOperator
from airflow_dlaws.operators.registry import RegisterModelOperator
from airflow_dlaws.operators.training import DistributedTrainingOperator
from airflow_dlaws.registry.manifest import ModelManifest, read_manifest
from airflow_dlaws.storage import ObjectStore, S3Uri

#: A script that takes a while to read what it was given.
SLOW = "import time\ntime.sleep(2)\n" + job_spec.SCRIPTS["good.py"]


class Month:
    """A bucket with two months of data; one run chooses, trains and registers in it."""

    def __init__(self, aws: LocalAws, bucket: str, folder: Path) -> None:
        self.bucket, self.source = bucket, job_spec.write_scripts(folder)
        (folder / "slow.py").write_text(SLOW)
        self.s3, self.sagemaker = aws.client("s3"), aws.client("sagemaker")
        self.store = ObjectStore(self.s3)
        self.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        for month in ("2013-01", "2013-02"):
            self.put(month, b"1,2\n")
        self.chosen = self.choose()

    def put(self, month: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=f"flights/month={month}/a.csv", Body=body)

    def choose(self) -> ChosenData:
        operator = ChooseDataOperator(
            task_id="choose_data",
            aws_conn_id=None,
            data_s3_uri=f"s3://{self.bucket}/flights/",
            runs_s3_uri=f"s3://{self.bucket}/runs",
        )
        return from_json(ChosenData, operator.execute(RunningTask("choose_data").context))

    def operator(self, script: str = "good.py", **options: Any) -> DistributedTrainingOperator:
        channels = {"train": {"uri": self.chosen.train, "kind": "ManifestFile"}}
        fields = job_spec.fields(self.source, self.bucket, script, channels=channels, hyperparameters={"seed": 7})
        fixed = {
            "task_id": "train",
            "aws_conn_id": None,
            "poll_interval": 0.2,
            "deferrable": False,
            "instance_count": 2,
        }
        return DistributedTrainingOperator(**{**fixed, **fields, "data_snapshot": self.chosen.snapshot, **options})

    def train(self, script: str = "good.py", task: RunningTask | None = None, **options: Any) -> TrainingResult:
        task = task or RunningTask("train", run_id=self.bucket)
        return from_json(TrainingResult, self.operator(script, **options).execute(task.context))

    def manifest(self, result: TrainingResult) -> ModelManifest:
        return read_manifest(self.store, S3Uri.parse(str(result.manifest_uri)))

    def jobs(self) -> list[str]:
        """Return the names of the jobs that have left a model in the bucket."""
        keys = [row.uri.key for row in self.store.list(S3Uri(self.bucket, "models/"))]
        return [key.split("/")[1] for key in keys if key.endswith("model.tar.gz")]


@pytest.fixture
def month(local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Month:
    aws_environment(monkeypatch, local_aws)
    return Month(local_aws, bucket, tmp_path / "code")


def test_the_manifest_names_the_model_the_data_the_request_the_cost_and_the_run(month: Month) -> None:
    result = month.train(environment={"TOKEN": "secret"})
    manifest = month.manifest(result)

    assert result.manifest_uri == f"s3://{month.bucket}/models/{result.job_name}/output/manifest.json"
    assert manifest.artifact == month.store.stat(S3Uri.parse(result.artifact_uri))
    assert manifest.data is not None
    assert [each.version_id for each in manifest.data.training] == [
        month.s3.head_object(Bucket=month.bucket, Key="flights/month=2013-01/a.csv")["VersionId"]
    ]
    assert manifest.data.evaluation_month == "2013-02"
    assert manifest.data_changes == ()
    assert manifest.request["HyperParameters"] == {"seed": "7"}
    assert manifest.request["ResourceConfig"]["InstanceCount"] == 2
    code = {
        row["ChannelName"]: row["DataSource"]["S3DataSource"]["S3Uri"] for row in manifest.request["InputDataConfig"]
    }
    assert code["code"].startswith(f"s3://{month.bucket}/models/code/")
    assert "secret" not in json.dumps(dict(manifest.request))
    assert manifest.billable_instance_seconds == 2 * result.billable_seconds > 0
    assert (manifest.airflow.task_id, manifest.airflow.run_type) == ("train", "manual")
    assert manifest.model_package_group is None


def test_without_a_snapshot_there_is_a_manifest_that_names_no_objects(month: Month) -> None:
    manifest = month.manifest(month.train(data_snapshot=None))
    assert (manifest.data, manifest.data_uris) == (None, (month.chosen.train,))


def test_data_that_change_before_the_job_stop_it_for_nothing(month: Month) -> None:
    month.put("2013-01", b"corrected\n")
    with pytest.raises(AirflowFailException, match=r"no job is started: s3://.*2013-01/a.csv was version"):
        month.train()
    assert month.jobs() == []


def test_data_that_change_while_the_job_runs_fail_the_task_and_the_manifest_says_so(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, submit = month.operator("slow.py"), DistributedTrainingOperator._announce

    def replaced_meanwhile(self: Any, *arguments: Any) -> None:
        submit(self, *arguments)
        month.put("2013-02", b"late rows\n")

    monkeypatch.setattr(DistributedTrainingOperator, "_announce", replaced_meanwhile)
    with pytest.raises(AirflowFailException, match=r"may have read either: s3://.*2013-02/a.csv was version"):
        operator.execute(RunningTask("train", run_id=month.bucket).context)
    (job,) = month.jobs()
    manifest = read_manifest(month.store, S3Uri(month.bucket, f"models/{job}/output/manifest.json"))
    assert "month=2013-02/a.csv was version" in manifest.data_changes[0]


def test_a_retry_adopts_the_job_though_the_data_have_changed_and_says_that_they_have(month: Month) -> None:
    first = month.train(task=RunningTask("train", run_id=month.bucket, max_tries=2), retries=2)
    month.put("2013-01", b"corrected\n")
    with pytest.raises(AirflowFailException, match="may have read either"):
        month.train(task=RunningTask("train", run_id=month.bucket, try_number=2, max_tries=2), retries=2)
    assert month.jobs() == [first.job_name]


def test_registering_completes_the_manifest(month: Month) -> None:
    result = month.train()
    before = month.manifest(result)
    RegisterModelOperator(
        task_id="register",
        aws_conn_id=None,
        model_package_group=month.bucket,
        image=job_spec.IMAGE,
        training={name: getattr(result, name) for name in ("artifact_uri", "manifest_uri", "billable_seconds")},
        evaluation={"passed": True, "billable_seconds": 5},
        approval_status="Approved",
    ).execute(RunningTask("register").context)
    after = month.manifest(result)

    assert (after.data, after.request, after.data_uris) == (before.data, before.request, before.data_uris)
    assert (after.model_package_group, after.airflow.task_id) == (month.bucket, "register")
    assert after.billable_instance_seconds == result.billable_seconds + 5
