"""Machines of several types, file systems and warm pools: what CreateTrainingJob refuses, and what jobs then see."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from job_spec import fields, write_scripts
from running_task import RunningTask, aws_environment
from trainer import Trainer, channel

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.spec import InstanceGroup, TrainingSpec
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.training import DistributedTrainingOperator

PLAN = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/march-2027"
VPC = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
LUSTRE, EFS = "fs-0123456789abcdef0", "fs-01234567"
#: Says what a host knows of the job.
SHOW = "cat /opt/ml/input/config/resourceconfig.json | tr -d '\\n '; echo; ls /opt/ml/input/data"


@pytest.fixture(scope="module")
def mounted_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A local AWS with two file systems."""
    folder = tmp_path_factory.mktemp("file-systems")
    (folder / "lustre/fsx/flights").mkdir(parents=True)
    (folder / "lustre/fsx/flights/part-0.csv").write_text("lustre")
    (folder / "efs/cache").mkdir(parents=True)
    systems = {LUSTRE: folder / "lustre", EFS: folder / "efs"}
    with LocalAws(tmp_path_factory.mktemp("mounted") / "state", time_scale=0.05, file_systems=systems) as aws:
        aws.client("s3").create_bucket(Bucket="mounted")
        aws.client("s3").put_object(Bucket="mounted", Key="data/part-0.csv", Body=b"a")
        yield aws


@pytest.fixture
def mounted(mounted_aws: LocalAws) -> Trainer:
    """Training jobs where there are file systems."""
    return Trainer(mounted_aws, "mounted")


def file_system(name: str, system: str, path: str, **changes: Any) -> dict[str, Any]:
    """Return an input channel over a directory."""
    source = {
        "FileSystemId": system,
        "FileSystemAccessMode": "ro",
        "FileSystemType": "EFS" if system == EFS else "FSxLustre",
        "DirectoryPath": path,
    }
    return {"ChannelName": name, "DataSource": {"FileSystemDataSource": {**source, **changes}}}


def group(name: str, instance_type: str, count: int = 1) -> dict[str, Any]:
    return {"InstanceGroupName": name, "InstanceType": instance_type, "InstanceCount": count}


def preferences(*types: str, **resources: Any) -> dict[str, Any]:
    return {"InstancePreferences": [{"InstanceType": name} for name in types], **resources}


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"InstanceType": "ml.m5.large", **preferences("ml.m5.large")}, "mutually exclusive"),
        ({"InstanceGroups": [group("a", "ml.m5.large")], "InstanceCount": 1}, "mutually exclusive"),
        ({"InstanceGroups": [group("a", "ml.m5.large"), group("a", "ml.c5.large")]}, "ml.c5.large|distinct names"),
        ({"InstanceGroups": [group("a", "ml.m5.large", 0)]}, "at least 1"),
        ({"InstanceGroups": []}, "at least one group"),
        (preferences("ml.m5.large"), "either in ResourceConfig or on every entry"),
        (preferences("ml.m5.large", "ml.m5.large", InstanceCount=1), "can appear only once"),
        (
            {
                "InstancePreferences": [
                    {"InstanceType": "ml.m5.large", "InstanceCount": 1},
                    {"InstanceType": "ml.m5.xlarge"},
                ]
            },
            "either in ResourceConfig or on every entry",
        ),
        (
            {
                "InstancePreferences": [{"InstanceType": "ml.p4d.24xlarge", "TrainingPlanArns": [PLAN]}],
                "InstanceCount": 1,
                "TrainingPlanArn": PLAN,
            },
            "TrainingPlanArn and the TrainingPlanArns",
        ),
        ({"InstanceType": "ml.m5.large", "InstanceCount": 1, "SelectedInstanceType": "ml.m5.large"}, "read-only"),
        ({"InstanceGroups": [group("a", "ml.m5.large")], "KeepAlivePeriodInSeconds": 60}, "cannot be used with Inst"),
        ({"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeKmsKeyId": "k"}, "with local storage"),
    ],
)
def test_machines_that_aws_refuses_are_refused(trainer: Trainer, resources: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as refused:
        trainer.sagemaker.create_training_job(**trainer.request(ResourceConfig={"VolumeSizeInGB": 10, **resources}))
    assert refused.value.response["Error"]["Code"] == "ValidationException"


SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
}


