import base64
import dataclasses
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from captured_traffic import capture_file, captured, healthy_rows, lines
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.drift.body import Fault
from airflow_dlaws.drift.build import build_profile, categorical_profile
from airflow_dlaws.drift.capture import CaptureReader, count_capture, read_capture
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import count_values, no_traffic
from airflow_dlaws.drift.embedding import build_embedding
from airflow_dlaws.drift.events import EventLedger
from airflow_dlaws.drift.lines import MAX_LINE_BYTES
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import assess
from airflow_dlaws.jobs.wire import from_json, to_json

ROWS = "10.5,60,A\n3,,B\n"


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_a_request_of_several_rows_counts_each(profile):
    counts = count_capture(profile, lines(captured(ROWS, "0.2\n0.3\n")))
    assert (counts.requests, counts.rows) == (1, 2)
    assert {feature.name: feature.rows for feature in counts.features} == {
        "delay": 2, "temp": 2, "carrier": 2, "prediction": 2,
    }  # fmt: skip
    assert counts.by_name["temp"].missing == 1
    assert counts.by_name["carrier"].cells == (1, 1, 0)
    assert counts.first == counts.last == datetime(2013, 7, 1, 10, tzinfo=UTC)
    assert not any(counts.faults.values())


@pytest.mark.parametrize(
    ("rows", "scores", "encoding", "content_type"),
    [
        (b64(ROWS), b64("0.2\n0.3"), "BASE64", "text/csv; charset=utf-8"),
        ('{"instances": [[10.5, 60, "A"], [3, null, "B"]]}', '{"predictions": [0.2, 0.3]}', "JSON", "application/json"),
        ('[[10.5, 60, "A"], [3, NaN, "B"]]', "[[0.8, 0.2], [0.7, 0.3]]", "JSON", "application/json"),
        ('{"features": [10.5, 60, "A"]}\n{"features": [3, null, "B"]}', '{"score": 0.2}\n{"score": 0.3}', "JSON",
         "application/jsonlines"),
        ('{"instances": [{"carrier": "A", "delay": 10.5, "temp": 60}, {"delay": 3, "carrier": "B"}]}', "[0.2, 0.3]",
         "JSON", "application/json"),
    ],
)  # fmt: skip
def test_every_encoding_gives_the_same_counts(profile, rows, scores, encoding, content_type):
    plain = count_capture(profile, lines(captured(ROWS, "0.2\n0.3\n")))
    assert count_capture(profile, lines(captured(rows, scores, encoding=encoding, content_type=content_type))) == plain


def test_one_row_without_a_wrapper_is_one_row(profile):
    document = captured('[10.5, 60, "A"]', "0.2", encoding="JSON", content_type="application/json")
    assert count_capture(profile, lines(document)).rows == 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{not json", Fault.BAD_JSON),
        (b"\xff\xfe", Fault.BAD_JSON),
        (b"[" * 100_000, Fault.BAD_JSON),
        (b'{"captureData": ' + b"9" * 100_000 + b"}", Fault.BAD_JSON),
        (b'"text"', Fault.NOT_A_CAPTURE),
        (b"{}", Fault.NOT_A_CAPTURE),
        (lines(captured(5, "0.1")), Fault.NOT_A_CAPTURE),
        (lines(captured("a!", "", encoding="BASE64")), Fault.BAD_BASE64),
        (lines(captured("/w==", "", encoding="BASE64")), Fault.BAD_TEXT),
        (lines(captured("eA==", "", encoding="BASE64", content_type="image/png")), Fault.UNKNOWN_CONTENT_TYPE),
        (lines(captured("1,2,A", "0.1", encoding="ROT13")), Fault.UNKNOWN_ENCODING),
        (lines(captured("9" * 200_000, "0.1")), Fault.BAD_CSV),
        (lines(captured("{", "0.1", encoding="JSON")), Fault.BAD_JSON_BODY),
        (lines(captured('"x"', "0.1", encoding="JSON")), Fault.UNKNOWN_JSON_LAYOUT),
        (b"{" + b" " * MAX_LINE_BYTES + b"}", Fault.LINE_TOO_LONG),
        (lines(captured("1,2", "0.1")), Fault.WRONG_COLUMN_COUNT),
        (lines(captured('{"x": 1}', "0.1", encoding="JSON")), Fault.NO_KNOWN_COLUMN),
        (lines(captured('{"delay": 1, "x": 1}', "0.1", encoding="JSON")), Fault.UNKNOWN_COLUMN),
        (lines(captured('[[1, [2], {"A": 1}]]', "0.1", encoding="JSON")), Fault.NESTED_VALUE),
        (lines(captured("delay,temp,carrier\n1,2,A", "0.1")), Fault.HEADER_ROW),
        (lines(captured("1,2,A", '{"verdict": 1}', encoding="JSON")), Fault.UNKNOWN_JSON_LAYOUT),
        (lines(captured("1,2,A", "0.1\n0.2")), Fault.ROW_COUNT_MISMATCH),
        (lines(captured("ten,2,A", "0.1")), Fault.NOT_A_NUMBER),
        (lines(captured("1_0,2,A", "0.1")), Fault.NOT_A_NUMBER),
        (lines(captured("1,2,A", "0.1", time="yesterday")), Fault.NO_TIME),
    ],
)
def test_each_kind_of_damage_is_counted_and_spoils_nothing_else(profile, line, fault):
    before, after = (lines(captured(ROWS, "0.2\n0.3\n")) for _ in range(2))
    counts = count_capture(profile, before + line.strip() + b"\n" + after)
    assert counts.faults[fault.value] >= 1
    assert counts.rows >= 4


