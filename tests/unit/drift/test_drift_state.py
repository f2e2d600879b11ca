import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from captured_traffic import capture_file, captured, healthy_rows, lines
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.drift.capture import count_capture, read_capture
from airflow_dlaws.drift.counts import no_traffic
from airflow_dlaws.drift.events import EventLedger
from airflow_dlaws.drift.progress import (
    CaptureFile,
    begins_an_hour,
    hour_key,
    hour_of,
    of_one_hour,
    parse_progress,
    unread,
    worth_reading,
)
from airflow_dlaws.drift.readiness import ready_to_look
from airflow_dlaws.drift.sequence import advance
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import (
    Alarm,
    DriftState,
    absorb,
    after_look,
    cooling_down,
    new_state,
    parse_state,
    with_remarks,
)
from airflow_dlaws.drift.verdict import assess
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def file(hour, name="a.jsonl", size=100, written=NOW):
    return CaptureFile(f"2026/03/01/{hour:02d}/{name}", size, written)


def one_row(profile):
    return count_capture(profile, capture_file(*healthy_rows(1, seed=1)))


def test_a_file_is_read_once_however_often_it_is_listed(profile):
    state = new_state(profile, None)
    assert unread(state.progress, [file(11), file(11), file(12)]) == [file(11), file(12)]
    state = absorb(state, [file(11)], one_row(profile), now=NOW)
    assert unread(state.progress, [file(11), file(12)]) == [file(12)]


def test_a_late_file_is_read_and_a_closed_hour_is_forgotten(profile):
    state = absorb(new_state(profile, None), [file(3), file(11)], one_row(profile), now=NOW, late_hours=6)
    assert state.open_from == "2026/03/01/05"
    assert state.seen == (file(11).key,)
    assert unread(state.progress, [file(3), file(4), file(6, "late.jsonl"), file(11)]) == [file(6, "late.jsonl")]


def test_hours_before_the_model_are_never_read(profile):
    state = new_state(profile, datetime(2026, 3, 1, 10, 59, tzinfo=UTC))
    assert unread(state.progress, [file(9), file(10)]) == [file(10)]


def test_a_key_of_the_future_does_not_close_the_present(profile):
    future = CaptureFile("2099/01/01/00/x.jsonl", 1, NOW)
    state = absorb(new_state(profile, None), [future], one_row(profile), now=NOW)
    assert unread(state.progress, [file(12), future]) == [file(12)]


def test_keys_that_are_no_capture_are_passed_over(profile):
    strange = [CaptureFile(key, 1, NOW) for key in ("", "x.jsonl", "2026/13/01/00/a", "2026/03/01/12", "manifest")]
    assert unread(new_state(profile, None).progress, strange) == []
    assert hour_of("2026/03/01/12/a") == datetime(2026, 3, 1, 12, tzinfo=UTC)


@settings(max_examples=40)
@given(arrivals=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=25), batch=st.integers(1, 4))
def test_every_file_within_the_late_window_is_counted_exactly_once(profile, arrivals, batch):
    state, present, row = new_state(profile, None), set(), one_row(profile)
    for hour, name in arrivals:
        present.add(file(hour, str(name)))
        files = unread(state.progress, present)[:batch]
        if files:
            counts = no_traffic(profile)
            for _ in files:
                counts += row
            state = absorb(state, files, counts, now=NOW, late_hours=24)
    while files := unread(state.progress, present):
        state = absorb(state, files[:1], row, now=NOW, late_hours=24)
    assert state.total.rows == state.files == len(present)


def test_a_look_starts_a_new_window_and_keeps_the_total(profile):
    counts = count_capture(profile, capture_file(*healthy_rows(1000, seed=2)))
    state = absorb(new_state(profile, None), [file(11)], counts, now=NOW)
    assert ready_to_look(state.window, DriftSettings())
    evidence, verdict = advance(profile, state.evidence, state.window, DriftSettings())
    after = after_look(state, verdict, evidence, now=NOW, nothing=no_traffic(profile))
    assert (after.looks, after.window.rows, after.total.rows) == (1, 0, 1000)
    assert after.history[0].effects.keys() == {"delay", "temp", "carrier", "prediction"}
    assert not ready_to_look(after.window, DriftSettings(min_rows=1))


