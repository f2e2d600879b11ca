"""Evidence that others have gathered: Model Monitor's constraint violations, and a metric in CloudWatch.

Each is a threshold on one batch, chosen by whoever set it up: it has no false-alarm rate, so it never enters the tests
of this package. A finding is told beside their verdict; where its source `decides`, a finding makes the verdict drift
by itself, and silence of the source makes a verdict of "no drift" inconclusive.
"""

from __future__ import annotations

import enum
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_dlaws.drift.verdict import DriftOutcome, DriftVerdict
from airflow_dlaws.errors import SpecificationError

#: A report of hundreds of violated columns names the first ones; the file itself has them all.
MAX_DETAILS = 50
_MAX_TEXT = 300


class OutsideOutcome(enum.StrEnum):
    """What a source says."""

    CROSSED = "crossed"
    WITHIN = "within"
    #: The source has nothing about this time: no execution, no datapoint.
    SILENT = "silent"


@dataclass(frozen=True, kw_only=True)
class OutsideFinding:
    """What one source says about the data of this check."""

    source: str
    outcome: OutsideOutcome
    #: Whether it alone makes the verdict drift.
    decides: bool
    sentence: str
    #: Such as "dep_delay: baseline_drift_check, ...".
    details: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Violations:
    """Model Monitor's constraint violations: one file, or all executions under a prefix that ends with "/".

    A folder with `statistics.json` and without `constraint_violations.json` is an execution that found none.
    """

    s3_uri: str
    decides: bool = False

    def __post_init__(self) -> None:
        if not self.s3_uri.startswith("s3://"):
            raise SpecificationError(f"evidence: s3_uri={self.s3_uri!r} is no S3 location: write s3://bucket/key")


@dataclass(frozen=True, kw_only=True)
class MetricRule:
    """A metric in CloudWatch, and from where on its values count against the data.

    :param above: crossed by periods whose value is greater; `below` by those whose value is less. One of the two.
    :param period_s: seconds of each value.
    :param periods: so many values must be across.
    """

    namespace: str
    metric: str
    dimensions: Mapping[str, str] = field(default_factory=dict)
    statistic: str = "Average"
    period_s: int = 3600
    above: float | None = None
    below: float | None = None
    periods: int = 1
    decides: bool = False

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise SpecificationError(f"evidence: metric {self.metric!r} needs one of above and below, not both")
        if self.period_s < 1 or self.period_s % 60 or self.periods < 1:
            raise SpecificationError(
                f"evidence: metric {self.metric!r}: period_s={self.period_s} must be a multiple of 60, and "
                f"periods={self.periods} at least 1"
            )

    def across(self, values: Sequence[tuple[datetime, float]]) -> tuple[float, str, list[tuple[datetime, float]]]:
        """Return the threshold, its side, and which values are beyond it."""
        if self.above is not None:
            return self.above, "above", [(at, value) for at, value in values if value > self.above]
        below = -math.inf if self.below is None else self.below
        return below, "below", [(at, value) for at, value in values if value < below]

    @property
    def name(self) -> str:
        """The metric with its dimensions, for a person."""
        dimensions = ", ".join(f"{key}={value}" for key, value in sorted(self.dimensions.items()))
        return f"{self.namespace}/{self.metric}" + (f" ({dimensions})" if dimensions else "")


Evidence = Violations | MetricRule
_KINDS: dict[str, type[Violations] | type[MetricRule]] = {"model_monitor": Violations, "cloudwatch": MetricRule}


def parse_evidence(document: Mapping[str, Any]) -> Evidence:
    """Read {"kind": "model_monitor" | "cloudwatch", ...} with the fields of `Violations` or `MetricRule`.

    :raises SpecificationError: it is neither.
    """
    fields = {key: value for key, value in document.items() if key != "kind"}
    kind = document.get("kind")
    if kind not in _KINDS:
        raise SpecificationError(f"evidence: kind={kind!r} is none of {sorted(_KINDS)}")
    for name in ("above", "below"):
        if isinstance(fields.get(name), str):  # from a template
            fields[name] = _number(name, fields[name])
    try:
        return _KINDS[kind](**fields)
    except TypeError as error:
        raise SpecificationError(f"evidence of kind {kind!r}: {error}") from error


