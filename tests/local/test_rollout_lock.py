"""One rollout per endpoint: who may take its lock, in S3."""

from __future__ import annotations

import dataclasses

import pytest

from airflow_dlaws.errors import EndpointBusy
from airflow_dlaws.launchers.rollout_store import RolloutStore
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.report import RolloutRecord
from airflow_dlaws.rollout.state import RolloutState, Step
from airflow_dlaws.storage import ObjectStore


class Holders:
    """Makes stores of several tasks that want the same endpoint."""

    def __init__(self, aws: LocalAws, bucket: str) -> None:
        self._s3 = ObjectStore(aws.client("s3"))
        self._order = RolloutOrder(
            endpoint_name="flights",
            model_package_arn="arn:aws:sagemaker:us-east-1:123456789012:model-package/flights/1",
            role_arn="arn:aws:iam::123456789012:role/dlaws-sagemaker",
            instance_type="ml.m5.large",
            state_s3_uri=f"s3://{bucket}/state",
            timeout_seconds=7200,
        )

    def store(self, config_name: str, owner: str) -> RolloutStore:
        names = RolloutNames(model_name="m", config_name=config_name, owner=owner, digest="d")
        return RolloutStore(self._s3, self._order, names)

    def remember(self, store: RolloutStore, step: Step, *, abandoned: bool = False) -> None:
        state = RolloutState(
            step=step,
            abandoned=abandoned,
            endpoint_name="flights",
            requested_config="c",
            model_name="m",
            model_package_arn="arn",
            variant_name="AllTraffic",
            started_at=0,
            deadline=100,
        )
        store.save(RolloutRecord(plan=RolloutPlan(), state=state))


@pytest.fixture
def holders(local_aws: LocalAws, bucket: str) -> Holders:
    return Holders(local_aws, bucket)


def test_a_held_lock_is_refused_with_its_holder_and_the_way_out(holders: Holders) -> None:
    assert holders.store("first", "dag/run-1/rollout").acquire(now=0, expires_at=1000) is None
    with pytest.raises(EndpointBusy, match="dag/run-1/rollout") as refusal:
        holders.store("second", "dag/run-2/rollout").acquire(now=10, expires_at=1000)
    assert "1970-01-01T00:16:40" in str(refusal.value)
    assert "rollouts/flights/lock.json" in str(refusal.value)


def test_the_same_task_takes_its_lock_up_again(holders: Holders) -> None:
    store = holders.store("first", "dag/run-1/rollout")
    assert store.acquire(now=0, expires_at=1000) is None
    assert store.acquire(now=10, expires_at=1000) is None


def test_the_next_life_of_a_task_learns_what_its_former_one_left(holders: Holders) -> None:
    holders.store("first", "dag/run-1/rollout").acquire(now=0, expires_at=1000)
    former = holders.store("renewed", "dag/run-1/rollout").acquire(now=10, expires_at=1000)
    assert former is not None
    assert former.config_name == "first"


@pytest.mark.parametrize(("step", "abandoned"), [(Step.PROMOTED, False), (Step.ROLLING_BACK, True)])
def test_the_lock_of_a_rollout_that_is_over_is_free(holders: Holders, step: Step, abandoned: bool) -> None:
    first = holders.store("first", "dag/run-1/rollout")
    first.acquire(now=0, expires_at=1000)
    holders.remember(first, Step.SHIFTING)
    second = holders.store("second", "dag/run-2/rollout")
    with pytest.raises(EndpointBusy):
        second.acquire(now=10, expires_at=1000)
    holders.remember(first, step, abandoned=abandoned)
    assert second.acquire(now=10, expires_at=1000) is not None


def test_an_expired_lock_is_free(holders: Holders) -> None:
    holders.store("first", "dag/run-1/rollout").acquire(now=0, expires_at=1000)
    assert holders.store("second", "dag/run-2/rollout").acquire(now=1001, expires_at=2000) is not None


def test_only_the_holder_gives_a_lock_back(holders: Holders) -> None:
    first, second = holders.store("first", "dag/run-1/rollout"), holders.store("second", "dag/run-2/rollout")
    first.acquire(now=0, expires_at=1000)
    second.release()
    with pytest.raises(EndpointBusy):
        second.acquire(now=10, expires_at=1000)
    first.release()
    first.release()
    assert second.acquire(now=10, expires_at=1000) is None


def test_what_is_remembered_is_read_back(holders: Holders) -> None:
    store = holders.store("first", "dag/run-1/rollout")
    assert store.load() is None
    holders.remember(store, Step.SHIFTING)
    record = store.load()
    assert record is not None
    assert record.state.step is Step.SHIFTING
    assert dataclasses.asdict(record.plan) == dataclasses.asdict(RolloutPlan())