def test_unreadable_traffic_does_not_wait_forever_for_rows(profile):
    state = absorb(new_state(profile, None), [file(11)], count_capture(profile, b"junk\n" * 1000), now=NOW)
    assert ready_to_look(state.window, DriftSettings())
    evidence, verdict = advance(profile, state.evidence, state.window, DriftSettings())
    after = after_look(state, verdict, evidence, now=NOW, nothing=no_traffic(profile))
    assert (after.looks, after.window.rows) == (0, 0)
    assert "bad_json 1000" in after.doubt


def test_a_few_lost_rows_do_not_stand_in_for_readable_ones(profile):
    data = capture_file(*healthy_rows(950, seed=2)) + b"junk\n" * 60
    assert not ready_to_look(count_capture(profile, data), DriftSettings())


def test_a_worker_is_woken_when_the_rows_are_probably_there(profile):
    counts = count_capture(profile, capture_file(*healthy_rows(100, seed=2)))
    state = absorb(new_state(profile, None), [file(11, size=10_000)], counts, now=NOW)
    assert worth_reading(None, [file(12)], min_rows=1000, now=NOW)
    assert not worth_reading(state.progress, [], min_rows=1, now=NOW)
    assert not worth_reading(state.progress, [file(12, size=60_000)], min_rows=1000, now=NOW)
    assert worth_reading(state.progress, [file(12, size=89_900)], min_rows=1000, now=NOW)
    assert worth_reading(
        state.progress, [file(12, size=1, written=NOW - timedelta(minutes=16))], min_rows=1000, now=NOW
    )


def test_files_of_the_model_before_do_not_make_the_next_ones_look_empty(profile):
    since = datetime(2026, 3, 1, 11, tzinfo=UTC)
    before = count_capture(profile, capture_file(*healthy_rows(1000, seed=2)), since=since)
    state = absorb(new_state(profile, since), [file(11, size=90_000)], before, now=NOW)
    assert (state.files, state.total.rows) == (1, 0)
    assert worth_reading(state.progress, [file(12, size=100)], min_rows=1000, now=NOW)


def test_drift_just_told_is_not_told_again(profile):
    alarm = Alarm(owner="task", at=NOW, summary={})
    state = DriftState(window=no_traffic(profile), total=no_traffic(profile), alarm=alarm)
    assert cooling_down(state, NOW + timedelta(minutes=59), timedelta(hours=1))
    assert not cooling_down(state, NOW + timedelta(minutes=60), timedelta(hours=1))
    assert not cooling_down(new_state(profile, None), NOW, timedelta(hours=1))


def test_a_state_of_another_version_is_refused_with_the_way_out(profile):
    document = to_json(new_state(profile, NOW))
    assert parse_state(json.dumps(document).encode(), "s3://b/k") == new_state(profile, NOW)
    old = json.dumps({**document, "format": "dlaws-drift-state/1"}).encode()
    with pytest.raises(SpecificationError, match=r"s3://b/k is of format .*state/1.*move the file away"):
        parse_state(old, "s3://b/k")
    with pytest.raises(SpecificationError, match="use another place"):
        parse_state(b'{"format": "x"}', "s3://b/k")
    with pytest.raises(SpecificationError, match="holds no drift state"):
        parse_state(b"[]", "s3://b/k")


def test_the_state_survives_json(profile):
    counts = count_capture(profile, capture_file(*healthy_rows(1000, seed=2, delay=9)))
    state = absorb(new_state(profile, NOW), [CaptureFile("2026/03/01/12/a", 5, NOW)], counts, now=NOW)
    evidence, verdict = advance(profile, state.evidence, state.window, DriftSettings())
    alarm = Alarm(owner="task", at=NOW, summary={"features": [{"name": "delay"}]})
    state = after_look(state, verdict, evidence, now=NOW, nothing=no_traffic(profile), alarm=alarm)
    assert from_json(DriftState, json.loads(json.dumps(to_json(state)))) == state


