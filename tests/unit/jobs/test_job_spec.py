"""Bad specifications are refused before anything is paid for, each with one message that shows the way out."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.spec import Channel, TrainingSpec

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
    ],
)
def test_a_bad_channel_is_named_with_what_is_allowed(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        Channel(**fields)


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