@pytest.mark.parametrize(
    "resources",
    [
        preferences("ml.m5.large", InstanceCount=1, VolumeSizeInGB=10),
        {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10, "KeepAlivePeriodInSeconds": 60},
    ],
)
def test_spot_machines_are_neither_chosen_from_a_list_nor_kept(trainer: Trainer, resources: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="EnableManagedSpotTraining"):
        trainer.sagemaker.create_training_job(**trainer.request(ResourceConfig=resources, **SPOT))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"InputDataConfig": [file_system("a", LUSTRE, "/fsx/flights")]}, "VpcConfig is required"),
        (
            {"InputDataConfig": [file_system("a", "fs-0badc0de", "/x")], "VpcConfig": VPC},
            "'fs-0badc0de' does not exist.*--file-system fs-0badc0de=FOLDER",
        ),
        ({"InputDataConfig": [file_system("a", LUSTRE, "fsx")], "VpcConfig": VPC}, "'fsx' of channel 'a' is not absol"),
        (
            {"InputDataConfig": [{**file_system("a", LUSTRE, "/fsx"), "InputMode": "FastFile"}], "VpcConfig": VPC},
            "InputMode must be File",
        ),
    ],
)
def test_a_file_system_that_aws_refuses_is_refused(mounted: Trainer, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words):
        mounted.sagemaker.create_training_job(**mounted.request(**change))


def test_file_systems_are_mounted_and_read_only_is_kept(mounted: Trainer, mounted_aws: LocalAws) -> None:
    script = (
        "cat /opt/ml/input/data/train/part-0.csv; echo; echo made > /opt/ml/input/data/cache/made.txt; "
        "touch /opt/ml/input/data/train/x 2>/dev/null && echo writable || echo read-only"
    )
    channels = [
        file_system("train", LUSTRE, "/fsx/flights"),
        file_system("cache", EFS, "/cache", FileSystemAccessMode="rw"),
    ]
    job = mounted.run(script, InputDataConfig=channels, VpcConfig=VPC)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["InputDataConfig"] == channels
    lines = mounted.logs(job["TrainingJobName"])["algo-1"]
    assert lines[0] == "lustre"
    if mounted_aws.health()["isolation"] != "environment":
        assert lines[1] == "read-only"
    made = mounted.run("cat /opt/ml/input/data/cache/made.txt", InputDataConfig=channels, VpcConfig=VPC)
    assert mounted.logs(made["TrainingJobName"])["algo-1"] == ["made"]


def test_a_directory_that_is_not_there_fails_the_job(mounted: Trainer) -> None:
    job = mounted.run(InputDataConfig=[file_system("a", LUSTRE, "/fsx/none")], VpcConfig=VPC)
    assert job["TrainingJobStatus"] == "Failed"
    assert f"Unable to mount file system: {LUSTRE} directory path: /fsx/none" in job["FailureReason"]


def test_groups_are_hosts_that_know_their_own_and_the_others(mounted: Trainer) -> None:
    resources = {"InstanceGroups": [group("loaders", "ml.m5.large"), group("trainers", "ml.g5.xlarge")]}
    for_trainers = channel("train", "s3://mounted/data/", InstanceGroupNames=["trainers"])
    job = mounted.run(SHOW, ResourceConfig={**resources, "VolumeSizeInGB": 10}, InputDataConfig=[for_trainers])
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["ResourceConfig"]["InstanceGroups"] == resources["InstanceGroups"]
    logs = mounted.logs(job["TrainingJobName"])
    groups = (
        '"instance_groups":[{"instance_group_name":"loaders","instance_type":"ml.m5.large","hosts":["algo-1"]},'
        '{"instance_group_name":"trainers","instance_type":"ml.g5.xlarge","hosts":["algo-2"]}]'
    )
    for host, own, data in (("algo-1", "loaders", []), ("algo-2", "trainers", ["train"])):
        assert groups in logs[host][0]
        assert f'"current_group_name":"{own}"' in logs[host][0]
        assert logs[host][1:] == data