def test_a_number_that_is_none_is_missing(profile):
    counts = count_capture(profile, lines(captured("inf,NaN,", "nan")))
    assert [feature.missing for feature in counts.features] == [1, 1, 1, 1]
    assert not any(counts.faults.values())


def test_a_category_that_json_made_a_number_is_the_same_category():
    profile = categorical_profile("hour", ["5", "6", 6.0, 7])
    assert profile.counts == {"5": 1, "6": 2, "7": 1}
    assert count_values(profile, [5, 5.0, "5", 6, None, float("nan")])[0].cells == (3, 1, 0)


def test_values_beyond_the_reference_and_new_categories_are_told_apart(profile):
    by_name = count_capture(profile, lines(captured("1e9,-1e9,ZZ", "0.5"))).by_name
    assert by_name["delay"].above == by_name["temp"].below == by_name["carrier"].unseen == 1
    assert by_name["carrier"].examples == ("ZZ",)


def test_requests_of_the_model_before_are_left_out(profile):
    data = lines(captured(ROWS, "1\n1", time="2013-07-01T09:59:59Z"), captured(ROWS, "1\n1"))
    counts = count_capture(profile, data, since=datetime(2013, 7, 1, 10, tzinfo=UTC))
    assert counts.rows == 2
    assert counts.faults["before_model"] == 1