def test_a_trigger_reads_of_the_state_how_far_it_has_got(profile):
    data = capture_file(*healthy_rows(100, seed=2)) + b"junk\n"
    state = absorb(new_state(profile, NOW), [file(12, size=len(data))], count_capture(profile, data), now=NOW)
    text = json.dumps(to_json(state)).encode()
    assert parse_progress(text, "there") == parse_state(text, "there").progress == state.progress
    assert (state.progress.rows, state.progress.waiting, state.progress.bytes) == (101, 100, len(data))
    for wrong in (b"", b"[]", b"{}", b'{"format": "dlaws-drift-state/1"}'):
        with pytest.raises(SpecificationError, match="there "):
            parse_progress(wrong, "there")


def test_files_are_read_hour_by_hour_and_late_ones_begin_none(profile):
    files = [file(10, "late"), file(11, "a"), file(11, "b"), file(12)]
    assert of_one_hour(files[1:]) == files[1:3]
    state = absorb(new_state(profile, None), [file(11, "c")], one_row(profile), now=NOW)
    assert [begins_an_hour(state.progress, files[place:]) for place in range(5)] == [False, False, False, True, False]
    assert not begins_an_hour(new_state(profile, None).progress, files)


def test_ledgers_of_closed_hours_are_forgotten(profile):
    ledgers = {"2026/03/01/03": "a", "2026/03/01/12": "b"}
    state = absorb(new_state(profile, None), [file(12)], one_row(profile), now=NOW, ledgers=ledgers)
    assert state.ledgers == {"2026/03/01/12": "b"}
    assert absorb(state, [file(11)], one_row(profile), now=NOW).ledgers == state.ledgers


def test_a_verdict_says_what_was_lost_and_that_it_rests_on_a_sample(profile):
    data = capture_file(*healthy_rows(1200, seed=2), batch=1) + b"junk\n" * 7
    for share, told in ((1, ""), (0.5, r" Counted is a sample of (4[4-9]|5[0-6])% of the requests, as asked for\.")):
        counts = read_capture(profile, [data], sample=share)
        verdict = assess(profile, counts, DriftSettings(min_rows=100))
        lost = counts.faults["bad_json"]
        wanted = rf" {lost} captured rows or requests could not be used \(bad_json {lost}\)\.{told}"
        assert re.fullmatch(re.escape(verdict.reason) + wanted, with_remarks(verdict, counts).reason)
    clean = count_capture(profile, capture_file(*healthy_rows(1200, seed=2)))
    assert with_remarks(verdict, clean) == verdict


REQUESTS = [captured("1,2,A", "0.5", time=f"2026-03-01T{8 + number % 5:02d}:59:00Z") for number in range(10)]
DELIVERIES = st.lists(
    st.tuples(st.integers(8, 12), st.lists(st.integers(0, 9), max_size=5), st.integers(0, 30)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(deliveries=DELIVERIES, at_once=st.integers(1, 4))
def test_each_request_counts_once_in_whatever_files_and_however_often_it_comes(profile, deliveries, at_once):
    state, files, kept = new_state(profile, None), {}, {}
    for number, (hour, requests, cut) in enumerate(deliveries):
        data = lines(*(REQUESTS[request] for request in requests))
        files[file(hour, str(number))] = data[: len(data) - cut] if cut else data
        if number % at_once == 0:
            state = read_on(profile, state, files, kept)
    state = read_on(profile, state, files, kept)
    delivered = {line for data in files.values() for line in data.split(b"\n")}
    assert state.total.rows == sum(lines(request).strip() in delivered for request in REQUESTS)
    assert state.files == len(files)


def read_on(profile, state, files, kept):
    """Read what is unread, with ledgers that are kept in a dictionary by their names."""
    while found := unread(state.progress, files):
        batch, hour = of_one_hour(found), hour_key(found[0].key)
        ledger = EventLedger(lambda hour, ledgers=state.ledgers: kept.get(ledgers.get(hour), b""))
        counts = no_traffic(profile)
        for each in batch:
            counts += read_capture(profile, [files[each]], hour=hour, open_from=state.open_from, ledger=ledger)
        names = {hour: f"{hour} {len(kept)}" for hour in ledger.changed()}
        kept.update({names[hour]: ids for hour, ids in ledger.changed().items()})
        state = absorb(state, batch, counts, now=NOW, late_hours=24, ledgers={**state.ledgers, **names})
    return state