def test_a_channel_for_a_group_that_is_not_there_is_refused(trainer: Trainer) -> None:
    named = channel("train", f"s3://{trainer.bucket}/data/", InstanceGroupNames=["trainers"])
    with pytest.raises(ClientError, match=r"names the instance groups \['trainers'\]; the job has \[\]"):
        trainer.sagemaker.create_training_job(**trainer.request(InputDataConfig=[named]))


def test_the_first_type_that_there_is_gets_the_job(mounted: Trainer, mounted_aws: LocalAws) -> None:
    for name in ("ml.p5.48xlarge", "ml.p4d.24xlarge"):
        mounted_aws.order_fault(kind="capacity", target=name, times=1)
    wanted = [
        {"InstanceType": "ml.p5.48xlarge", "InstanceCount": 1},
        {"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 1},
        {"InstanceType": "ml.g6.12xlarge", "InstanceCount": 2},
    ]
    try:
        job = mounted.run(SHOW, ResourceConfig={"InstancePreferences": wanted, "VolumeSizeInGB": 10})
    finally:
        mounted_aws.clear_faults()
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    chosen = {"SelectedInstanceType": "ml.g6.12xlarge", "SelectedInstanceCount": 2}
    assert job["ResourceConfig"] == {"InstancePreferences": wanted, "VolumeSizeInGB": 10, **chosen}
    logs = mounted.logs(job["TrainingJobName"])
    assert sorted(logs) == ["algo-1", "algo-2"]
    assert '"current_instance_type":"ml.g6.12xlarge"' in logs["algo-2"][0]


def test_where_there_is_none_of_them_the_job_fails_for_want_of_capacity(
    mounted: Trainer, mounted_aws: LocalAws
) -> None:
    for name in ("ml.p5.48xlarge", "ml.p4d.24xlarge"):
        mounted_aws.order_fault(kind="capacity", target=name)
    try:
        resources = preferences("ml.p5.48xlarge", "ml.p4d.24xlarge", InstanceCount=1, VolumeSizeInGB=10)
        job = mounted.run(ResourceConfig=resources)
    finally:
        mounted_aws.clear_faults()
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("CapacityError")
    assert "SelectedInstanceType" not in job["ResourceConfig"]


def warm(trainer: Trainer, seconds: int, **changes: Any) -> str:
    """Start a job whose machines are kept, and wait for its end."""
    resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10}
    name = trainer.start(ResourceConfig={**resources, "KeepAlivePeriodInSeconds": seconds}, **changes)
    assert trainer.describe(name)["WarmPoolStatus"]["Status"] in {"InUse", "Available"}
    assert trainer.wait(name)["TrainingJobStatus"] == "Completed"
    return name


def pool(trainer: Trainer, name: str) -> dict[str, Any]:
    return dict(trainer.describe(name)["WarmPoolStatus"])


def test_a_job_of_the_same_kind_reuses_a_warm_pool(mounted: Trainer) -> None:
    first = warm(mounted, 21_600)
    assert pool(mounted, first) == {"Status": "Available"}
    other = warm(mounted, 21_600, EnableNetworkIsolation=True)
    assert pool(mounted, first) == {"Status": "Available"}, "what does not match leaves it alone"
    second = warm(mounted, 1)
    reused = pool(mounted, first)
    assert (reused["Status"], reused["ReusedByJob"]) == ("Reused", second)
    assert reused["ResourceRetainedBillableTimeInSeconds"] >= 0
    deadline = time.monotonic() + 20
    while pool(mounted, second)["Status"] != "Terminated":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert pool(mounted, other) == {"Status": "Available"}


