"""What captured responses say of the outputs of a profile."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift.answers import output_columns, read_answers
from airflow_dlaws.drift.body import Fault, Unreadable, documents
from airflow_dlaws.drift.cells import CategoricalProfile, NumericProfile
from airflow_dlaws.drift.profile import CONFIDENCE, PREDICTED_LABEL, PREDICTION, probability_name


def number(name):
    return NumericProfile(name=name, edges=(0.5,), counts=(1, 1), missing=0, low=0.0, high=1.0)


def answering(profile, classes, *names):
    """Return the profile with these outputs; the label is the only one that is no number."""
    label = CategoricalProfile(name=PREDICTED_LABEL, counts=dict.fromkeys(classes or (), 1), missing=0)
    outputs = tuple(label if name == PREDICTED_LABEL else number(name) for name in names)
    return dataclasses.replace(profile, classes=classes, outputs=outputs)


@pytest.fixture(scope="session")
def three(profile):
    names = (*map(probability_name, "abc"), CONFIDENCE, PREDICTED_LABEL)
    return answering(profile, tuple("abc"), *names)


@pytest.fixture(scope="session")
def two(profile):
    return answering(profile, ("on time", "late"), PREDICTION, CONFIDENCE, PREDICTED_LABEL)


def csv(text):
    return {"observedContentType": "text/csv", "encoding": "CSV", "data": text}


def js(value, content_type="application/json"):
    text = value if isinstance(value, str) else json.dumps(value)
    return {"observedContentType": content_type, "encoding": "JSON", "data": text}


PROBABILITIES = [[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]]


@pytest.mark.parametrize(
    "side",
    [
        csv("0.1,0.7,0.2\n0.5,0.25,0.25\n"),
        js(PROBABILITIES),
        js({"predictions": PROBABILITIES}),
        js({"probabilities": PROBABILITIES}),
        js({"predictions": [{"probabilities": each} for each in PROBABILITIES]}),
        js({"predictions": ["b", "a"], "probabilities": PROBABILITIES}),
        js({"outputs": [{"scores": each, "label": label} for each, label in zip(PROBABILITIES, "ba", strict=True)]}),
        js("\n".join(json.dumps({"probabilities": each}) for each in PROBABILITIES), "application/jsonlines"),
    ],
)
@pytest.mark.parametrize("rows", [2, None])
def test_probabilities_are_found_however_they_are_wrapped(three, side, rows):
    columns = output_columns(three, read_answers(side, rows))
    assert [columns[probability_name(name)] for name in "abc"] == [[0.1, 0.5], [0.7, 0.25], [0.2, 0.25]]
    assert columns[CONFIDENCE] == [0.7, 0.5]
    assert columns[PREDICTED_LABEL] == ["b", "a"]


@pytest.mark.parametrize(
    ("side", "rows"),
    [
        (js([0.1, 0.7, 0.2]), 1),
        (js({"predictions": [0.1, 0.7, 0.2]}), 3),
        (csv("0.1,0.7,0.2"), 3),
        (csv("0.1\n0.7\n0.2"), 3),
    ],
)
def test_numbers_answer_as_many_rows_as_were_asked(three, side, rows):
    answers = read_answers(side, rows)
    assert len(answers) == rows
    if rows == 1:
        assert output_columns(three, answers)[PREDICTED_LABEL] == ["b"]


def test_one_answer_with_a_label_beside_its_probabilities_is_one(three):
    side = js({"predicted_label": "c", "probabilities": [0.1, 0.7, 0.2]})
    for rows in (1, None):
        columns = output_columns(three, read_answers(side, rows))
        assert (columns[PREDICTED_LABEL], columns[CONFIDENCE]) == (["c"], [0.7])


@pytest.mark.parametrize(
    "side", [csv("0.9\n0.4"), js({"predictions": [{"score": 0.9}, {"score": 0.4}]}), js([0.9, 0.4])]
)
def test_one_number_is_the_probability_of_the_second_of_two_classes(two, side):
    columns = output_columns(two, read_answers(side, 2))
    assert columns[PREDICTION] == ([0.9, 0.4] if side["encoding"] == "JSON" else ["0.9", "0.4"])
    assert columns[CONFIDENCE] == [0.9, 0.6]
    assert columns[PREDICTED_LABEL] == ["late", "on time"]


@pytest.mark.parametrize("body", ["b,0.7,0.1,0.7,0.2\n", "1,0.1,0.7,0.2\n"])
def test_the_last_numbers_of_a_longer_answer_are_the_probabilities_where_they_add_up_to_one(three, body):
    columns = output_columns(three, read_answers(csv(body), 1))
    assert (columns[PREDICTED_LABEL], columns[CONFIDENCE]) == (["b"], [0.7])
    with pytest.raises(Unreadable):
        output_columns(three, read_answers(csv("7,0.1,0.7,0.9\n"), 1))


def test_a_field_of_the_profile_s_own_name_comes_first(profile):
    own = answering(profile, None, PREDICTION, "anomaly")
    answers = read_answers(js([{"prediction": 3, "score": 9, "anomaly": 0.5}, {"prediction": 4}]), 2)
    assert output_columns(own, answers) == {PREDICTION: [3, 4], "anomaly": [0.5, None]}


def test_a_missing_value_is_missing_and_not_another_schema(two):
    assert output_columns(two, read_answers(js([None, 0.25]), 2)) == {
        PREDICTION: [None, 0.25], CONFIDENCE: [None, 0.75], PREDICTED_LABEL: [None, "on time"],
    }  # fmt: skip


@pytest.mark.parametrize("answer", [{"verdict": 1}, [], [[0.2]], {"score": {"value": 1}}, {}])
def test_another_schema_is_told_and_not_taken_for_missing_values(two, answer):
    with pytest.raises(Unreadable) as told:
        output_columns(two, [0.5, answer])
    assert told.value.fault is Fault.UNKNOWN_JSON_LAYOUT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["predictions", "scores", "label", "score", "probabilities", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(value=JSON, rows=st.none() | st.integers(0, 4))
def test_no_answer_whatever_crashes_the_reader(three, two, value, rows):
    for profile in (three, two):
        try:
            answers = read_answers(js(value), rows)
            columns = output_columns(profile, answers)
        except Unreadable:
            continue
        assert {len(column) for column in columns.values()} == {len(answers)}
        for column in columns.values():
            assert not any(isinstance(each, (list, dict)) for each in column)


def test_a_line_of_json_lines_ends_where_json_says_and_not_where_unicode_does():
    rows = [{"text": "two\u2028lines"}, {"text": "and\x85more"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    assert list(documents("jsonlines", text)) == rows
