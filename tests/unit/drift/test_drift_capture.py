import base64
import json
from datetime import UTC, datetime

import pytest
from captured_traffic import captured, lines
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift.body import Fault
from airflow_dlaws.drift.build import categorical_profile
from airflow_dlaws.drift.capture import count_capture, parse_capture
from airflow_dlaws.drift.counts import count_values, no_traffic
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
        (lines(captured("1,2", "0.1")), Fault.WRONG_COLUMN_COUNT),
        (lines(captured("1,2,A", "0.1\n0.2")), Fault.ROW_COUNT_MISMATCH),
        (lines(captured("ten,2,A", "0.1")), Fault.NOT_A_NUMBER),
        (lines(captured("1_0,2,A", "0.1")), Fault.NOT_A_NUMBER),
        (lines(captured("1,2,A", "0.1", time="yesterday")), Fault.NO_TIME),
    ],
)
def test_each_kind_of_damage_is_counted_and_spoils_nothing_else(profile, line, fault):
    good = lines(captured(ROWS, "0.2\n0.3\n"))
    counts = count_capture(profile, good + line.strip() + b"\n" + good)
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
def test_no_bytes_whatever_crash_the_reader(data):
    list(parse_capture(data))


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
