"""Whose checkpoints a task finds: its own, whatever happened to it, and never another's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.checkpoints import with_own_checkpoints
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.spec import TrainingSpec

ROOT = "s3://bucket/checkpoints"
SPEC = TrainingSpec(
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
    source="/code",
    entry_point="train.py",
    output_s3_uri="s3://bucket/models",
    role_arn="arn:aws:iam::123456789012:role/dlaws",
    instance_type="ml.g5.xlarge",
    checkpoint_s3_uri=ROOT,
)
IDENTITY = TaskIdentity(dag_id="retrain", run_id="backfill__2013-02-01", task_id="train")
NAMES = st.text(max_size=30)
IDENTITIES = st.builds(
    TaskIdentity,
    dag_id=NAMES,
    run_id=NAMES,
    task_id=NAMES,
    map_index=st.integers(-1, 5),
    clear_marker=st.integers(0, 5),
    deployment=NAMES,
)


def folder(spec: TrainingSpec = SPEC, identity: TaskIdentity = IDENTITY, code: str = "0123") -> str:
    found = with_own_checkpoints(spec, identity, code).checkpoint_s3_uri
    assert found is not None
    return found


@given(IDENTITIES, IDENTITIES)
def test_two_tasks_never_share_a_folder(one: TaskIdentity, other: TaskIdentity) -> None:
    assert (folder(identity=one) == folder(identity=other)) is (one == other)


@given(IDENTITIES)
def test_a_folder_lies_directly_under_the_root_and_in_no_other(identity: TaskIdentity) -> None:
    found = folder(identity=identity)
    assert found.startswith(f"{ROOT}/")
    assert "/" not in found.removeprefix(f"{ROOT}/")
    # SageMaker restores a whole prefix: no folder may be the beginning of another's name, and all are as long.
    assert found == folder(dataclasses.replace(SPEC, checkpoint_s3_uri=f"{ROOT}/"), identity)


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_type": "ml.p4d.24xlarge"},
        {"instance_count": 4},
        {"processes_per_instance": 8},
        {"max_runtime_s": 7 * 86400},
        {"spot": True, "max_wait_s": 86400},
        {"tags": {"team": "vision"}},
        {"metrics": ("loss",)},
    ],
)
def test_other_machines_and_limits_go_on_from_the_same_checkpoints(changes: dict[str, Any]) -> None:
    assert folder(dataclasses.replace(SPEC, **changes)) == folder()


@pytest.mark.parametrize(
    "changes",
    [{"hyperparameters": {"width": 8}}, {"arguments": ("--fast",)}, {"environment": {"SEED": "2"}}],
)
def test_another_training_begins_at_zero(changes: dict[str, Any]) -> None:
    assert folder(dataclasses.replace(SPEC, **changes)) != folder()


def test_edited_code_begins_at_zero() -> None:
    assert folder(code="4567") != folder()


def test_a_cleared_task_begins_at_zero_unless_it_is_to_go_on() -> None:
    cleared, goes_on = dataclasses.replace(IDENTITY, clear_marker=1), dataclasses.replace(SPEC, resume_on_clear=True)
    assert folder(identity=cleared) != folder()
    assert folder(goes_on, cleared) == folder(goes_on)
    assert folder(goes_on) != folder()


def test_a_job_without_checkpoints_has_no_folder() -> None:
    spec = dataclasses.replace(SPEC, checkpoint_s3_uri=None)
    assert with_own_checkpoints(spec, IDENTITY, "0123") is spec


def test_going_on_from_nowhere_is_refused() -> None:
    with pytest.raises(SpecificationError, match="resume_on_clear=True without checkpoint_s3_uri"):
        dataclasses.replace(SPEC, checkpoint_s3_uri=None, resume_on_clear=True)
