"""What a DAG file can get wrong is said when it is parsed, if it can be known by then."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.spec import Channel, ChannelKind, TrainingSpec
from airflow_dlaws.operators.training import DistributedTrainingOperator

GOOD: dict[str, Any] = {
    "task_id": "train",
    "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
    "source": "scripts/flights",
    "entry_point": "train.py",
    "output_s3_uri": "s3://bucket/models",
    "role_arn": "arn:aws:iam::123456789012:role/dlaws-sagemaker",
    "instance_type": "ml.m5.large",
}
HEAVY = ("torch", "great_expectations", "pandas", "numpy", "boto3", "moto")


def rendered(values: dict[str, Any] | None = None, **changes: Any) -> TrainingSpec:
    """Return the specification of a task in a DAG once its templates are rendered."""
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1)):
        operator = DistributedTrainingOperator(**{**GOOD, **changes})
    operator.render_template_fields(values or {})
    return operator.specification({})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role_arn": "dlaws"}, "role_arn='dlaws' is no role ARN"),
        ({"output_s3_uri": "bucket/models"}, "output_s3_uri='bucket/models' is no S3 location"),
        ({"instance_type": "m5.large"}, "instance_type='m5.large'"),
        ({"instance_count": 0}, "instance_count=0"),
        ({"instance_count": "two"}, "instance_count='two' must be an integer"),
        ({"channels": {"train": ""}}, "channel 'train' has no location"),
        ({"channels": {"my data": "s3://bucket/x"}}, "'my data'"),
        ({"channels": {"train": {"url": "s3://bucket/x"}}}, "'url'"),
        ({"channels": {"train": "{{ ds }}", "test": "x"}}, "channel 'test'='x'"),
        ({"channels": ["s3://bucket/x"]}, "must map names"),
        ({"hyperparameters": {"layers": [1, 2]}}, "JSON string"),
        ({"spot": True}, "checkpoint_s3_uri"),
    ],
)
def test_a_bad_value_is_refused_when_the_dag_is_parsed(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        DistributedTrainingOperator(**{**GOOD, **change})


def test_a_value_with_a_template_is_judged_once_it_is_rendered() -> None:
    changes = {
        "role_arn": "{{ role }}",
        "instance_count": "{{ hosts }}",
        "channels": {"train": "s3://bucket/month={{ month }}/"},
        "hyperparameters": {"epochs": "{{ epochs }}"},
    }
    good = {"role": GOOD["role_arn"], "hosts": 2, "month": "2013-01", "epochs": 3}
    spec = rendered(good, **changes)
    assert (spec.role_arn, spec.instance_count) == (GOOD["role_arn"], 2)
    assert spec.channels == (Channel(name="train", uri="s3://bucket/month=2013-01/"),)
    assert spec.hyperparameters == {"epochs": "3"}
    with pytest.raises(SpecificationError, match="role_arn='dlaws'"):
        rendered({**good, "role": "dlaws"}, **changes)
    with pytest.raises(SpecificationError, match="instance_count='x'"):
        rendered({**good, "hosts": "x"}, **changes)


def test_a_relative_source_lies_beside_the_dag_file() -> None:
    assert rendered().source == str(Path(__file__).parent / "scripts/flights")


@pytest.mark.parametrize("source", ["/abs/code", "s3://bucket/code"])
def test_an_absolute_source_is_taken_as_it_is(source: str) -> None:
    assert rendered(source=source).source == source


def test_channels_may_be_texts_mappings_or_channels() -> None:
    manifest = Channel(name="c", uri="s3://bucket/c", kind=ChannelKind.MANIFEST)
    given = {"a": "s3://bucket/a", "b": {"uri": "s3://bucket/b", "distribution": "ShardedByS3Key"}, "c": manifest}
    spec = rendered(channels=given)
    assert [channel.name for channel in spec.channels] == ["a", "b", "c"]
    assert spec.channels[1].distribution == "ShardedByS3Key"
    assert spec.channels[2] is manifest


def test_every_textual_field_of_the_specification_can_be_a_template() -> None:
    fields = set(DistributedTrainingOperator.template_fields)
    assert set(TrainingSpec.__dataclass_fields__) - fields == {"spot"}


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        ("two words", "must be the name or the ARN"),
        ({"name": "team", "attempts": 11}, "attempts=11 must be an integer from 1 to 10"),
        ({"name": "team", "weight": 1}, "weight"),
    ],
)
def test_a_queue_that_cannot_be_is_refused_when_the_dag_is_parsed(queue: Any, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        DistributedTrainingOperator(**GOOD, job_queue=queue)


def test_a_queue_may_be_a_template() -> None:
    operator = DistributedTrainingOperator(**GOOD, job_queue="{{ params.queue }}")
    assert operator.engine == "batch"


def test_default_arguments_of_the_dag_reach_the_connection_and_the_waiting() -> None:
    defaults = {"aws_conn_id": "team", "region_name": "eu-west-1", "poll_interval": 5, "instance_count": 3}
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1), default_args=defaults):
        operator = DistributedTrainingOperator(**GOOD)
    assert (operator.connection.aws_conn_id, operator.connection.region_name) == ("team", "eu-west-1")
    assert (operator.poll_interval, operator.instance_count) == (5, 3)


def test_a_dag_with_the_operator_is_parsed_without_heavy_libraries() -> None:
    program = f"import sys, airflow_dlaws.operators.training\nprint([name for name in {HEAVY} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip().splitlines()[-1] == "[]"
