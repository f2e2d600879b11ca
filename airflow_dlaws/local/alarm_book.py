"""The metric alarms of one account and region: kept, evaluated, and their history told.

Not here: composite alarms, metric math, anomaly detection, actions other than SNS.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.local import alarms
from airflow_dlaws.local.alarms import AlarmRule, AlarmState, MissingData, Verdict
from airflow_dlaws.local.metric_queries import BadQuery
from airflow_dlaws.local.metric_store import MetricName, MetricStore, dimensions_of, is_statistic, statistic

_UNSUPPORTED = (
    "Metrics", "ThresholdMetricId", "EvaluationWindow", "WarmUpConfiguration", "EvaluationCriteria",
    "EvaluationInterval", "ActionConfiguration",
)  # fmt: skip
_REQUIRED = ("AlarmName", "MetricName", "Namespace", "Period", "EvaluationPeriods", "Threshold", "ComparisonOperator")

#: Which list of actions belongs to a state.
_ACTIONS = {
    AlarmState.OK: "OKActions",
    AlarmState.ALARM: "AlarmActions",
    AlarmState.INSUFFICIENT_DATA: "InsufficientDataActions",
}

#: PutMetricAlarm: Period times EvaluationPeriods is at most a day, or a week for periods of an hour or longer.
_DAY = 86_400
_WEEK = 7 * _DAY
#: The short periods an alarm may have.
_ALARM_PERIODS = frozenset({10, 20, 30})

#: The longest subject SNS takes (Publish).
SUBJECT_LENGTH = 100

#: Tells a topic (ARN) of a message (subject, text).
Publish = Callable[[str, str, str], None]


@dataclass
class Alarm:
    """One metric alarm: the request, its state, and when it is to be looked at next (epoch seconds)."""

    arn: str
    request: dict[str, Any]
    rule: AlarmRule
    metric: MetricName
    statistic: str
    updated: datetime
    state: AlarmState = AlarmState.INSUFFICIENT_DATA
    reason: str = "Unchecked: Initial alarm creation"
    reason_data: str | None = None
    state_updated: datetime = field(default_factory=lambda: datetime.now(UTC))
    next_look: float = 0.0

    @property
    def name(self) -> str:
        """AlarmName."""
        return str(self.request["AlarmName"])

    def describe(self) -> dict[str, Any]:
        """The alarm as DescribeAlarms gives it."""
        defaults = {"ActionsEnabled": True, "OKActions": [], "AlarmActions": [], "InsufficientDataActions": []}
        return {
            **defaults,
            "Dimensions": [],
            **{member: value for member, value in self.request.items() if member != "Tags"},
            "AlarmArn": self.arn,
            "AlarmConfigurationUpdatedTimestamp": self.updated,
            "StateValue": self.state.value,
            "StateReason": self.reason,
            "StateReasonData": self.reason_data,
            "StateUpdatedTimestamp": self.state_updated,
            "StateTransitionedTimestamp": self.state_updated,
        }


class AlarmBook:
    """The alarms of one account and region. Safe for many threads."""

    def __init__(self, account: str, region: str, metrics: MetricStore, publish: Publish) -> None:
        self._account, self._region, self._metrics, self._publish = account, region, metrics, publish
        self._alarms: dict[str, Alarm] = {}
        self._history: list[dict[str, Any]] = []
        self._lock = threading.RLock()

    def put(self, request: Mapping[str, Any], now: datetime) -> str:
        """Create an alarm, or replace one (which keeps its state); return its ARN.

        :raises BadQuery: CloudWatch would refuse it, or it is of a kind not supported here.
        """
        for problem in _problems(request):
            raise BadQuery(problem)
        name = request["AlarmName"]
        alarm = Alarm(
            arn=f"arn:aws:cloudwatch:{self._region}:{self._account}:alarm:{name}",
            request=dict(request),
            rule=_rule(request),
            metric=MetricName(
                request["Namespace"], request["MetricName"], dimensions_of(request.get("Dimensions") or ())
            ),
            statistic=request.get("Statistic") or request["ExtendedStatistic"],
            updated=now,
            state_updated=now,
        )
        with self._lock:
            old = self._alarms.get(name)
            if old is not None:
                alarm.state, alarm.reason, alarm.reason_data = old.state, old.reason, old.reason_data
                alarm.state_updated = old.state_updated
            self._alarms[name] = alarm
            verb = "updated" if old else "created"
            self._note(name, "ConfigurationUpdate", f'Alarm "{name}" {verb}', {"type": verb.title()}, now)
        return alarm.arn

    def delete(self, names: Iterable[str]) -> None:
        """Delete alarms; names that do not exist are no error here (nor on AWS, for one that just went)."""
        with self._lock:
            for name in names:
                self._alarms.pop(name, None)

    def enable_actions(self, names: Iterable[str], enabled: bool) -> None:
        """Switch actions on or off."""
        with self._lock:
            for name in names:
                if name in self._alarms:
                    self._alarms[name].request["ActionsEnabled"] = enabled

    def set_state(self, name: str, state: str, reason: str, reason_data: str | None, now: datetime) -> bool:
        """Put an alarm in a state until its next evaluation, a minute off (ten seconds for short periods).

        Returns False where there is no such alarm.
        """
        with self._lock:
            alarm = self._alarms.get(name)
            if alarm is None:
                return False
            alarm.next_look = now.timestamp() + alarm.rule.look_every
            self._move(alarm, AlarmState(state), reason, reason_data, now)
        return True

    def evaluate_due(self, now: datetime) -> None:
        """Evaluate every alarm whose time has come."""
        with self._lock:
            for alarm in self._alarms.values():
                if alarm.next_look <= now.timestamp():
                    look = alarms.last_look(alarm.rule, now.timestamp())
                    alarm.next_look = look + alarm.rule.look_every
                    self._evaluate(alarm, look, now)

    def matching(self, wanted: Callable[[Alarm], bool]) -> list[dict[str, Any]]:
        """Describe the alarms that are wanted, by name."""
        with self._lock:
            return [alarm.describe() for _, alarm in sorted(self._alarms.items()) if wanted(alarm)]

    def history(self, wanted: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return the history items that are wanted, newest first. A deleted alarm keeps its history."""
        with self._lock:
            return [dict(item) for item in reversed(self._history) if wanted(item)]

    def _evaluate(self, alarm: Alarm, look: int, now: datetime) -> None:
        start, end = alarms.window(alarm.rule, look)
        found = {
            moment: statistic(bucket, alarm.statistic)
            for moment, bucket in self._metrics.periods(alarm.metric, start, end, alarm.rule.period)
        }
        datapoints = [found.get(moment) for moment in range(start, end, alarm.rule.period)]
        verdict = alarms.evaluate(alarm.rule, datapoints, alarm.state)
        if verdict.state is not alarm.state:
            data = _reason_data(alarm, verdict, datapoints, start, now)
            self._move(alarm, verdict.state, verdict.reason, data, now)

    def _move(self, alarm: Alarm, state: AlarmState, reason: str, reason_data: str | None, now: datetime) -> None:
        before = {"stateValue": alarm.state.value, "stateReason": alarm.reason}
        changed = state is not alarm.state
        alarm.state, alarm.reason, alarm.reason_data, alarm.state_updated = state, reason, reason_data, now
        if not changed:
            return
        after = {"stateValue": state.value, "stateReason": reason, "stateReasonData": json.loads(reason_data or "{}")}
        summary = f"Alarm updated from {before['stateValue']} to {state.value}"
        self._note(alarm.name, "StateUpdate", summary, {"oldState": before, "newState": after}, now)
        if alarm.request.get("ActionsEnabled", True):
            for action in alarm.request.get(_ACTIONS[state]) or ():
                self._act(alarm, action, before["stateValue"], now)

    def _act(self, alarm: Alarm, action: str, before: str, now: datetime) -> None:
        subject = f'{alarm.state.value}: "{alarm.name}" in {self._region}'[:SUBJECT_LENGTH]
        text = _notification(alarm, before, self._account, self._region)
        # In a thread: a slow subscriber must not hold up the alarms, nor one that asks about them.
        threading.Thread(target=self._perform, args=(alarm.name, action, subject, text, now), daemon=True).start()

    def _perform(self, name: str, action: str, subject: str, text: str, now: datetime) -> None:
        outcome = f"Successfully executed action {action}"
        if ":sns:" in action:
            try:
                self._publish(action, subject, text)
            except Exception as error:
                outcome = f"Failed to execute action {action}. Received error: {error}"
        else:
            outcome = f"Failed to execute action {action}: the local AWS supports SNS topics only"
        with self._lock:
            self._note(name, "Action", outcome, {"actionState": outcome.split()[0]}, now)

    def _note(self, name: str, kind: str, summary: str, data: Mapping[str, Any], now: datetime) -> None:
        self._history.append(
            {
                "AlarmName": name,
                "AlarmType": "MetricAlarm",
                "Timestamp": now,
                "HistoryItemType": kind,
                "HistorySummary": summary,
                "HistoryData": json.dumps({"version": "1.0", **data}),
            }
        )


