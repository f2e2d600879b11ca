"""Round trips of everything that crosses a process boundary in a job's life."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.hooks.aws import AwsConnection
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission, TrainingResult
from airflow_dlaws.jobs.spec import CapacityPreference, Channel, InstanceGroup, MlflowTracking, TrainingSpec
from airflow_dlaws.jobs.transform import TransformResult
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.protocol import LogCursor
from airflow_dlaws.triggers.job import JobEvent, JobEventKind

text = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(text, numbers, max_size=3)
moments = st.none() | st.datetimes(timezones=st.just(UTC))
references = st.builds(JobReference, engine=text, name=text, arn=text, region=text)
statuses = st.builds(
    JobStatus,
    phase=st.sampled_from(JobPhase),
    reason=text,
    detail=text,
    created_at=moments,
    started_at=moments,
    ended_at=moments,
    billable_seconds=st.integers(0),
    training_seconds=st.integers(0),
    artifact_uri=st.none() | text,
    output_uri=st.none() | text,
    metrics=metrics,
)
crossing = st.one_of(
    references,
    statuses,
    st.builds(Submission, reference=references, status=statuses, adopted=st.booleans(), attempt=st.integers(1, 9)),
    st.builds(
        TrainingResult,
        job_name=text,
        job_arn=text,
        artifact_uri=text,
        output_uri=text,
        metrics=metrics,
        billable_seconds=st.integers(0),
        instance_count=st.integers(1, 9),
        instance_type=text,
    ),
    st.builds(
        TransformResult,
        job_name=text,
        job_arn=text,
        model_name=text,
        output_s3_uri=text,
        objects=st.integers(0),
        records=st.none() | st.integers(0),
        counts=st.dictionaries(text, st.integers(0), max_size=3),
        billable_seconds=st.integers(0),
        instance_count=st.integers(1, 9),
        instance_type=text,
    ),
    st.builds(JobEvent, kind=st.sampled_from(JobEventKind), status=st.none() | statuses, message=text),
    st.builds(LogCursor, since_ms=st.integers(0), seen=st.lists(text, max_size=3).map(tuple)),
    st.builds(AwsConnection, aws_conn_id=st.none() | text, region_name=st.none() | text, verify=st.booleans() | text),
)


@given(value=crossing)
def test_what_crosses_a_process_boundary_comes_back_the_same(value: Any) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


def test_a_specification_comes_back_the_same() -> None:
    spec = TrainingSpec(
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
        source="s3://bucket/code",
        entry_point="train.py",
        output_s3_uri="s3://bucket/models",
        role_arn="arn:aws:iam::123456789012:role/dlaws",
        instance_type="ml.m5.large",
        channels=(Channel(name="train", uri="s3://bucket/data"),),
        hyperparameters={"epochs": "3"},
    )
    assert from_json(TrainingSpec, json.loads(json.dumps(to_json(spec)))) == spec


def test_a_specification_of_several_types_of_machines_comes_back_the_same() -> None:
    common: dict[str, Any] = {
        "framework": "pytorch",
        "framework_version": "2.13",
        "source": "s3://bucket/code",
        "entry_point": "train.py",
        "output_s3_uri": "s3://bucket/models",
        "role_arn": "arn:aws:iam::123456789012:role/dlaws",
        "output_compression": "NONE",
        "mlflow": MlflowTracking(arn="arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app", run="r"),
        "extra_request": {"ExperimentConfig": {"ExperimentName": "x"}},
    }
    groups = TrainingSpec(
        **common,
        instance_groups=(InstanceGroup(name="a", instance_type="ml.g5.xlarge", instance_count=2),),
        channels=(Channel(name="train", uri="s3://bucket/data", instance_groups=("a",)),),
    )
    choices = TrainingSpec(**common, capacity_preferences=(CapacityPreference(instance_type="ml.g5.xlarge"),))
    for spec in (groups, choices):
        assert from_json(TrainingSpec, json.loads(json.dumps(to_json(spec)))) == spec


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Everything:
    colour: Colour
    when: datetime
    nested: tuple[JobReference, ...] = ()
    by_name: dict[str, JobReference] | None = None
    anything: Any = None
    share: float = 0.0


def test_nested_dataclasses_enums_and_datetimes_come_back_the_same() -> None:
    reference = JobReference(engine="sagemaker", name="n", arn="a", region="r")
    value = Everything(
        colour=Colour.RED,
        when=datetime(2026, 11, 23, tzinfo=UTC),
        nested=(reference,),
        by_name={"x": reference},
        anything=[1, {"a": None}],
        share=1,
    )
    assert from_json(Everything, json.loads(json.dumps(to_json(value)))) == value


def test_an_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(SpecificationError, match=r"LogCursor has no field \['since'\]"):
        from_json(LogCursor, {"since": 1})


def test_a_missing_key_is_refused_by_name() -> None:
    with pytest.raises(SpecificationError, match="engine"):
        from_json(JobReference, {"name": "n"})