def test_a_job_that_failed_keeps_no_machines(mounted: Trainer) -> None:
    resources = {"InstanceType": "ml.m5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10}
    job = mounted.run("exit 1", ResourceConfig={**resources, "KeepAlivePeriodInSeconds": 21_600})
    assert job["WarmPoolStatus"] == {"Status": "Terminated"}


def test_what_this_machine_has_no_use_for_is_described_again(trainer: Trainer) -> None:
    wishes = {
        "RetryStrategy": {"MaximumRetryAttempts": 3},
        "InfraCheckConfig": {"EnableInfraCheck": True},
        "RemoteDebugConfig": {"EnableRemoteDebug": True},
        "MlflowConfig": {"MlflowResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app"},
        "ModelPackageConfig": {
            "ModelPackageGroupArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/flights"
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxPendingTimeInSeconds": 7200},
    }
    job = trainer.run(**wishes)
    assert job["TrainingJobStatus"] == "Completed"
    assert {name: job[name] for name in wishes} == wishes


def test_the_operator_tells_which_machines_it_got(
    mounted_aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preferences, file systems, extra members and a model file by file, from the operator to the result."""
    aws_environment(monkeypatch, mounted_aws)
    common = fields(write_scripts(tmp_path / "code"), "mounted", "good.py")
    operator = DistributedTrainingOperator(
        task_id="train",
        **{**common, "instance_type": None},
        capacity_preferences=["ml.p4d.24xlarge", "ml.m5.large"],
        processes_per_instance=1,
        channels={"train": f"fsx://{LUSTRE}/fsx/flights"},
        subnets=["subnet-1"],
        security_group_ids=["sg-1"],
        output_compression="NONE",
        extra_request={"AlgorithmSpecification": {"EnableSageMakerMetricsTimeSeries": True}},
        aws_conn_id=None,
        deferrable=False,
        poll_interval=0.1,
    )
    mounted_aws.order_fault(kind="capacity", target="ml.p4d.24xlarge", times=1)
    try:
        result = operator.execute(RunningTask(task_id="train").context)  # type: ignore[arg-type]
    finally:
        mounted_aws.clear_faults()
    assert (result["instance_type"], result["instance_count"]) == ("ml.m5.large", 1)
    assert result["artifact_uri"].endswith("/output/model/")
    request = mounted_aws.client("sagemaker").describe_training_job(TrainingJobName=result["job_name"])
    assert request["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] is True
    model = mounted_aws.client("s3").get_object(
        Bucket="mounted", Key=f"{result['artifact_uri'].removeprefix('s3://mounted/')}model.txt"
    )
    assert model["Body"].read() == b"lustre"


@pytest.mark.slow
def test_hosts_of_several_groups_run_their_own_number_of_processes(mounted_aws: LocalAws, tmp_path: Path) -> None:
    """torchrun's world is the sum over the groups: 2 on the one host, 1 on the other."""
    (tmp_path / "ranks.py").write_text(
        "import os\n"
        "print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'], os.environ['SM_CURRENT_INSTANCE_GROUP'],\n"
        "      os.environ['LOCAL_WORLD_SIZE'], flush=True)\n"
    )
    spec = TrainingSpec(
        **fields(tmp_path, "mounted", "ranks.py", instance_type=None),
        instance_groups=(
            InstanceGroup(name="trainers", instance_type="ml.g5.xlarge", processes=2),
            InstanceGroup(name="loaders", instance_type="ml.m5.large"),
        ),
    )
    identity = TaskIdentity(dag_id="dag", run_id="groups", task_id="train")
    name = SageMakerLauncher(mounted_aws.client).submit(spec, identity).reference.name
    trainer = Trainer(mounted_aws, "mounted")
    job = trainer.wait(name)
    logs = trainer.logs(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), logs)
    said = {host: sorted(line for line in logs[host] if line.startswith("rank ")) for host in logs}
    assert said["algo-1"] == ["rank 0 of 3 trainers 2", "rank 1 of 3 trainers 2"]
    assert said["algo-2"] == ["rank 2 of 3 loaders 1"]
