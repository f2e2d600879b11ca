"""Names of jobs: what changes them, what does not, and that every service takes them."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.identity import NAME_LIMIT, TUNING_NAME_LIMIT, TaskIdentity, digest_of

TRAINING_JOB_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")

identities = st.builds(
    TaskIdentity,
    dag_id=st.text(max_size=250),
    run_id=st.text(max_size=250),
    task_id=st.text(max_size=250),
    map_index=st.integers(-1, 1000),
    clear_marker=st.integers(0, 100),
    deployment=st.text(max_size=50),
    run_began=st.text(max_size=32),
)


@given(identity=identities, digest=st.text(max_size=16), limit=st.sampled_from([18, TUNING_NAME_LIMIT, NAME_LIMIT]))
def test_any_task_gets_a_name_the_service_takes(identity: TaskIdentity, digest: str, limit: int) -> None:
    name = identity.name(digest, limit=limit)
    assert TRAINING_JOB_NAME.fullmatch(name)
    assert len(name) <= limit


@given(identity=identities)
def test_the_same_task_always_gets_the_same_name(identity: TaskIdentity) -> None:
    assert dataclasses.replace(identity).name("d") == identity.name("d")


@given(first=identities, second=identities)
def test_different_tasks_get_different_names(first: TaskIdentity, second: TaskIdentity) -> None:
    assert (first == second) == (first.name("d") == second.name("d"))


@pytest.mark.parametrize(
    "change",
    [
        {"clear_marker": 3},
        {"run_id": "other"},
        {"run_began": "2026-11-30T10:00:00+00:00"},
        {"map_index": 0},
        {"deployment": "other"},
        {"task_id": "train_"},
    ],
)
def test_a_clear_another_run_map_index_or_deployment_renews_the_name(change: dict[str, object]) -> None:
    identity = TaskIdentity(dag_id="retrain", run_id="r", task_id="train", clear_marker=1)
    assert dataclasses.replace(identity, **change).name("d") != identity.name("d")


def test_another_specification_attempt_or_role_renews_the_name() -> None:
    identity = TaskIdentity(dag_id="retrain", run_id="r", task_id="train")
    names = {identity.name("a"), identity.name("b"), identity.name("a", attempt=2), identity.name("a", role="config")}
    assert len(names) == 4


def test_names_can_be_read_by_people() -> None:
    name = TaskIdentity(dag_id="Retrain_on drift", run_id="r", task_id="train").name("d")
    assert name.startswith("retrain-on-drift-train-")


def test_a_limit_without_room_for_the_hash_is_refused() -> None:
    with pytest.raises(SpecificationError, match="at most 10 characters"):
        TaskIdentity(dag_id="a", run_id="b", task_id="c").name("d", limit=10)


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2, 3]}) == digest_of({"b": [2, 3], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})
