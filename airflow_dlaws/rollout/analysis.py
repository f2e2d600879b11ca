"""Is green worse than blue? Always-valid evidence on errors, latency, predictions, business: looks cost nothing.

The tests are in `harm` (errors, latency) and `margin` (predictions, business). Each kind gets a share of the bet that
is fixed before green serves, so `alpha` bounds the chance that a healthy green is ever rolled back, over all kinds and
all looks. A minute is read again while it fills; its split is taken as known then (tested by simulation), and a tenth
of the bet on errors is on it.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_dlaws.rollout.business import BusinessEvidence
from airflow_dlaws.rollout.harm import CellCounts, Meter, PatientMeter, error_alternatives, log_sum
from airflow_dlaws.rollout.latency import LatencyReference, cells_of, latency_alternatives
from airflow_dlaws.rollout.plan import RolloutPlan, Strategy
from airflow_dlaws.rollout.predictions import PredictionEvidence
from airflow_dlaws.rollout.shifts import ShareBounds, moved
from airflow_dlaws.rollout.stakes import Stakes, stakes_of


class Verdict(enum.StrEnum):
    """What the requests so far say about green."""

    NO_HARM_SEEN = "no_harm_seen"
    HARM = "harm"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Minute:
    """What CloudWatch counted in one minute for both fleets. `start` is in epoch seconds."""

    start: int
    green_requests: int = 0
    green_errors: int = 0
    blue_requests: int = 0
    blue_errors: int = 0
    #: Answers with a known latency, and how many of them took longer than each threshold of the latency reference.
    green_timed: int = 0
    green_over: tuple[int, ...] = ()
    blue_timed: int = 0
    blue_over: tuple[int, ...] = ()
    #: Median and 95 % quantile of ModelLatency in microseconds, for people; None where nothing was timed.
    green_p50: float | None = None
    green_p95: float | None = None
    blue_p50: float | None = None
    blue_p95: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The counts since the update began (blue's with the past minutes compared), and the verdict on them."""

    verdict: Verdict = Verdict.INCONCLUSIVE
    reason: str = "nothing was measured yet"
    green_requests: int = 0
    green_errors: int = 0
    blue_requests: int = 0
    blue_errors: int = 0
    #: Requests of green that stand beside requests of blue; only these are compared.
    compared_requests: int = 0
    #: Natural logarithm of the evidence for harm, of all kinds together; at ln(1/alpha) green is rolled back.
    log_evidence: float = 0.0
    #: The parts, each averaged over its alternatives; 0 is no evidence either way, None is not judged.
    log_error_evidence: float = 0.0
    log_latency_evidence: float | None = None
    predictions: PredictionEvidence | None = None
    business: BusinessEvidence | None = None
    #: Of the compared answers with a known latency: how many, and how many were slower than blue's 95 % quantile.
    green_timed: int = 0
    green_slow: int = 0
    blue_timed: int = 0
    blue_slow: int = 0
    #: Where their latencies are furthest apart to green's disadvantage, in words; empty where they are nowhere.
    slower: str = ""


