"""Bad specifications are refused before anything is paid for, each with one message that shows the way out."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.file_system import Directory, FileSystemType
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.spec import CapacityPreference, Channel, InstanceGroup, TrainingSpec

PLAN = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/march"
LUSTRE = "fsx://fs-0123456789abcdef0/fsx/flights"
GROUP = InstanceGroup(name="trainers", instance_type="ml.p4d.24xlarge")
COUNTED = CapacityPreference(instance_type="ml.p4d.24xlarge", instance_count=1)


def groups(*members: InstanceGroup) -> dict[str, Any]:
    """Return the fields of a job of several types."""
    return {"instance_type": None, "instance_groups": members}


def preferences(*types: str) -> dict[str, Any]:
    """Return the fields of a job that takes the first of these types that there is."""
    return {
        "instance_type": None,
        "capacity_preferences": tuple(CapacityPreference(instance_type=name) for name in types),
    }


GOOD: dict[str, Any] = {
    "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
    "source": "/code",
    "entry_point": "train.py",
    "output_s3_uri": "s3://bucket/models",
    "role_arn": "arn:aws:iam::123456789012:role/dlaws-sagemaker",
    "instance_type": "ml.m5.large",
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role_arn": "dlaws-sagemaker"}, ["'dlaws-sagemaker'", "arn:aws:iam::ACCOUNT:role/NAME"]),
        ({"role_arn": "arn:aws:iam::123456789012:user/me"}, ["role ARN"]),
        ({"output_s3_uri": "models"}, ["output_s3_uri='models'", "s3://bucket/prefix"]),
        ({"output_s3_uri": "s3://Bucket_1/x"}, ["valid bucket name"]),
        ({"instance_type": "m5.large"}, ["'m5.large'", "ml.FAMILY.SIZE"]),
        ({"instance_count": 0}, ["instance_count=0", "1 to 1000"]),
        ({"instance_count": True}, ["instance_count=True"]),
        ({"processes_per_instance": 0}, ["processes_per_instance=0"]),
        ({"max_runtime_s": 0}, ["max_runtime_s=0"]),
        ({"entry_point": "/abs/train.py"}, ["inside the source folder"]),
        ({"entry_point": "../train.py"}, ["inside the source folder"]),
        ({"entry_point": "train.sh"}, [".py file"]),
        ({"image": ""}, ["image URI"]),
        ({"hyperparameters": {f"p{n}": "1" for n in range(101)}}, ["101 entries", "at most 100"]),
        ({"hyperparameters": {"p": "x" * 2501}}, ["2501 characters", "0 to 2500"]),
        ({"hyperparameters": {"p": {"nested": 1}}}, ["JSON string"]),
        ({"environment": {"1X": "a"}}, ["'1X'", "no digit"]),
        ({"environment": {"X": "a" * 513}}, ["513 characters"]),
        ({"environment": {"X": 1}}, ["must be a string"]),
        ({"arguments": "--all"}, ["must be a list"]),
        ({"metrics": [f"m{n}" for n in range(41)]}, ["at most 40"]),
        ({"spot": True}, ["checkpoint_s3_uri", "interrupted"]),
        ({"spot": True, "checkpoint_s3_uri": "s3://bucket/c"}, ["max_wait_s=None"]),
        (
            {"spot": True, "checkpoint_s3_uri": "s3://bucket/c", "max_wait_s": 60},
            ["max_wait_s=60", "max_runtime_s=86400"],
        ),
        ({"max_wait_s": 60}, ["spot=True"]),
        ({"subnets": ("subnet-1",)}, ["belong together"]),
        ({"image": None}, ["image=None, framework=None", "framework and framework_version"]),
        ({"framework": "pytorch", "framework_version": "2.13"}, ["give the URI of an image, or framework"]),
        ({"image": None, "framework": "pytorch"}, ["belong together", "framework_version='2.13'"]),
        ({"image": None, "framework": "pytorch", "framework_version": "1.4"}, ["known here are", "give image"]),
        ({"instance_type": None}, ["nothing given", "instance_groups, capacity_preferences"]),
        ({"instance_groups": (GROUP,)}, ["instance_type and instance_groups given", "exactly one"]),
        (groups(GROUP, GROUP), ["'trainers'] are named twice"]),
        ({**groups(GROUP), "instance_count": 2}, ["instance_count=2 beside instance_groups"]),
        ({**groups(GROUP), "processes_per_instance": 2}, ["a group may say processes"]),
        ({**groups(GROUP), "keep_alive_s": 60}, ["keeps no heterogeneous cluster warm"]),
        (groups(*(InstanceGroup(name=f"g{n}", instance_type="ml.m5.large") for n in range(6))), ["takes 5 at most"]),
        (preferences("ml.p5.48xlarge", "ml.p5.48xlarge"), ["['ml.p5.48xlarge'] twice"]),
        (preferences(*(f"ml.g5.{size}xlarge" for size in (2, 4, 8, 12, 16, 24))), ["takes 5 at most"]),
        (
            {"instance_type": None, "capacity_preferences": (COUNTED, CapacityPreference(instance_type="ml.m5.large"))},
            ["only ['ml.p4d.24xlarge'] have an instance_count", "or to none"],
        ),
        (
            {"instance_type": None, "capacity_preferences": (COUNTED,), "instance_count": 2},
            ["instance_count=2 beside capacity_preferences with counts of their own"],
        ),
        (
            {**preferences("ml.m5.large"), "spot": True, "max_wait_s": 86400, "checkpoint_s3_uri": "s3://bucket/c"},
            ["spot=True with capacity_preferences", "on-demand and planned capacity only"],
        ),
        (
            {
                "instance_type": None,
                "training_plan_arn": PLAN,
                "capacity_preferences": (CapacityPreference(instance_type="ml.p4d.24xlarge", training_plan_arn=PLAN),),
            },
            ["keep one of the two"],
        ),
        ({"training_plan_arn": "plan"}, ["training_plan_arn='plan'", "arn:aws:sagemaker:REGION:ACCOUNT:training-plan"]),
        (
            {"keep_alive_s": 60, "spot": True, "max_wait_s": 86400, "checkpoint_s3_uri": "s3://bucket/c"},
            ["keep_alive_s=60 with spot=True"],
        ),
        ({"keep_alive_s": 21_601}, ["keep_alive_s=21601", "0 to 21600"]),
        ({"max_retry_attempts": 31}, ["max_retry_attempts=31", "1 to 30"]),
        ({"max_pending_s": 60}, ["max_pending_s=60", "1800 to"]),
        ({"max_pending_s": 3600}, ["has no effect on ml.m5.large"]),
        ({"efa": True}, ["efa=True, but ml.m5.large has no Elastic Fabric Adapter"]),
        ({"volume_kms_key_id": "k", "instance_type": "ml.g5.xlarge"}, ["NVMe on the machine", "kms_key_id still"]),
        ({"kms_key_id": "a b"}, ["kms_key_id='a b'", "KMS key"]),
        ({"instance_type": "ml.p9.48xlarge"}, ["give processes_per_instance"]),
        ({"channels": (Channel(name="train", uri=LUSTRE),)}, ["channels ['train'] are file systems", "give subnets"]),
        (
            {"channels": (Channel(name="train", uri="s3://bucket/x", instance_groups=("trainers",)),)},
            ["instance_groups ['trainers'] are none of the job's, which are []"],
        ),
        ({"output_compression": "ZIP"}, ["output_compression='ZIP'", "['GZIP', 'NONE']"]),
        ({"mlflow": {"arn": "x"}}, ["MlflowTracking"]),
        ({"network_isolation": "yes"}, ["network_isolation='yes' must be True or False"]),
        (
            {"image": "pytorch/pytorch:2.12"},
            ["is in no private registry of ECR", "'TrainingRepositoryAccessMode'"],
        ),
        ({"metrics": ("-" * 255,)}, ["has 527 characters, AWS takes 500"]),
        ({"tags": {"team": 1}}, ["tags['team']=1 must be a string"]),
        ({"tags": {"cost&centre": "1"}}, ["tags key 'cost&centre' holds '&'"]),
        ({"tags": {"AWS:team": "1"}}, ["tags key 'AWS:team'", "begin with aws: are AWS's"]),
        ({"tags": {"dlaws:digest": "1"}}, ["tags key 'dlaws:digest'", "with dlaws: ours"]),
        (
            groups(*(InstanceGroup(name=f"{n}{'x' * 60}", instance_type="ml.c5.xlarge") for n in range(5))),
            ["an argument of 319 characters", "shorter names"],
        ),
        ({"extra_request": {"x": object()}}, ["must hold JSON only"]),
        ({"subnets": ("subnet 1",), "security_group_ids": ("sg-1",)}, ["must be an id such as subnet-0abc"]),
        (
            {
                "environment": {f"V{n}": "1" for n in range(99)},
                "instance_type": "ml.p4d.24xlarge",
                "instance_count": 2,
            },
            ["with the variables of EFA", "has 102 entries"],
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SpecificationError) as refused:
        TrainingSpec(**{**GOOD, **change})
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a b", "uri": "s3://bucket/x"}, "'a b'"),
        ({"name": "code", "uri": "s3://bucket/x"}, "reserved"),
        ({"name": "train", "uri": ""}, "has no location"),
        ({"name": "train", "uri": "/local/folder"}, "s3://bucket/prefix"),
        ({"name": "train", "uri": "s3://bucket/x", "kind": "Folder"}, "S3Prefix"),
        ({"name": "train", "uri": "s3://bucket/x", "input_mode": "Pipe"}, "FastFile"),
        ({"name": "train", "uri": "s3://bucket/x", "access": "rw"}, "for file systems"),
        (
            {"name": "train", "uri": "s3://bucket/x", "kind": "ManifestFile", "input_mode": "FastFile"},
            "AWS streams prefixes only",
        ),
        ({"name": "train", "uri": "fsx://data"}, "write fsx://fs-ID/MOUNTNAME/path"),
        ({"name": "train", "uri": "fsx://fs-0123456789abcdef0"}, "begins with the file system's mount name"),
        ({"name": "train", "uri": "efs://fs-01234567/../x"}, r"without '\.\.'"),
        ({"name": "train", "uri": LUSTRE, "access": "w"}, r"\['ro', 'rw'\]"),
        ({"name": "train", "uri": LUSTRE, "distribution": "ShardedByS3Key"}, "mounted on every host, whole"),
        ({"name": "train", "uri": LUSTRE, "input_mode": "FastFile"}, "input_mode='FastFile'|is for data in S3"),
    ],
)
def test_a_bad_channel_is_named_with_what_is_allowed(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        Channel(**fields)


def test_a_location_in_a_file_system_is_taken_apart() -> None:
    lustre, efs = Channel(name="a", uri=LUSTRE), Channel(name="b", uri="efs://fs-01234567", access="rw")  # type: ignore[arg-type]
    assert lustre.directory == Directory(
        type=FileSystemType.LUSTRE, file_system_id="fs-0123456789abcdef0", path="/fsx/flights"
    )
    assert efs.directory == Directory(type=FileSystemType.EFS, file_system_id="fs-01234567", path="/")
    assert Channel(name="c", uri="s3://bucket/x").directory is None


@pytest.mark.parametrize(
    ("fields", "text", "hosts"),
    [
        ({}, "1", 1),
        ({"instance_type": "ml.p4d.24xlarge", "instance_count": 3}, "8", 3),
        ({"instance_type": "ml.p4d.24xlarge", "processes_per_instance": 2}, "2", 1),
        (preferences("ml.p4d.24xlarge", "ml.p5.48xlarge"), "8", 1),
        (
            {**preferences("ml.p4d.24xlarge", "ml.g6.12xlarge"), "instance_count": 2},
            "ml.p4d.24xlarge=8,ml.g6.12xlarge=4",
            2,
        ),
        (
            groups(GROUP, InstanceGroup(name="loaders", instance_type="ml.c5.xlarge", instance_count=4)),
            "trainers=8,loaders=1",
            5,
        ),
    ],
)
def test_processes_and_hosts_follow_from_the_machines(fields: dict[str, Any], text: str, hosts: int) -> None:
    spec = TrainingSpec(**{**GOOD, **fields})
    assert (spec.processes_text, spec.hosts) == (text, hosts)


def test_the_environment_of_the_user_wins_over_the_preset() -> None:
    fields = {"instance_type": "ml.g5.48xlarge", "instance_count": 2, "environment": {"NCCL_PROTO": "ll128"}}
    spec = TrainingSpec(**{**GOOD, **fields})
    assert spec.job_environment["NCCL_PROTO"] == "ll128"
    assert spec.job_environment["FI_PROVIDER"] == "efa"
    assert TrainingSpec(**{**GOOD, **fields, "efa": False}).job_environment == {"NCCL_PROTO": "ll128"}


def test_a_key_is_for_the_volumes_too_where_aws_takes_one() -> None:
    fields = {**GOOD, "kms_key_id": "key"}
    assert TrainingSpec(**fields).volume_key == "key"
    assert TrainingSpec(**{**fields, "volume_kms_key_id": "other"}).volume_key == "other"
    assert TrainingSpec(**{**fields, "instance_type": "ml.g5.xlarge"}).volume_key is None


def test_a_framework_becomes_an_image_in_the_region_of_the_job() -> None:
    spec = TrainingSpec(**{**GOOD, "image": None, "framework": "pytorch", "framework_version": "2.13"})
    made = spec.in_region("eu-west-1")
    assert made.image == "763104351884.dkr.ecr.eu-west-1.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker"
    assert made.in_region("us-east-1") is made


def test_waiting_for_capacity_counts_in_the_longest_time() -> None:
    spec = TrainingSpec(**{**GOOD, "instance_type": "ml.g5.xlarge", "max_runtime_s": 600, "max_pending_s": 3600})
    assert spec.longest_s == 4200


def test_a_job_that_is_queued_for_a_training_plan_may_wait_until_the_plan_begins() -> None:
    planned = CapacityPreference(instance_type="ml.p4d.24xlarge", training_plan_arn=PLAN)
    for fields in (
        {"instance_type": "ml.p4d.24xlarge", "training_plan_arn": PLAN, "max_pending_s": 3600},
        {"instance_type": None, "capacity_preferences": (planned,)},
    ):
        spec = TrainingSpec(**{**GOOD, "max_runtime_s": 600, **fields})
        assert spec.longest_s == 600 + 28 * 24 * 3600


def test_a_channel_named_twice_is_refused() -> None:
    twice = (Channel(name="train", uri="s3://bucket/a"), Channel(name="train", uri="s3://bucket/b"))
    with pytest.raises(SpecificationError, match="named twice"):
        TrainingSpec(**GOOD, channels=twice)


def test_twenty_channels_do_not_fit_beside_the_code() -> None:
    channels = tuple(Channel(name=f"c{n}", uri="s3://bucket/a") for n in range(20))
    with pytest.raises(SpecificationError, match="at most 19"):
        TrainingSpec(**GOOD, channels=channels)


def test_hyperparameters_become_text() -> None:
    spec = TrainingSpec(**GOOD, hyperparameters={"epochs": 3, "lr": 0.1, "amp": True, "name": "x"})
    assert spec.hyperparameters == {"epochs": "3", "lr": "0.1", "amp": "true", "name": "x"}


@pytest.mark.parametrize(
    ("value", "template"),
    [
        ("{{ ds }}", True),
        ("{% if x %}", True),
        ("s3://bucket/x", False),
        ({"a": ["{{ b }}"]}, True),
        (3, False),
        (None, False),
    ],
)
def test_a_value_with_a_template_in_it_is_recognised(value: Any, template: bool) -> None:
    assert is_template(value) is template