def test_captured_responses_alone_are_rows_too(profile):
    document = captured(ROWS, "0.2\n0.3\n")
    del document["captureData"]["endpointInput"]
    counts = count_capture(profile, lines(document))
    assert (counts.rows, counts.by_name["prediction"].rows, counts.by_name["delay"].rows) == (2, 2, 0)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_crash_the_reader(profile, data):
    count_capture(profile, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(body=JSON, answer=JSON, encoding=st.sampled_from(["JSON", "CSV", "BASE64"]), metadata=JSON)
def test_no_body_whatever_crashes_the_reader(profile, body, answer, encoding, metadata):
    document = captured(json.dumps(body), json.dumps(answer), encoding=encoding, content_type="application/json")
    raw = {**document, "eventMetadata": metadata}
    counts = count_capture(profile, lines(document, raw, {"captureData": body}, captured(body, answer)))
    assert counts.by_name["delay"].rows <= counts.rows or counts.rows == counts.by_name["prediction"].rows
    assert from_json(type(counts), json.loads(json.dumps(to_json(counts)))) == counts


@given(st.lists(st.sampled_from(["1,2,A", "30,,B", "x,2,QQ", "1,2", ""]), max_size=12), st.integers(0, 12))
def test_counting_two_halves_is_counting_the_whole(profile, bodies, cut):
    documents = [captured(body, "0.5") for body in bodies]
    whole = count_capture(profile, lines(*documents))
    first, second = (count_capture(profile, lines(*part)) for part in (documents[:cut], documents[cut:]))
    assert first + second == second + first == no_traffic(profile) + first + second
    assert to_json(first + second) == to_json(whole)


def test_counts_survive_json(profile):
    counts = count_capture(profile, lines(captured("1e9,2,ZZ", "0.5")))
    assert from_json(type(counts), json.loads(json.dumps(to_json(counts)))) == counts


HOUR = "2013/07/01/10"


def test_what_is_delivered_again_counts_once(profile):
    one, two = captured("1,2,A", "0.5"), captured("3,4,B", "0.5")
    ledger = EventLedger()
    first = read_capture(profile, [lines(one, one, two)], hour=HOUR, ledger=ledger)
    assert (first.rows, first.faults) == (2, {"duplicate": 1})
    again = read_capture(profile, [lines(two, one)], hour="2013/07/01/12", ledger=ledger)
    assert (again.rows, again.requests, again.faults) == (0, 0, {"duplicate": 2})
    kept = EventLedger(lambda hour: ledger.changed()[hour])
    assert read_capture(profile, [lines(two, one)], hour=HOUR, ledger=kept).rows == 0


@pytest.mark.parametrize("hours", [(HOUR, "2013/07/01/11"), ("2013/07/01/08", "2013/07/01/15")])
def test_an_event_delivered_again_under_any_hour_counts_once(profile, hours):
    data, ledger = lines(captured("1,2,A", "0.5", time="2013-07-01T10:59:59Z")), EventLedger()
    assert [read_capture(profile, [data], hour=hour, ledger=ledger).rows for hour in hours] == [1, 0]


def test_a_request_of_the_far_future_is_of_the_hour_of_its_file(profile):
    data, ledger = lines(captured("1,2,A", "0.5", time="2099-07-01T10:00:00Z")), EventLedger()
    read_capture(profile, [data], hour=HOUR, latest="2013/07/01/11", ledger=ledger)
    assert list(ledger.changed()) == [HOUR]


def test_a_truncated_file_and_its_whole_count_each_request_once(profile):
    whole = lines(*(captured(f"{number},2,A", "0.5") for number in range(10)))
    ledger = EventLedger()
    cut = read_capture(profile, [whole[: len(whole) // 2 + 40]], hour=HOUR, ledger=ledger)
    assert cut.faults == {"bad_json": 1}
    rest = read_capture(profile, [whole], hour=HOUR, ledger=ledger)
    assert (cut.rows + rest.rows, rest.faults) == (10, {"duplicate": cut.rows})


def test_a_file_of_lines_without_ids_is_known_by_its_lines(profile):
    document = captured("1,2,A", "0.5")
    del document["eventMetadata"]["eventId"]
    data, ledger = lines(document, document) + b"junk\n" * 3, EventLedger()
    first = read_capture(profile, [data], hour=HOUR, ledger=ledger)
    assert (first.rows, first.faults) == (2, {"bad_json": 3, "no_event_id": 2})
    assert read_capture(profile, [data], hour=HOUR, ledger=ledger).faults == {"duplicate": 5}


def test_a_request_of_a_closed_hour_is_told_and_not_counted(profile):
    data = lines(*(captured("1,2,A", "0.5", time=f"2013-07-01T0{hour}:59:00Z") for hour in (3, 4, 5)))
    counts = read_capture(profile, [data], hour="2013/07/01/10", open_from="2013/07/01/04")
    assert (counts.rows, counts.faults) == (2, {"too_late": 1})


def test_a_sample_is_taken_by_event_and_the_rest_is_told(profile):
    data = lines(*(captured("1,2,A", "0.5") for _ in range(2000)))
    counts = read_capture(profile, [data], sample=0.25)
    assert counts.rows == pytest.approx(500, abs=80)
    assert counts.faults == {"sampled_out": 2000 - counts.rows}
    assert read_capture(profile, [data], sample=0.25) == counts


def test_what_is_counted_does_not_depend_on_how_a_file_is_cut(profile):
    data = capture_file(*healthy_rows(3000, seed=4), batch=1) + b"junk\n\n"
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    assert read_capture(profile, pieces) == count_capture(profile, data)
    assert count_capture(profile, data).rows == 3000


def test_records_can_be_had_one_by_one(profile):
    batches = list(CaptureReader(profile=profile).batches([lines(captured(ROWS, "0.2\n0.3")).strip()]))
    ((record,), faults), *_ = batches
    assert (len(record.rows), record.answers, record.inference_id) == (2, ("0.2", "0.3"), "replay-1")
    assert not faults


BROKEN = st.sampled_from(
    [
        "nan,inf,A", "1e400,-1e400,A", "1,2", "1,2,A,4", ",,", "1,2,\ud800", "9" * 5000 + ",1,A", "\x00,1,A", '"1,2,A',
        "1,2,ZZ", "delay,temp,carrier", "1;2;A", "",
    ]
)  # fmt: skip


@pytest.mark.parametrize("encoding", ["CSV", "JSON"])
def test_a_text_that_cannot_be_written_as_utf8_is_made_writable(profile, encoding):
    body = "1,2,\ud800" if encoding == "CSV" else '[[1, 2, "\\uD800"]]'
    counts = count_capture(profile, lines(captured(body, "0.5", encoding=encoding)))
    assert counts.by_name["carrier"].examples == ("?",)


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(BROKEN | st.text(max_size=30), min_size=1, max_size=6),
    answer=BROKEN | st.text(max_size=10),
    time=st.sampled_from(["", "2013-07-01", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "now"]),
    garbage=st.binary(max_size=60),
    cut=st.integers(0, 400),
)
def test_hostile_traffic_ends_in_counts_that_can_be_kept_and_judged(profile, bodies, answer, time, garbage, cut):
    documents = [captured("\n".join(bodies), answer, time=time), *(captured(body, answer) for body in bodies)]
    counts = read_capture(profile, [garbage, lines(*documents)[:cut], lines(*documents)], hour=HOUR, open_from="2013")
    assert from_json(type(counts), json.loads(json.dumps(to_json(counts)))) == counts
    verdict = assess(profile, counts + no_traffic(profile), DriftSettings(min_rows=1))
    assert verdict.reason.encode()


@pytest.fixture(scope="session")
def embedding():
    """A profile of requests, of their principal components, and of an embedding of four numbers that is answered."""
    generator = np.random.default_rng(5)
    table = {name: generator.normal(size=400) for name in ("a", "b", "c")}
    made = build_profile(table, components=1, created=datetime(2013, 4, 1, tzinfo=UTC))
    vectors = generator.normal(size=(400, 4))
    return dataclasses.replace(made, embeddings=(build_embedding("embedding", vectors, pairs=8),))


@pytest.mark.parametrize(
    "answer", ["[0.5, 1, -1, 0.25]", '{"embedding": [0.5, 1, -1, 0.25]}', '{"predictions": [[0.5, 1, -1, 0.25]]}']
)
def test_embeddings_and_the_principal_components_of_requests_are_counted(embedding, answer):
    record = captured("[[1, 2, 3]]", answer, encoding="JSON", content_type="application/json")
    counts = count_capture(embedding, lines(record))
    wanted = count_columns(embedding, {"a": [1], "b": [2], "c": [3]}, {"embedding": [[0.5, 1, -1, 0.25]]})
    assert (counts.features, counts.embeddings) == (wanted.features, wanted.embeddings)
    assert [each.rows for each in counts.embeddings] == [1]
    assert counts.by_name[embedding.representation[0].name].rows == 1


@pytest.mark.parametrize(
    "answer", ["[1]", "[[1], [2], [3], [4]]", '[1, "x", null, 1e999]', '{"embedding": [[1]]}', "7"]
)
def test_an_embedding_that_is_none_spoils_nothing(embedding, answer):
    record = captured("[[1, 2, 3]]", answer, encoding="JSON", content_type="application/json")
    counts = count_capture(embedding, lines(record))
    assert counts.rows == 1
    assert [each.rows for each in counts.embeddings] == [0]