def judge(
    plan: RolloutPlan,
    minutes: Iterable[Minute],
    *,
    began: float,
    latency: LatencyReference | None = None,
    predictions: PredictionEvidence | None = None,
    business: BusinessEvidence | None = None,
    stakes: Stakes | None = None,
    shares: Sequence[float] | None = None,
    now: float | None = None,
) -> Evidence:
    """Return the verdict on all minutes read so far.

    :param minutes: in any order; those before `began` are blue's past, used only where all traffic moves at once and
        nothing of blue's is left to compare with. That comparison assumes that rates have not changed since.
    :param began: when the update began, epoch seconds.
    :param latency: what blue's answers took before; None does not judge latency.
    :param predictions: None where predictions are not judged; whether they are is settled before green serves.
    :param business: likewise.
    :param stakes: how the bet was laid before green served; None lays it without knowing the traffic.
    :param shares: green's share of the traffic step by step; None for the plan's.
    :param now: epoch seconds. A minute counts as over when a later one has requests, or a minute after its end.
    """
    stakes = stakes or stakes_of(plan, None)
    ordered = sorted(minutes, key=lambda minute: minute.start)
    during = [minute for minute in ordered if minute.start + 60 > began]
    past = [minute for minute in ordered if minute.start + 60 <= began and minute.blue_requests > 0]
    pairs = _with_past(during, past) if plan.strategy is Strategy.ALL_AT_ONCE else during
    bounds = _bounds(plan, during, plan.shares if shares is None else shares)
    compared = [_warm(plan, minute, pairs) for minute in _compared(plan, pairs, bounds)]
    others = _parts({}, predictions, business)
    judgement = Judgement(plan, latency, stakes, others)
    newest = max((minute.start for minute in during if minute.green_requests or minute.blue_requests), default=0)
    for minute in compared:
        is_over = minute.start < newest or (now is not None and minute.start + 120 <= now)
        judgement.add(minute, bounds.get(minute.start), is_over=is_over)
    totals = _totals(pairs)
    evidence = Evidence(
        compared_requests=sum(minute.green_requests for minute in compared),
        log_evidence=combined({**judgement.parts, **others}, stakes),
        log_error_evidence=judgement.parts["errors"],
        log_latency_evidence=judgement.parts.get("latency"),
        predictions=predictions,
        business=business,
        green_requests=totals.green_requests,
        green_errors=totals.green_errors,
        blue_requests=totals.blue_requests,
        blue_errors=totals.blue_errors,
    )
    if latency is not None:
        evidence = _with_slow(evidence, latency, compared)
    verdict, reason = _verdict(plan, evidence, latency)
    return dataclasses.replace(evidence, verdict=verdict, reason=reason)


def _bounds(plan: RolloutPlan, minutes: Sequence[Minute], shares: Sequence[float]) -> dict[int, ShareBounds]:
    if plan.strategy is Strategy.ALL_AT_ONCE:
        return {}  # what it is compared with is another time anyhow
    return moved(((minute.start, minute.green_requests, minute.blue_requests) for minute in minutes), shares)


def _compared(plan: RolloutPlan, minutes: Sequence[Minute], bounds: dict[int, ShareBounds]) -> list[Minute]:
    """Return the minutes that count; `bounds` loses those of minutes that count only for want of others.

    A minute in which all traffic may have been green's proves nothing, whatever its burst. Where without it there
    would be no verdict, as of a bake within one minute, it is compared by its own split all the same.
    """
    found = [minute for minute in minutes if is_comparable(minute)]
    useless = {start for start, each in bounds.items() if each.proves_nothing}
    kept = [minute for minute in found if minute.start not in useless]
    if sum(minute.green_requests for minute in kept) >= plan.min_requests:
        return kept
    for start in useless:
        del bounds[start]
    return found


def _warm(plan: RolloutPlan, minute: Minute, minutes: Sequence[Minute]) -> Minute:
    """Return the minute without latencies where green was still warming up in it."""
    first = next(each.start for each in minutes if each.green_requests > 0)
    is_warm = minute.start >= first + plan.latency_warm_up_seconds
    return minute if is_warm else dataclasses.replace(minute, green_timed=0, green_over=(), blue_timed=0, blue_over=())