def _rule(request: Mapping[str, Any]) -> AlarmRule:
    return AlarmRule(
        period=int(request["Period"]),
        evaluation_periods=int(request["EvaluationPeriods"]),
        datapoints_to_alarm=int(request.get("DatapointsToAlarm") or request["EvaluationPeriods"]),
        threshold=float(request["Threshold"]),
        comparison=request["ComparisonOperator"],
        missing=MissingData(request.get("TreatMissingData") or "missing"),
    )


def _problems(request: Mapping[str, Any]) -> Iterator[str]:
    for member in _UNSUPPORTED:
        if request.get(member):
            yield f"The local AWS does not support {member} in PutMetricAlarm: only alarms on one metric."
    if request.get("EvaluateLowSampleCountPercentile", "evaluate") != "evaluate":
        yield "The local AWS does not support EvaluateLowSampleCountPercentile 'ignore'."
    for member in _REQUIRED:
        if request.get(member) is None:
            yield f"The parameter {member} is required."
    if request["ComparisonOperator"] not in alarms.COMPARISONS:
        asked, known = request["ComparisonOperator"], list(alarms.COMPARISONS)
        yield f"The local AWS does not support ComparisonOperator {asked}; it has {known}."
    yield from _statistic_problems(request)
    yield from _period_problems(int(request["Period"]), int(request["EvaluationPeriods"]))
    if not 1 <= int(request.get("DatapointsToAlarm") or 1) <= int(request["EvaluationPeriods"]):
        yield "DatapointsToAlarm must be at least 1 and at most EvaluationPeriods."
    if (request.get("TreatMissingData") or "missing") not in set(MissingData):
        known = [one.value for one in MissingData]
        yield f"TreatMissingData must be one of {known}, not {request['TreatMissingData']!r}."


