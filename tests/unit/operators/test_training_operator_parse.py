"""What a DAG file can get wrong is said when it is parsed, if it can be known by then."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.images import OutdatedImageWarning
from airflow_dlaws.jobs.spec import Channel, ChannelKind, InstanceGroup, TrainingSpec
from airflow_dlaws.launchers.batch import ENGINE as BATCH
from airflow_dlaws.launchers.sweep import ENGINE as OPTUNA
from airflow_dlaws.launchers.tuning import ENGINE as TUNER
from airflow_dlaws.operators.sweep import HyperparameterSweepOperator
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
        ({"image": None}, "give the URI of an image, or framework and framework_version"),
        ({"image": None, "framework": "pytorch", "framework_version": "1.4"}, "framework_version='1.4'"),
        ({"instance_type": "ml.p3.2xlarge"}, "has been retired by AWS"),
        ({"image": "public.ecr.aws/deep-learning-containers/pytorch:2.12"}, "in no private registry of ECR"),
        ({"poll_interval": 0}, "poll_interval=0 must be a number of seconds above 0"),
        ({"timeout": timedelta(seconds=-1)}, "would stop each job at once"),
        ({"instance_type": "ml.eia2.medium"}, "Elastic Inference"),
        ({"instance_type": None}, "say which machines"),
        ({"capacity_preferences": ["ml.p5.48xlarge"]}, "instance_type and capacity_preferences given"),
        ({"instance_groups": [{"name": "a"}], "instance_type": None}, "instance_groups item=.*instance_type"),
        ({"instance_groups": "a", "instance_type": None}, "instance_groups='a' is no JSON"),
        (
            {"keep_alive_s": "600", "spot": True, "max_wait_s": 86400, "checkpoint_s3_uri": "s3://b-b/c"},
            "keep_alive_s=600",
        ),
        ({"max_retry_attempts": "many"}, "max_retry_attempts='many' must be an integer"),
        ({"mlflow": {"uri": "x"}}, "mlflow=.*'uri'"),
        ({"model_package": "x"}, "model_package='x' is no JSON"),
        ({"channels": {"train": "fsx://fs-0123456789abcdef0/fsx/x"}}, "give subnets and security_group_ids"),
        ({"extra_request": {"RoleArn": "x"}}, "RoleArn is set by the parameter role_arn"),
        ({"extra_request": {"ExperimentConfg": {}}}, "did you mean ExperimentConfig"),
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


def test_machines_may_be_texts_mappings_and_templates() -> None:
    choices = ["{{ first }}", {"instance_type": "ml.p4d.24xlarge"}]
    spec = rendered({"first": "ml.p5.48xlarge"}, instance_type=None, capacity_preferences=choices)
    assert [choice.instance_type for choice in spec.capacity_preferences] == ["ml.p5.48xlarge", "ml.p4d.24xlarge"]
    groups = [{"name": "a", "instance_type": "ml.g5.xlarge", "instance_count": "{{ hosts }}"}]
    spec = rendered({"hosts": 3}, instance_type=None, instance_groups=groups)
    assert spec.instance_groups == (InstanceGroup(name="a", instance_type="ml.g5.xlarge", instance_count=3),)
    spec = rendered(
        {"all": '[{"name": "a", "instance_type": "ml.g5.xlarge"}]'}, instance_type=None, instance_groups="{{ all }}"
    )
    assert spec.hosts == 1


def test_what_is_wrong_together_is_said_once_the_last_of_it_is_rendered() -> None:
    changes = {"keep_alive_s": "{{ warm }}", "spot": True, "max_wait_s": 86400, "checkpoint_s3_uri": "s3://bucket/c"}
    assert rendered({"warm": 0}, **changes).keep_alive_s == 0
    with pytest.raises(SpecificationError, match="keep_alive_s=600 with spot=True"):
        rendered({"warm": 600}, **changes)


def test_an_image_past_its_end_of_patch_is_warned_of_when_the_dag_is_parsed() -> None:
    with pytest.warns(OutdatedImageWarning, match="pytorch 2.6 until 2026-01-29 only"):
        DistributedTrainingOperator(**{**GOOD, "image": None, "framework": "pytorch", "framework_version": "2.6"})


SWEEP = {**GOOD, "space": {"lr": {"low": 1e-4, "high": 0.1}}, "objective": "loss"}


@pytest.mark.parametrize(
    "wish",
    [
        {"keep_alive_s": 60},
        {"infra_check": True},
        {"mlflow": {"arn": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app"}},
        {"extra_request": {"ExperimentConfig": {"ExperimentName": "x"}}},
        {"instance_type": None, "capacity_preferences": ["ml.m5.large"]},
        {"instance_type": None, "instance_groups": [{"name": "a", "instance_type": "ml.m5.large"}]},
    ],
    ids=lambda wish: list(wish)[-1],
)
def test_a_sweep_takes_it_for_its_trials_or_refuses_it_when_parsed(wish: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError, match=f"{list(wish)[-1]}=.*engine='optuna'"):
        HyperparameterSweepOperator(**{**SWEEP, **wish}, engine="sagemaker")
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1)):
        operator = HyperparameterSweepOperator(**{**SWEEP, **wish}, engine="optuna")
    name = list(wish)[-1]
    training = operator.specification({}).training  # type: ignore[typeddict-item, union-attr]
    assert getattr(training, name) == getattr(rendered(**wish), name)


def test_a_queue_changes_the_engine_of_a_training_job_and_of_nothing_else() -> None:
    assert DistributedTrainingOperator(**GOOD).engine == "sagemaker"
    assert DistributedTrainingOperator(**GOOD, job_queue="team").engine == BATCH
    assert HyperparameterSweepOperator(**SWEEP).engine == OPTUNA
    assert HyperparameterSweepOperator(**SWEEP, engine="sagemaker").engine == TUNER
    with pytest.raises(SpecificationError, match="job_queue='team': the trials of a sweep"):
        HyperparameterSweepOperator(**SWEEP, job_queue="team")


def test_a_relative_source_lies_beside_the_dag_file() -> None:
    assert rendered().source == str(Path(__file__).parent / "scripts/flights")


@pytest.mark.parametrize("source", ["/abs/code", "s3://bucket/code"])
def test_an_absolute_source_is_taken_as_it_is(source: str) -> None:
    assert rendered(source=source).source == source


def test_relative_dependencies_lie_beside_the_dag_file_too() -> None:
    given = ["../scripts/runtime", Path("/abs/layers"), "s3://bucket/losses"]
    here = str(Path(__file__).parent / "../scripts/runtime")
    assert rendered(dependencies=given).dependencies == (here, "/abs/layers", "s3://bucket/losses")


def test_a_dependency_can_be_a_template() -> None:
    assert rendered({"branch": "main"}, dependencies=["s3://git/{{ branch }}/runtime"]).dependencies == (
        "s3://git/main/runtime",
    )


@pytest.mark.parametrize(
    ("dependencies", "words"),
    [
        ("../scripts/runtime", "must be a list of folders"),
        (["/a/runtime", "s3://bucket/runtime/"], "'runtime'.* would be copied twice"),
        (["/a/.."], "must end with the name"),
        (["s3:/bucket/x"], "dependencies: folder"),
    ],
)
def test_wrong_dependencies_are_refused_when_the_dag_is_parsed(dependencies: Any, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        DistributedTrainingOperator(**{**GOOD, "dependencies": dependencies})


def test_channels_may_be_texts_mappings_or_channels() -> None:
    manifest = Channel(name="c", uri="s3://bucket/c", kind=ChannelKind.MANIFEST)
    given = {"a": "s3://bucket/a", "b": {"uri": "s3://bucket/b", "distribution": "ShardedByS3Key"}, "c": manifest}
    spec = rendered(channels=given)
    assert [channel.name for channel in spec.channels] == ["a", "b", "c"]
    assert spec.channels[1].distribution == "ShardedByS3Key"
    assert spec.channels[2] is manifest


def test_every_textual_field_of_the_specification_can_be_a_template() -> None:
    fields = set(DistributedTrainingOperator.template_fields)
    flags = {
        "spot", "resume_on_clear", "efa", "network_isolation", "encrypt_traffic", "infra_check", "remote_debug",
    }  # fmt: skip
    assert set(TrainingSpec.__dataclass_fields__) - fields == flags


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


def test_a_version_that_a_template_names_is_warned_of_in_the_task() -> None:
    asked = {"image": None, "framework": "pytorch", "framework_version": "{{ version }}"}
    with pytest.warns(OutdatedImageWarning, match="pytorch 2.6"):
        rendered({"version": "2.6"}, **asked, aws_conn_id=None, region_name="us-east-1")
