"""May a model that shadows production get users? The gate before the first one, from paired answers and metrics.

Two errors have a bound each. A shadow as good as production, that agrees as much as is asked for, is found worse with
chance at most `alpha`: half of it on errors and latency (`analysis`), half on disagreement. A shadow that agrees less
than is asked for gets users with chance at most `alpha`: it passes only once its agreement is proven. In between there
is no verdict. How far the answers' distributions are apart needs no bet of its own: for labels it is at most the share
of answers that differ.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_dlaws.rollout.agreement import AgreementEvidence, pairs_needed
from airflow_dlaws.rollout.analysis import Evidence, Minute, Verdict, judge
from airflow_dlaws.rollout.latency import LatencyReference
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.stakes import Traffic


class ShadowVerdict(enum.StrEnum):
    """What is known of a shadow."""

    GOOD = "good"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class ShadowEvidence:
    """What was seen of a shadow so far, and the verdict. In `served` green is the shadow, blue is production."""

    verdict: ShadowVerdict = ShadowVerdict.INCONCLUSIVE
    reason: str = "nothing was compared yet"
    served: Evidence = field(default_factory=Evidence)
    answers: AgreementEvidence = field(default_factory=AgreementEvidence)


def judge_shadow(
    plan: RolloutPlan,
    minutes: Iterable[Minute],
    answers: AgreementEvidence,
    *,
    began: float,
    latency: LatencyReference | None,
) -> ShadowEvidence:
    """Return the verdict on a shadow.

    :param minutes: CloudWatch's counts since `began` (epoch seconds); green is the shadow, blue is production.
    :param answers: of the pairs read so far.
    """
    # Its predictions are compared pair by pair, and it does no business.
    watched = dataclasses.replace(
        plan, alpha=plan.alpha / 2, shadow_seconds=0, judge_predictions=False, business_metric=None
    )
    copied = plan.shadow_percent / 100
    served = judge(watched, minutes, began=began, latency=latency, shares=(copied / (1 + copied),))
    verdict, reason = _verdict(plan, served, answers)
    return ShadowEvidence(verdict=verdict, reason=reason, served=served, answers=answers)


def shadow_forecast(plan: RolloutPlan, traffic: Traffic) -> str:
    """Say whether the traffic there is gives a verdict in time; empty where it does."""
    needed = max(pairs_needed(plan.smallest_agreement, plan.alpha), plan.min_requests)
    pairs = traffic.requests_per_minute * plan.shadow_percent / 100 * plan.shadow_seconds / 60
    if pairs >= needed:
        return ""
    return (
        f"the shadow will see about {pairs:.0f} requests in {plan.shadow_seconds} s, and proving an agreement of "
        f"{plan.smallest_agreement:.1%} takes at least {needed} that differ: raise shadow_seconds"
    )


def _verdict(plan: RolloutPlan, served: Evidence, answers: AgreementEvidence) -> tuple[ShadowVerdict, str]:
    told = _told(answers)
    if served.verdict is Verdict.HARM:
        return ShadowVerdict.WORSE, f"as a shadow (green, beside production, blue) {served.reason}; {told}"
    if answers.log_worse >= math.log(2 / plan.alpha):
        return ShadowVerdict.WORSE, (
            f"{told}: proven to be less than smallest_agreement={plan.smallest_agreement:g} "
            f"(evidence {_odds(answers.log_worse)} to 1, where {2 / plan.alpha:.3g} is enough); {_worst(answers)}"
        )
    if served.verdict is Verdict.INCONCLUSIVE:
        return ShadowVerdict.INCONCLUSIVE, f"as a shadow (green, beside production, blue) {served.reason}; {told}"
    if answers.pairs < plan.min_requests or answers.log_better < math.log(1 / plan.alpha):
        needed = max(pairs_needed(plan.smallest_agreement, plan.alpha), plan.min_requests)
        return ShadowVerdict.INCONCLUSIVE, (
            f"{told}: an agreement of at least smallest_agreement={plan.smallest_agreement:g} is not proven (evidence "
            f"{_odds(answers.log_better)} to 1 of {1 / plan.alpha:.3g}; with perfect agreement it takes {needed} "
            "different requests)" + (f"; {_worst(answers)}" if answers.worst else "")
        )
    return ShadowVerdict.GOOD, f"as a shadow (green, beside production, blue) {served.reason}; {told}"


def _told(answers: AgreementEvidence) -> str:
    if answers.agreement is None:
        return "no request was captured with both answers"
    return (
        f"{answers.agreement:.1%} of the answers to {answers.pairs} different requests agree with production's, and "
        f"their distributions are {answers.distance:.3f} apart (0 to 1)"
        + (f"; {answers.repeated} requests repeated one of these, which proves nothing" if answers.repeated else "")
    )


def _worst(answers: AgreementEvidence) -> str:
    rows = [f"{pair.event}: {pair.production} became {pair.shadow}" for pair in answers.worst]
    return "the worst: " + "; ".join(rows)


def _odds(log_evidence: float) -> str:
    return f"{math.exp(min(log_evidence, 30.0)):.3g}"
