"""Is green worse than blue? An always-valid sequential test on error counts: looking again costs nothing.

Given that a request failed, was it green's? Where both fleets have the same error rate, green's share of the errors
is its share of the requests, whatever the rate is and however it moves over the day. Under a rate `theta` times as
high, an error is green's with odds `theta` times as large. Each minute with g + b requests and eg + eb errors
therefore multiplies the evidence for `theta` by

    theta**eg / (w * theta + 1 - w)**(eg + eb)      with w = g / (g + b)

whose expectation is at most 1 for a healthy green: exactly for independent draws, and, because the factor is convex
in eg, also for the hypergeometric draw that a minute is once its totals are known (Hoeffding 1963, theorem 4). The
evidence is averaged over a fixed grid of `theta`; by Ville's inequality its chance of ever reaching 1/alpha is at
most alpha, over all looks together. The idea is that of Lindon and Malek, "Anytime-valid inference for multinomial
count data" (NeurIPS 2022), and Lindon, Sanden and Shirikian, "Rapid regression detection in software deployments
through sequential testing" (KDD 2022, arXiv 2205.14762). A minute is read again while it fills; its split is taken
as known then (tested by simulation).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_dlaws.rollout.plan import RolloutPlan, Strategy

#: Harm up to this ratio is on the grid; worse harm is caught by the same points, as fast.
_LARGEST_HARM = 30.0
_GRID_POINTS = 8
#: Each point of the grid weighs 0.7 of the one below: small harm is likelier, and needs the head start more.
_DECAY = 0.7


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
    #: Natural logarithm of the evidence for harm; at ln(1/alpha) green is rolled back.
    log_evidence: float = 0.0


def judge(plan: RolloutPlan, minutes: Iterable[Minute], *, began: float) -> Evidence:
    """Return the verdict on all minutes read so far.

    :param minutes: in any order; those before `began` are blue's past, used only where all traffic moves at once and
        nothing of blue's is left to compare with. That comparison assumes that error rates have not changed since.
    :param began: when the update began, epoch seconds.
    """
    ordered = sorted(minutes, key=lambda minute: minute.start)
    during = [minute for minute in ordered if minute.start + 60 > began]
    past = [minute for minute in ordered if minute.start + 60 <= began and minute.blue_requests > 0]
    pairs = _with_past(during, past) if plan.strategy is Strategy.ALL_AT_ONCE else during
    compared = [minute for minute in pairs if _is_comparable(minute)]
    log_evidence = _log_evidence(plan.smallest_harm, compared)
    requests = sum(minute.green_requests for minute in compared)
    totals = _totals(pairs)
    verdict, reason = _verdict(plan, log_evidence, requests, totals)
    return Evidence(
        verdict=verdict,
        reason=reason,
        compared_requests=requests,
        log_evidence=log_evidence,
        green_requests=totals.green_requests,
        green_errors=totals.green_errors,
        blue_requests=totals.blue_requests,
        blue_errors=totals.blue_errors,
    )


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
                )
            )
        else:
            pairs.append(minute)
    return pairs


def _is_comparable(minute: Minute) -> bool:
    """Both fleets served, and neither has more errors than requests (a metric that has not all arrived yet)."""
    served = minute.green_requests > 0 and minute.blue_requests > 0
    return served and minute.green_errors <= minute.green_requests and minute.blue_errors <= minute.blue_requests


def _log_evidence(smallest_harm: float, minutes: Sequence[Minute]) -> float:
    largest = max(_LARGEST_HARM, smallest_harm * 2)
    step = math.log(largest / smallest_harm) / (_GRID_POINTS - 1)
    weights = [_DECAY**n for n in range(_GRID_POINTS)]
    terms = [
        math.log(weight / sum(weights)) + _log_ratio(smallest_harm * math.exp(n * step), minutes)
        for n, weight in enumerate(weights)
    ]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def _log_ratio(theta: float, minutes: Sequence[Minute]) -> float:
    """Return the logarithm of the evidence for an error rate exactly `theta` times blue's."""
    total = 0.0
    for minute in minutes:
        share = minute.green_requests / (minute.green_requests + minute.blue_requests)
        errors = minute.green_errors + minute.blue_errors
        total += minute.green_errors * math.log(theta) - errors * math.log(share * theta + 1 - share)
    return total


def _totals(minutes: Sequence[Minute]) -> Minute:
    return Minute(
        start=0,
        green_requests=sum(minute.green_requests for minute in minutes),
        green_errors=sum(minute.green_errors for minute in minutes),
        blue_requests=sum(minute.blue_requests for minute in minutes),
        blue_errors=sum(minute.blue_errors for minute in minutes),
    )


def _verdict(plan: RolloutPlan, log_evidence: float, requests: int, totals: Minute) -> tuple[Verdict, str]:
    counts = (
        f"green failed {totals.green_errors} of {totals.green_requests} requests, "
        f"blue {totals.blue_errors} of {totals.blue_requests}"
    )
    if log_evidence >= -math.log(plan.alpha):
        odds = math.exp(min(log_evidence, 30.0))
        return Verdict.HARM, (
            f"{counts}: evidence {odds:.3g} to 1 that green's error rate is at least {plan.smallest_harm:g} times "
            f"blue's, where {1 / plan.alpha:.3g} to 1 is enough (alpha={plan.alpha:g}, over all looks)"
        )
    if requests < plan.min_requests:
        return Verdict.INCONCLUSIVE, (
            f"{counts}; {requests} requests on green stand beside requests on blue, and a verdict needs "
            f"min_requests={plan.min_requests}"
        )
    return Verdict.NO_HARM_SEEN, f"{counts}: no sign of harm among {requests} compared requests"