class Judgement:
    """Evidence that grows minute by minute: what `judge` folds over, and simulations call directly.

    :param others: further kinds of harm that are judged, and have their shares of the bet.
    """

    def __init__(
        self, plan: RolloutPlan, latency: LatencyReference | None, stakes: Stakes, others: Iterable[str] = ()
    ) -> None:
        self._stakes = stakes
        kinds = dict.fromkeys(("errors", *(("latency",) if latency else ()), *others))
        bar = -math.log(plan.alpha * stakes.shares(kinds)["errors"])
        self._errors = PatientMeter(error_alternatives(stakes.first_harm), bar)
        self._latency = Meter(latency_alternatives(latency, plan.smallest_slowdown)) if latency else None
        self._cells = len(latency.thresholds) if latency else 0

    def add(self, minute: Minute, bounds: ShareBounds | None = None, *, is_over: bool = True) -> None:
        """Add one comparable minute; with bounds where traffic moved in it. One that is not over must be the last."""
        errors = (minute.green_errors,), (minute.blue_errors,)
        counts = CellCounts(*errors, minute.green_requests, minute.blue_requests, bounds)
        self._errors.add(counts, is_over=is_over)
        if self._latency is None or not (minute.green_timed and minute.blue_timed):
            return
        if not len(minute.green_over) == len(minute.blue_over) == self._cells:
            return
        green, blue = cells_of(minute.green_timed, minute.green_over), cells_of(minute.blue_timed, minute.blue_over)
        if green is not None and blue is not None:
            self._latency.add(CellCounts(green, blue, minute.green_timed, minute.blue_timed, bounds))

    @property
    def parts(self) -> dict[str, float]:
        """The logarithm of the evidence of each kind that is judged."""
        latency = {"latency": self._latency.log_evidence} if self._latency else {}
        return {"errors": self._errors.log_evidence, **latency}

    @property
    def log_evidence(self) -> float:
        """Of errors and latency together."""
        return combined(self.parts, self._stakes)


def combined(parts: Mapping[str, float], stakes: Stakes) -> float:
    """Return the evidence of all kinds together, by their shares of the bet."""
    shares = stakes.shares(parts)
    return log_sum(math.log(shares[kind]) + log for kind, log in parts.items())


def _parts(
    judged: Mapping[str, float], predictions: PredictionEvidence | None, business: BusinessEvidence | None
) -> dict[str, float]:
    more = {"predictions": predictions, "business": business}
    return {**judged, **{kind: each.log_evidence for kind, each in more.items() if each is not None}}


def _with_past(during: Sequence[Minute], past: Sequence[Minute]) -> list[Minute]:
    """Set each minute that only green served beside one of blue's minutes of before, newest first, each used once."""
    unused = list(past)
    pairs = []
    for minute in during:
        if minute.blue_requests == 0 and minute.green_requests > 0 and unused:
            other = unused.pop()
            pairs.append(
                Minute(
                    start=minute.start,
                    green_requests=minute.green_requests,
                    green_errors=minute.green_errors,
                    blue_requests=other.blue_requests,
                    blue_errors=other.blue_errors,
                    green_timed=minute.green_timed,
                    green_over=minute.green_over,
                    blue_timed=other.blue_timed,
                    blue_over=other.blue_over,
                )
            )
        else:
            pairs.append(minute)
    return pairs


def is_comparable(minute: Minute) -> bool:
    """Both fleets served, and neither has more errors than requests (a metric that has not all arrived yet)."""
    served = minute.green_requests > 0 and minute.blue_requests > 0
    return served and minute.green_errors <= minute.green_requests and minute.blue_errors <= minute.blue_requests


def _totals(minutes: Sequence[Minute]) -> Minute:
    return Minute(
        start=0,
        green_requests=sum(minute.green_requests for minute in minutes),
        green_errors=sum(minute.green_errors for minute in minutes),
        blue_requests=sum(minute.blue_requests for minute in minutes),
        blue_errors=sum(minute.blue_errors for minute in minutes),
    )


def _with_slow(evidence: Evidence, latency: LatencyReference, minutes: Sequence[Minute]) -> Evidence:
    at = _slow_index(latency)
    timed = [minute for minute in minutes if minute.green_over and minute.blue_over]
    return dataclasses.replace(
        evidence,
        green_timed=sum(minute.green_timed for minute in timed),
        green_slow=sum(minute.green_over[at] for minute in timed),
        blue_timed=sum(minute.blue_timed for minute in timed),
        blue_slow=sum(minute.blue_over[at] for minute in timed),
        slower=_slower(latency, timed),
    )


