"""When an alarm is in which state: the tables of the CloudWatch user guide, and what must always hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.local import alarms
from airflow_dlaws.local.alarms import AlarmRule, AlarmState, MissingData

#: As in the guide: 0 is fine, X breaches, - is missing.
DATAPOINTS = {"0": 0.0, "X": 1.0, "-": None}


def rule(*, of: int = 3, to_alarm: int = 3, **changes: Any) -> AlarmRule:
    fields: dict[str, Any] = {"period": 60, "threshold": 0.5, "comparison": "GreaterThanThreshold", **changes}
    return AlarmRule(evaluation_periods=of, datapoints_to_alarm=to_alarm, **fields)


def state(picture: str, alarm: AlarmRule, current: AlarmState = AlarmState.OK) -> str:
    return alarms.evaluate(alarm, [DATAPOINTS[one] for one in picture.split()], current).state.value


THREE_OF_THREE = [
    # datapoints      missing              ignore    breaching  notBreaching
    ("0 - X - X", "OK", "OK", "OK", "OK"),
    ("- - - - 0", "OK", "OK", "OK", "OK"),
    ("- - - - -", "INSUFFICIENT_DATA", "retain", "ALARM", "OK"),
    ("0 X X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("- - X - -", "ALARM", "retain", "ALARM", "OK"),
]
TWO_OF_THREE = [
    ("0 - X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("0 0 X 0 X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("0 - X - -", "OK", "OK", "ALARM", "OK"),
    ("- - - - 0", "OK", "OK", "ALARM", "OK"),
    ("- - - X -", "ALARM", "retain", "ALARM", "OK"),
]


@pytest.mark.parametrize("before", list(AlarmState))
@pytest.mark.parametrize(
    ("to_alarm", "row"), [*((3, row) for row in THREE_OF_THREE), *((2, row) for row in TWO_OF_THREE)]
)
def test_missing_data_is_treated_as_the_user_guide_says(
    to_alarm: int, row: tuple[str, ...], before: AlarmState
) -> None:
    picture, *wanted = row
    found = [state(picture, rule(to_alarm=to_alarm, missing=missing), before) for missing in MissingData]
    assert found == [before.value if one == "retain" else one for one in wanted]


def test_a_single_breach_of_three_wanted_does_not_alarm_yet() -> None:
    assert state("- - - - X", rule()) == "OK"
    assert state("- - - - X", rule(to_alarm=1)) == "ALARM"


@pytest.mark.parametrize(
    ("comparison", "breaching", "fine"),
    [
        ("GreaterThanThreshold", 1.1, 1.0),
        ("GreaterThanOrEqualToThreshold", 1.0, 0.9),
        ("LessThanThreshold", 0.9, 1.0),
        ("LessThanOrEqualToThreshold", 1.0, 1.1),
    ],
)
def test_each_comparison_has_its_edge(comparison: str, breaching: float, fine: float) -> None:
    alarm = rule(of=1, to_alarm=1, threshold=1.0, comparison=comparison)
    assert alarms.evaluate(alarm, [breaching], AlarmState.OK).state is AlarmState.ALARM
    assert alarms.evaluate(alarm, [fine], AlarmState.ALARM).state is AlarmState.OK


def test_the_reason_gives_the_datapoints_and_the_threshold() -> None:
    verdict = alarms.evaluate(rule(of=2, to_alarm=2), [0.0, 1.0, 2.0], AlarmState.OK)
    assert verdict.reason == "Threshold Crossed: 2 datapoint(s) [2.0, 1.0] were greater than the threshold (0.5)."


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        (60, 1_000_019.9, 1_000_020 - 60 - 180, 1_000_020 - 60),
        (60, 1_000_020.0, 1_000_020 - 180, 1_000_020),
        (300, 1_000_020.0, 1_000_020 - 900, 1_000_020),
        (10, 1_000_019.9, 1_000_010 - 30, 1_000_010),
        (30, 1_000_025.0, 1_000_020 - 90, 1_000_020),
    ],
)
def test_only_whole_periods_that_have_ended_are_looked_at(period: int, now: float, start: int, end: int) -> None:
    alarm = rule(of=1, to_alarm=1, period=period)
    assert alarms.window(alarm, alarms.last_look(alarm, now)) == (start, end)


rules = st.integers(1, 6).flatmap(
    lambda of: st.builds(rule, of=st.just(of), to_alarm=st.integers(1, of), missing=st.sampled_from(MissingData))
)
values = st.one_of(st.none(), st.sampled_from([0.0, 1.0]))


@given(alarm=rules, data=st.data(), current=st.sampled_from(AlarmState))
def test_a_healthy_period_more_never_raises_the_alarm(
    alarm: AlarmRule, data: st.DataObject, current: AlarmState
) -> None:
    points = data.draw(st.lists(values, min_size=alarm.range_length, max_size=alarm.range_length))
    before = alarms.evaluate(alarm, points, current).state
    after = alarms.evaluate(alarm, [*points[1:], 0.0], before).state
    assert not (before is AlarmState.OK and after is AlarmState.ALARM)


@given(alarm=rules, current=st.sampled_from(AlarmState))
def test_all_good_is_ok_and_all_bad_is_alarm_whatever_was_before(alarm: AlarmRule, current: AlarmState) -> None:
    assert alarms.evaluate(alarm, [0.0] * alarm.range_length, current).state is AlarmState.OK
    assert alarms.evaluate(alarm, [1.0] * alarm.range_length, current).state is AlarmState.ALARM


@given(alarm=rules, data=st.data(), current=st.sampled_from(AlarmState))
def test_an_alarm_needs_breaching_data_unless_silence_counts_as_breaching(
    alarm: AlarmRule, data: st.DataObject, current: AlarmState
) -> None:
    points = data.draw(st.lists(st.sampled_from([None, 0.0]), min_size=alarm.range_length, max_size=alarm.range_length))
    verdict = alarms.evaluate(alarm, points, current)
    if verdict.state is AlarmState.ALARM:
        retained = alarm.missing is MissingData.IGNORE and current is AlarmState.ALARM
        assert alarm.missing is MissingData.BREACHING or retained
