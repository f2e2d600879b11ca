"""Not one request is lost while models are promoted and taken back: `make bench-rollout-requests` runs twenty of each.

Requests come at 50 a second, and nobody sends one a second time: a lost one counts. What the model itself answers with
a status of 500 is no loss; it is why the model is taken back.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.sdk.exceptions import AirflowFailException
from botocore.config import Config
from rollout_bench import RolloutBench, invoke
from running_task import aws_environment

from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.state import Step

IMAGES = Path(__file__).parent / "images"
ROLLOUTS = int(os.environ.get("DLAWS_ROLLOUTS", "1"))
RESULTS = os.environ.get("DLAWS_ROLLOUT_RESULTS")
PER_SECOND, THREADS = 50, 5


class Stream:
    """Requests at a steady rate, each sent once; counts who answered."""

    def __init__(self, aws: LocalAws, endpoint_name: str) -> None:
        self.answers: Counter[str] = Counter()
        self._aws, self._endpoint, self._stop = aws, endpoint_name, threading.Event()
        self._turn, self._lock, self._began = itertools.count(), threading.Lock(), time.monotonic()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(THREADS)]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        runtime = boto3.client(
            "sagemaker-runtime",
            endpoint_url=self._aws.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )
        while True:
            with self._lock:
                due = self._began + next(self._turn) / PER_SECOND
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            try:
                who = invoke(runtime, self._endpoint)
            except Exception as error:  # a connection that broke is a lost request, whatever it is called
                who = f"lost: {type(error).__name__}"
            with self._lock:
                self.answers[who] += 1


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("requests-aws"), time_scale=1.0, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


#: Two batches of two instances: most of the time both fleets serve.
ROLLING = {"strategy": "rolling", "initial_instance_count": 4, "maximum_batch_percent": 50}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("options", [{}, ROLLING], ids=["canary", "rolling"])
def test_promotions_and_rollbacks_lose_no_request(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    aws_environment(monkeypatch, aws)
    bench = RolloutBench(aws)
    bench.serve(bench.package("first"))
    began, ends = time.monotonic(), Counter[str]()
    with Stream(aws, bench.name) as stream:
        for number in range(ROLLOUTS):
            result = bench.roll_out(bench.package(f"good-{number}"), **options)
            assert bench.live_config() == result.endpoint_config_name
            ends["promoted"] += 1
            with pytest.raises(AirflowFailException, match="harm"):
                bench.roll_out(bench.package(f"bad-{number}", fail_every=2), **options)
            assert bench.live_config() == result.endpoint_config_name
            ends["rolled back"] += 1
    assert {record.state.step for record in records(bench)} == {Step.PROMOTED, Step.ROLLED_BACK}
    lost = {who: count for who, count in stream.answers.items() if not answered(who)}
    write(options.get("strategy", "canary"), stream.answers, ends, lost, time.monotonic() - began)
    assert lost == {}
    assert stream.answers["ModelError"] > 0
    assert sum(stream.answers.values()) > 20 * PER_SECOND * ROLLOUTS * 0.3


def answered(who: str) -> bool:
    """Tell whether a model answered; ModelError is the bad model's own."""
    return who == "ModelError" or who.partition("-")[0] in ("first", "good", "bad")


def records(bench: RolloutBench) -> list[Any]:
    kept = [key.partition(".")[0] for key in bench.keys()]  # noqa: SIM118 - a method of the bench, not of a dict
    return [bench.record(name) for name in sorted({*kept} - {"lock"})]


def write(strategy: str, answers: Counter[str], ends: Counter[str], lost: dict[str, int], seconds: float) -> None:
    """Leave the figures where the benchmark asked for them."""
    if not RESULTS:
        return
    kinds = Counter[str]()
    for who, count in answers.items():
        kinds[who.partition("-")[0]] += count
    document = {
        "strategy": strategy,
        "date": datetime.now(UTC).date().isoformat(),
        "requests_per_second": PER_SECOND,
        "rollouts": dict(ends),
        "requests": sum(answers.values()),
        "answered_by": dict(kinds),
        "lost": lost,
        "seconds": round(seconds),
    }
    path = Path(RESULTS)
    path = path if strategy == "canary" else path.with_stem(f"{path.stem}-{strategy}")
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
