"""A rollout whose process dies at any API call: the next try ends it, and nothing is left lying about.

The process that dies makes no further call: every client of it is dead from that call on. A call is lost before AWS
has heard of it, or after AWS has done it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from rollout_bench import RolloutBench, RolloutTask
from running_task import aws_environment
from sns_inbox import Inbox

from airflow_dlaws.hooks.aws import AwsClients
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.state import Step

IMAGES = Path(__file__).parent / "images"
#: Waits of a third of a second: the local clock runs fifty times as fast. And another instance type than the one in
#: service: AWS wants the variant deregistered from autoscaling for that.
QUICK = {
    "instance_type": "ml.c5.large",
    "wait_seconds": 40,
    "termination_wait_seconds": 5,
    "poll_interval": 0.3,
    "timeout": 300,
}
SHADOW = {"shadow_seconds": 1, "capture_lag_seconds": 0.2}
ROLLING = {"strategy": "rolling", "maximum_batch_percent": 50, "initial_instance_count": 2}
#: Every how many calls one is lost; `make chaos-rollout` loses each.
STRIDE = int(os.environ.get("DLAWS_KILL_STRIDE", "30"))
PAIRS = int(os.environ.get("DLAWS_KILL_PAIRS", "2"))
#: The whole matrix is some 750 rollouts of a few seconds each.
LIMIT = 1800 if STRIDE >= 30 else 6 * 3600


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """Counts the API calls of one process, and kills it at one of them."""

    def __init__(self, dies_at: int | None, *, heard: bool) -> None:
        self.calls, self.dies_at, self.heard, self.dead = 0, dies_at, heard, False

    def watch(self, client: Any) -> Any:
        """Hook into a boto3 client."""
        client.meta.events.register("before-call", self._before)
        client.meta.events.register("after-call", self._after)
        return client

    def _before(self, **_: Any) -> None:
        if self.dead:
            raise Killed
        self.calls += 1
        if self.calls == self.dies_at and not self.heard:
            self._die()

    def _after(self, **_: Any) -> None:
        if self.calls == self.dies_at and self.heard:
            self._die()

    def _die(self) -> None:
        self.dead = True
        raise Killed


class Tries:
    """The tries of one rollout task, each in a process of its own."""

    def __init__(self, bench: KillBench, monkeypatch: pytest.MonkeyPatch, *, promotes: bool, **options: Any) -> None:
        self._bench, self._monkeypatch, self._promotes, self._options = bench, monkeypatch, promotes, options
        self._task, self._package = RolloutTask(), bench.package("green")
        self.blue = bench.live_config()

    def run(self, life: Mortal) -> bool:
        """Run one try; return whether it came to its end."""
        options = {**QUICK, "sns_topic_arn": self._bench.sns_topic, "sample_requests": self._bench.sample_file}
        options |= {"on_no_traffic": "promote" if self._promotes else "rollback", **self._options}
        operator = self._bench.operator(self._package, **options)
        made: dict[str, Any] = {}

        def client(_: AwsClients, service: str, **__: Any) -> Any:
            if service not in made:
                made[service] = life.watch(self._bench.aws.client(service))
            return made[service]

        with self._monkeypatch.context() as patch:
            patch.setattr(AwsClients, "client", client)
            try:
                operator.execute(self._task.context)
            except Killed:
                return False
            except AirflowFailException:
                assert not self._promotes
        return True

    def end(self) -> None:
        """Run a try that nobody kills, and look at what is left."""
        assert self.run(Mortal(None, heard=False))
        config = self._bench.only_config()
        step, live = self._bench.record(config).state.step, self._bench.live_config()
        assert (step, live) == ((Step.PROMOTED, config) if self._promotes else (Step.INCONCLUSIVE, self.blue))
        assert self._bench.instances() == 3
        told = self._bench.told(self._bench.inbox)
        assert list(dict.fromkeys(told)) == ["started", "promoted" if self._promotes else "inconclusive"]
        self._bench.assert_tidy()
        # A matrix of a thousand rollouts would leave as many endpoints, each of three servers, at work beside the next.
        self._bench.sagemaker.delete_endpoint(EndpointName=self._bench.name)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("kill-aws"), time_scale=0.02, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


class KillBench(RolloutBench):
    """An endpoint with a model in service that scales by itself, a topic, and sample requests."""

    def __init__(self, aws: LocalAws, inbox: Inbox) -> None:
        super().__init__(aws)
        self.inbox, self.sns_topic, self.sample_file = inbox, self.topic(inbox), self.samples("1,2", "3,4")
        self.serve(self.package("blue"))
        self.scale()


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with Inbox().opened() as box:
        yield box


@pytest.fixture
def served(aws: LocalAws, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> KillBench:
    """The first of the endpoints, each of which has one rollout."""
    aws_environment(monkeypatch, aws)
    return KillBench(aws, inbox)


def calls_in_peace(bench: KillBench, monkeypatch: pytest.MonkeyPatch, *, promotes: bool, **options: Any) -> int:
    life = Mortal(None, heard=False)
    assert Tries(bench, monkeypatch, promotes=promotes, **options).run(life)
    return life.calls


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize(
    ("options", "promotes"),
    [({}, True), ({}, False), (SHADOW, True), (SHADOW, False), (ROLLING, False)],
    ids=["promoted", "taken back", "promoted after a shadow", "shadow taken back", "rolled back"],
)
def test_dying_at_any_call_leaves_a_rollout_that_the_next_try_ends(
    served: KillBench, monkeypatch: pytest.MonkeyPatch, promotes: bool, options: dict[str, Any]
) -> None:
    calls = calls_in_peace(served, monkeypatch, promotes=promotes, **options)
    assert calls > 30
    random_ = random.Random(20261128)
    for dies_at in range(1 + random_.randrange(STRIDE), calls + 1, STRIDE):
        bench = KillBench(served.aws, served.inbox)
        tries = Tries(bench, monkeypatch, promotes=promotes, **options)
        # A try of another length may end before the call at which it was to die: then there is nothing to survive.
        tries.run(Mortal(dies_at, heard=random_.random() < 0.5))
        tries.end()


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
def test_dying_twice_is_no_worse(served: KillBench, monkeypatch: pytest.MonkeyPatch) -> None:
    random_ = random.Random(7)
    for pair in range(PAIRS):
        bench = KillBench(served.aws, served.inbox)
        tries = Tries(bench, monkeypatch, promotes=pair % 4 < 2, **(SHADOW if pair % 2 else {}))
        for _ in range(2):
            tries.run(Mortal(random_.randint(1, 50), heard=random_.random() < 0.5))
        tries.end()