def _slower(latency: LatencyReference, minutes: Sequence[Minute]) -> str:
    """Say at which threshold green's answers are slower by most, in standard deviations of the difference.

    The 95 % quantile need not be it: where the typical answer is slower, the slowest may be as fast as ever.
    """
    greens, blues = sum(minute.green_timed for minute in minutes), sum(minute.blue_timed for minute in minutes)
    rows = []
    for index, threshold in enumerate(latency.thresholds if greens and blues else ()):
        green, blue = (sum(over[index] for over in overs) for overs in _overs(minutes))
        share = (green + blue) / (greens + blues)
        if 0 < share < 1:
            rows.append(((green / greens - blue / blues) / math.sqrt(share * (1 - share)), threshold, green, blue))
    apart, threshold, green, blue = max(rows, default=(0.0, 0.0, 0, 0))
    if apart <= 0:
        return ""
    return f"{green} of {greens} answers of green and {blue} of {blues} of blue took over {threshold / 1000:.4g} ms"


def _overs(minutes: Sequence[Minute]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    return [minute.green_over for minute in minutes], [minute.blue_over for minute in minutes]


def _slow_index(latency: LatencyReference) -> int:
    """Return the threshold that people are told of: the 95 % quantile, or the nearest there is."""
    return min(range(len(latency.levels)), key=lambda index: abs(latency.levels[index] - 0.95))


def _verdict(plan: RolloutPlan, evidence: Evidence, latency: LatencyReference | None) -> tuple[Verdict, str]:
    counts = (
        f"green failed {evidence.green_errors} of {evidence.green_requests} requests, "
        f"blue {evidence.blue_errors} of {evidence.blue_requests}"
    )
    if latency and evidence.green_timed:
        bar = latency.thresholds[_slow_index(latency)] / 1000
        counts += (
            f"; slower than {bar:.4g} ms were {evidence.green_slow} of {evidence.green_timed} answers of green, "
            f"{evidence.blue_slow} of {evidence.blue_timed} of blue"
        )
    for more in (evidence.predictions, evidence.business):
        counts += f"; {more.sentence}" if more and more.sentence else ""
    if evidence.log_evidence >= -math.log(plan.alpha):
        odds = math.exp(min(evidence.log_evidence, 30.0))
        enough = f"where {1 / plan.alpha:.3g} to 1 is enough (alpha={plan.alpha:g}, over all looks)"
        return Verdict.HARM, f"{counts}: evidence {odds:.3g} to 1 that {_harm(plan, evidence)}, {enough}"
    requests = evidence.compared_requests
    if requests < plan.min_requests:
        return Verdict.INCONCLUSIVE, (
            f"{counts}; {requests} requests on green stand beside requests on blue, and a verdict needs "
            f"min_requests={plan.min_requests}"
        )
    if evidence.business and not evidence.business.is_enough:
        least = plan.business_metric.min_units if plan.business_metric else 0
        return (
            Verdict.INCONCLUSIVE,
            f"{counts}; {evidence.business.compared_units} units of green stand beside units of blue, and a verdict "
            f"needs {least} units of green (business_metric, min_units)",
        )
    return Verdict.NO_HARM_SEEN, f"{counts}: no sign of harm among {requests} compared requests"


def _harm(plan: RolloutPlan, evidence: Evidence) -> str:
    parts = {"errors": evidence.log_error_evidence}
    if evidence.log_latency_evidence is not None:
        parts["latency"] = evidence.log_latency_evidence
    parts = _parts(parts, evidence.predictions, evidence.business)
    worst = max(parts, key=lambda kind: parts[kind])
    loss = plan.business_metric.smallest_loss if plan.business_metric else 0.0
    return {
        "errors": f"green's error rate is at least {plan.smallest_harm:g} times blue's",
        "latency": (
            f"green is slower than blue by a factor of {plan.smallest_slowdown:g} or more, most plainly where "
            f"{evidence.slower or 'nothing tells it alone'}"
        ),
        "predictions": (
            f"green's predictions are others than blue's by more than {plan.largest_prediction_shift:.0%} "
            "(largest_prediction_shift), or hardly ever any but one"
        ),
        "business": f"green is worse for the business than blue by more than {loss:.0%}",
    }[worst]
