"""A rollout's events, as an SNS topic tells them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from rollout_bench import RolloutBench, RolloutTask
from running_task import aws_environment
from sns_inbox import Inbox

from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.result import RolloutOutcome

IMAGES = Path(__file__).parent / "images"
QUICK = {"wait_seconds": 40, "poll_interval": 0.1, "timeout": 300}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("events-aws"), time_scale=0.02, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with Inbox().opened() as box:
        yield box


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    aws_environment(monkeypatch, aws)
    made = RolloutBench(aws)
    made.serve(made.package("blue"))
    return made


def test_a_topic_is_told_the_beginning_and_the_end_with_the_numbers(bench: RolloutBench, inbox: Inbox) -> None:
    package, topic = bench.package("green"), bench.topic(inbox)
    with pytest.raises(AirflowFailException, match="too few requests"):
        bench.roll_out(package, sns_topic_arn=topic, **QUICK)
    notice = inbox.wait_for(f'"endpoint_name": "{bench.name}"')
    assert notice["Subject"] == f"started: endpoint {bench.name}"
    assert bench.told(inbox) == ["started", "inconclusive"]
    message = json.loads(inbox.messages[-1]["Message"])
    assert (message["model_package_arn"], message["previous_endpoint_config_name"]) == (package, bench.live_config())
    assert message["green_requests"] == 0
    assert message["report_uri"].endswith(".html")
    assert "min_requests" in message["reason"]


def test_a_topic_that_cannot_be_told_changes_no_outcome_and_stands_in_the_result(bench: RolloutBench) -> None:
    nowhere = f"arn:aws:sns:us-east-1:123456789012:{bench.name}-nowhere"
    result = bench.roll_out(bench.package("green"), sns_topic_arn=nowhere, on_no_traffic="promote", **QUICK)
    assert result.outcome is RolloutOutcome.PROMOTED
    assert result.not_told.startswith("promoted was not told: cannot publish")
    with pytest.raises(AirflowFailException, match=r"SNS topic .*inconclusive was not told"):
        bench.roll_out(bench.package("other"), RolloutTask("run-2"), sns_topic_arn=nowhere, **QUICK)


def test_what_a_dead_task_could_not_tell_the_next_rollout_tells(bench: RolloutBench, inbox: Inbox) -> None:
    topic = bench.topic(inbox)
    asked = {**QUICK, "sns_topic_arn": topic, "on_no_traffic": "promote"}
    bench.begin(bench.package("left"), RolloutTask(max_tries=0), **{**asked, "sns_topic_arn": None})
    config = bench.only_config()
    record = json.loads(bench.s3.get_object(Bucket=bench.name, Key=bench.key(f"{config}.json"))["Body"].read())
    record["state"]["topic"] = topic  # as if it had died before it told anything
    bench.s3.put_object(Bucket=bench.name, Key=bench.key(f"{config}.json"), Body=json.dumps(record).encode())
    bench.roll_out(bench.package("green"), RolloutTask(max_tries=1, try_number=2), **asked)
    assert bench.told(inbox) == ["started", "started", "promoted"]
