"""Verdicts in S3, and the trigger that starts DAGs on them."""

import asyncio
import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import Asset, AssetWatcher
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseEventTrigger
from drift_check_bench import ASSET
from running_task import aws_environment

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.hooks.verdicts import RETENTION, VerdictInbox, publish, verdict_folder
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.triggers.drift import DriftVerdictTrigger

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Place:
    """A state location, and what is published and heard there."""

    def __init__(self, s3, bucket):
        self.store, self.root = ObjectStore(s3), S3Uri(bucket, "drift")
        self.folder = verdict_folder(self.root, "flights", "AllTraffic")

    def publish(self, at, **document):
        publish(self.store, self.folder, at, document)

    def inbox(self, reader="me"):
        return VerdictInbox(self.store, self.root, self.folder, reader=reader)

    def trigger(self, **changes):
        arguments = {"endpoint_name": "flights", "state_s3_uri": str(self.root), "poll_interval": 0.05,
                     "aws_conn_id": None}  # fmt: skip
        return DriftVerdictTrigger(**{**arguments, **changes})


@pytest.fixture
def place(local_aws, bucket, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    return Place(local_aws.client("s3"), bucket)


def numbers(inbox, now):
    return [document["number"] for _, document in inbox.untold(now)]


def test_a_verdict_is_untold_until_it_was_told_also_by_another_process(place):
    assert numbers(place.inbox(), NOW) == []
    place.publish(NOW + MINUTE, number=1)
    place.publish(NOW + MINUTE, number=1)
    place.publish(NOW + 2 * MINUTE, number=2)
    inbox = place.inbox()
    told = inbox.untold(NOW + 3 * MINUTE)
    assert [document["number"] for _, document in told] == [1, 2]
    inbox.mark_told([told[0][0]], NOW + 3 * MINUTE)
    for again in (inbox, place.inbox()):
        assert numbers(again, NOW + 4 * MINUTE) == [2]
    assert numbers(place.inbox("a new one"), NOW + 4 * MINUTE) == []


def test_what_another_triggerer_has_told_while_this_one_hung_is_told_once(place):
    hangs, takes_over = place.inbox(), place.inbox()
    assert numbers(hangs, NOW) == numbers(takes_over, NOW) == []
    for minute in (1, 2):
        place.publish(NOW + minute * MINUTE, number=minute)
    first, second = (name for name, _ in takes_over.untold(NOW + 3 * MINUTE))
    takes_over.mark_told([first], NOW + 3 * MINUTE)
    assert numbers(hangs, NOW + 4 * MINUTE) == [2]
    hangs.mark_told([second], NOW + 4 * MINUTE)
    assert numbers(place.inbox(), NOW + 5 * MINUTE) == []


def test_a_verdict_that_was_published_late_is_heard_all_the_same(place):
    inbox = place.inbox()
    assert numbers(inbox, NOW) == []
    place.publish(NOW + 5 * MINUTE, number=2)
    inbox.mark_told([name for name, _ in inbox.untold(NOW + 6 * MINUTE)], NOW + 6 * MINUTE)
    place.publish(NOW + 2 * MINUTE, number=1)
    assert numbers(place.inbox(), NOW + 7 * MINUTE) == [1]


def test_old_verdicts_are_forgotten_and_never_told_again(place):
    inbox = place.inbox()
    inbox.untold(NOW)
    place.publish(NOW + MINUTE, number=1)
    inbox.mark_told([name for name, _ in inbox.untold(NOW + MINUTE)], NOW + MINUTE)
    later = NOW + RETENTION + 2 * MINUTE
    inbox.mark_told([], later)
    assert inbox._position.told == ()
    assert numbers(place.inbox(), later) == []


def test_a_position_that_is_none_is_named(place):
    place.store.write(place.root / "watchers" / "me.json", b"{}")
    with pytest.raises(SpecificationError, match=r"watchers/me.json is of format None"):
        place.inbox().untold(NOW)


def heard(trigger, count, *, meanwhile=lambda number: None, within=20):
    """Let a trigger run, made again from what crosses to the triggerer; return its first events."""
    path, arguments = trigger.serialize()
    assert path == "airflow_dlaws.triggers.drift.DriftVerdictTrigger"
    again = DriftVerdictTrigger(**json.loads(json.dumps(arguments)))

    async def first():
        events = []
        async with aclosing(again.run()) as running:
            meanwhile(0)
            while len(events) < count:
                events.append((await anext(running)).payload)
                meanwhile(len(events))
        return events

    return asyncio.run(asyncio.wait_for(first(), within))


def test_the_trigger_tells_each_verdict_once_and_goes_on_after_a_restart(place):
    place.publish(datetime.now(UTC), number=0)  # before the watcher first looked

    def found(number):
        """Write another verdict once the watcher has started: from then on it is its business."""
        place.publish(datetime.now(UTC) + MINUTE, number=number + 1)

    with pytest.raises(TimeoutError):
        heard(place.trigger(), 1, within=0.5)
    events = heard(place.trigger(), 3, meanwhile=found)
    assert [event["number"] for event in events] == [1, 2, 3]
    assert all(event["id"].endswith(".json") for event in events)
    # The last one may be told again, as its triggerer ended with the telling; nothing is lost.
    rest = heard(place.trigger(), 2)
    assert [event["number"] for event in rest] in ([3, 4], [4, 5])


def test_a_trigger_outlives_a_bucket_that_is_not_there_yet(place, local_aws):
    missing = f"{place.root.bucket}-later"
    trigger = place.trigger(state_s3_uri=f"s3://{missing}/drift")

    async def first():
        async with aclosing(trigger.run()) as running:
            waiting = asyncio.ensure_future(anext(running))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            local_aws.client("s3").create_bucket(Bucket=missing)
            folder = verdict_folder(S3Uri(missing, "drift"), "flights", "AllTraffic")
            while not list(place.store.list(S3Uri(missing, "drift/watchers/"))):
                await asyncio.sleep(0.05)
            publish(place.store, folder, datetime.now(UTC) + MINUTE, {"number": 1})
            return (await waiting).payload

    assert asyncio.run(asyncio.wait_for(first(), 20))["number"] == 1


def test_it_is_a_trigger_for_asset_watchers_and_equal_ones_are_one(place):
    trigger = place.trigger()
    Asset("drift", watchers=[AssetWatcher(name="drift", trigger=trigger)])
    assert BaseEventTrigger.hash(*trigger.serialize()) == BaseEventTrigger.hash(*place.trigger().serialize())
    assert BaseEventTrigger.hash(*trigger.serialize()) != BaseEventTrigger.hash(*place.trigger(watcher="b").serialize())
    with pytest.raises(SpecificationError, match="no S3 location"):
        place.trigger(state_s3_uri="/tmp")


def test_a_check_of_a_data_set_starts_what_watches_for_it_once_for_all_its_tries(drifted_check):
    there = {"endpoint_name": "flights", "state_s3_uri": drifted_check.uri("reports")}
    watcher = DriftVerdictTrigger(**there, poll_interval=0.05, aws_conn_id=None)
    assert watcher._inbox().untold(datetime.now(UTC)) == []  # from now on verdicts are its business

    drifted_check.run(endpoint_name="flights")
    told = drifted_check.context["outlet_events"][ASSET].extra
    drifted_check.ends(AirflowFailException, endpoint_name="flights", on_drift="fail")
    drifted_check.run(endpoint_name="flights", features=["temp"], on_drift="return")  # which finds no drift

    (event,) = heard(watcher, 1)
    assert event == {**told, "id": event["id"]}
    folder = S3Uri.parse(drifted_check.uri("reports/verdicts/flights/AllTraffic/"))
    assert [row.uri.key.rpartition("/")[2] for row in drifted_check.store.list(folder)] == [event["id"]]