def read_violations(text: bytes | str, where: str) -> tuple[str, ...]:
    """Return what a `constraint_violations.json` tells, a text for each violation.

    :raises SpecificationError: it is no such document.
    """
    try:
        rows = json.loads(text)["violations"]
        return tuple(_violation(row) for row in rows)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SpecificationError(
            f"{where} is no constraint_violations.json of Model Monitor ({error!r}): it holds no list `violations`"
        ) from error


def _violation(row: Mapping[str, Any]) -> str:
    # Data quality names a feature, model quality a metric, bias a facet.
    subject = row.get("feature_name") or row.get("metric_name") or row.get("facet") or "(all)"
    return f"{subject}: {row.get('constraint_check_type', 'violated')}, {row.get('description', '')}"[:_MAX_TEXT]


def judge_violations(rule: Violations, executions: int, files: Sequence[tuple[str, tuple[str, ...]]]) -> OutsideFinding:
    """Say what the executions of a monitor found.

    :param executions: how many there were.
    :param files: (location, violations) of those that found something.
    """
    found = [text for _, violations in files for text in violations]
    if not executions:
        outcome, sentence = OutsideOutcome.SILENT, f"Model Monitor has left no execution at {rule.s3_uri}"
    elif found:
        kinds = Counter(text.partition(": ")[2].partition(",")[0] for text in found)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        outcome, sentence = OutsideOutcome.CROSSED, f"Model Monitor tells {len(found)} violations: {told}"
    else:
        outcome, sentence = OutsideOutcome.WITHIN, f"Model Monitor tells no violation in {executions} executions"
    return OutsideFinding(
        source=f"Model Monitor, {rule.s3_uri}",
        outcome=outcome,
        decides=rule.decides,
        sentence=sentence,
        details=tuple(found[:MAX_DETAILS]),
    )


def judge_metric(rule: MetricRule, values: Sequence[tuple[datetime, float]]) -> OutsideFinding:
    """Say whether enough values are across the threshold."""
    bound, word, across = rule.across(values)
    if not values:
        outcome, sentence = OutsideOutcome.SILENT, f"{rule.name} has no value in this time"
    else:
        crossed = len(across) >= rule.periods
        outcome = OutsideOutcome.CROSSED if crossed else OutsideOutcome.WITHIN
        sentence = (
            f"{len(across)} of {len(values)} values of {rule.name} ({rule.statistic}, {rule.period_s} s) are {word} "
            f"{bound:g}; {rule.periods} would be enough"
        )
    return OutsideFinding(
        source=f"CloudWatch, {rule.name}",
        outcome=outcome,
        decides=rule.decides,
        sentence=sentence,
        details=tuple(f"{at:%Y-%m-%d %H:%M}: {value:g}" for at, value in across[:MAX_DETAILS]),
    )


def _number(name: str, value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        raise SpecificationError(f"evidence: {name}={value!r} must be a number") from None


def conclude(verdict: DriftVerdict, findings: Sequence[OutsideFinding], *, has_data: bool) -> tuple[DriftOutcome, str]:
    """Return the outcome of a check and its sentence, where others' evidence takes part in it.

    :param has_data: whether `verdict` is on data at all; without any the sources decide alone.
    """
    deciding = [each for each in findings if each.decides or not has_data]
    crossed = [each for each in deciding if each.outcome is OutsideOutcome.CROSSED]
    silent = [each for each in deciding if each.outcome is OutsideOutcome.SILENT]
    own = [verdict.reason.rstrip(".")] if has_data else []
    if verdict.is_drift or crossed:
        return DriftOutcome.DRIFT, ". ".join([*own, *(each.sentence for each in crossed)])
    if silent:
        return DriftOutcome.INCONCLUSIVE, ". ".join([*own, *(each.sentence for each in silent)])
    outcome = verdict.outcome if has_data else DriftOutcome.NO_DRIFT
    told = [each.sentence for each in findings if each.outcome is OutsideOutcome.CROSSED or not has_data]
    return outcome, ". ".join([*own, *told])