def _statistic_problems(request: Mapping[str, Any]) -> Iterator[str]:
    given = [request[member] for member in ("Statistic", "ExtendedStatistic") if request.get(member)]
    if len(given) != 1:
        yield "Exactly one of the parameters Statistic and ExtendedStatistic must be given."
    elif not is_statistic(given[0]):
        yield f"The local AWS does not support the statistic {given[0]!r}; it has the plain ones and percentiles (p90)."


def _period_problems(period: int, evaluation_periods: int) -> Iterator[str]:
    if period not in _ALARM_PERIODS and (period < 60 or period % 60):
        yield f"Period must be 10, 20, 30 or a multiple of 60 seconds, not {period}."
    if evaluation_periods < 1:
        yield f"EvaluationPeriods must be at least 1, not {evaluation_periods}."
    limit = _WEEK if period >= 3600 else _DAY
    if period * evaluation_periods > limit:
        span = period * evaluation_periods
        yield f"Metrics cannot be checked across more than {limit} seconds (EvaluationPeriods * Period = {span})."


def _reason_data(alarm: Alarm, verdict: Verdict, datapoints: Iterable[float | None], start: int, now: datetime) -> str:
    """StateReasonData, version 1.0."""
    return json.dumps(
        {
            "version": "1.0",
            "queryDate": now.isoformat(),
            "startDate": datetime.fromtimestamp(start, UTC).isoformat(),
            "statistic": alarm.statistic,
            "period": alarm.rule.period,
            "recentDatapoints": [value for value in datapoints if value is not None],
            "threshold": alarm.rule.threshold,
        }
    )


def _notification(alarm: Alarm, before: str, account: str, region: str) -> str:
    """The text CloudWatch sends to a topic."""
    return json.dumps(
        {
            "AlarmName": alarm.name,
            "AlarmDescription": alarm.request.get("AlarmDescription"),
            "AWSAccountId": account,
            "AlarmArn": alarm.arn,
            "NewStateValue": alarm.state.value,
            "NewStateReason": alarm.reason,
            "StateChangeTime": alarm.state_updated.isoformat(),
            "Region": region,
            "OldStateValue": before,
            "Trigger": {
                "MetricName": alarm.metric.name,
                "Namespace": alarm.metric.namespace,
                "Statistic": alarm.statistic,
                "Dimensions": [{"name": name, "value": value} for name, value in alarm.metric.dimensions],
                "Period": alarm.rule.period,
                "EvaluationPeriods": alarm.rule.evaluation_periods,
                "ComparisonOperator": alarm.rule.comparison,
                "Threshold": alarm.rule.threshold,
            },
        }
    )
