"""From measured scores to a verdict on the challenger. Pure; the random generator is an argument.

better              the whole interval of the improvement lies above zero
not_worse           above minus the margin: at most that much worse, with the confidence asked for
worse               below zero, and not shown to be within the margin
inconclusive        none of these can be said with so few rows
below_requirements  an absolute requirement is not met, whatever the champion does
no_champion         nothing serves yet, and the absolute requirements are met
"""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.evaluation.metrics import Metric, ModelMetrics, measure
from airflow_dlaws.evaluation.paired import McNemar, PairedDifference, compare, mcnemar
from airflow_dlaws.evaluation.scores import Scores

#: Neither a normal approximation nor a bootstrap says anything reliable about the mean of so few rows.
MIN_ROWS = 50
#: With fewer rows of the rarer label the metric hangs on single rows.
MIN_PER_LABEL = 10


class Verdict(enum.StrEnum):
    """What the comparison says."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    BELOW_REQUIREMENTS = "below_requirements"
    NO_CHAMPION = "no_champion"


PROMOTING = frozenset({Verdict.BETTER, Verdict.NOT_WORSE, Verdict.NO_CHAMPION})


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """On what terms a challenger passes.

    :param metric: what the models are compared on.
    :param margin: how much worse, in units of the metric, still counts as not worse; 0 asks for better.
    :param alpha: chance, at most, of calling an equal challenger better; the interval has confidence 1 - alpha.
    :param requirements: absolute bounds on the challenger, such as {"max_log_loss": 0.5, "min_auc": 0.7}.
    """

    metric: Metric = Metric.LOG_LOSS
    margin: float = 0.0
    alpha: float = 0.05
    requirements: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        allowed = [str(metric) for metric in Metric]
        if self.metric not in allowed:
            raise SpecificationError(f"metric={str(self.metric)!r} is none of {allowed}")
        object.__setattr__(self, "metric", Metric(self.metric))
        if not self.margin >= 0:
            raise SpecificationError(f"margin={self.margin} is negative: give how much worse may still pass, or 0")
        if not 0 < self.alpha < 0.5:
            raise SpecificationError(f"alpha={self.alpha} must lie between 0 and 0.5; 0.05 is usual")
        known = [f"{bound}_{metric}" for bound in ("min", "max") for metric in Metric]
        unknown = sorted(set(self.requirements) - set(known))
        if unknown:
            raise SpecificationError(f"requirements name {unknown}; known are {known}")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything measured, and the verdict with its reason."""

    verdict: Verdict
    reason: str
    rows: int
    positives: int
    challenger: ModelMetrics
    champion: ModelMetrics | None = None
    difference: PairedDifference | None = None
    mcnemar: McNemar | None = None

    @property
    def promotes(self) -> bool:
        """Tell whether the challenger may go on towards production."""
        return self.verdict in PROMOTING


def evaluate(scores: Scores, criteria: Criteria, *, generator: random.Random) -> Evaluation:
    """Measure both models and decide."""
    challenger = measure(scores.labels, scores.challenger)
    failed = unmet_requirements(challenger, criteria.requirements)
    champion = difference = exact = None
    if scores.champion is not None:
        champion = measure(scores.labels, scores.champion)
        exact = mcnemar(scores)
        if not _too_few(scores):
            difference = compare(scores, criteria.metric, alpha=criteria.alpha, generator=generator)
    verdict, reason = _decide(scores, criteria, failed, difference)
    return Evaluation(
        verdict=verdict,
        reason=reason,
        rows=scores.rows,
        positives=scores.positives,
        challenger=challenger,
        champion=champion,
        difference=difference,
        mcnemar=exact,
    )


def unmet_requirements(metrics: ModelMetrics, requirements: Mapping[str, float]) -> list[str]:
    """Return a sentence for each absolute requirement that `metrics` does not meet."""
    failed = []
    for requirement, bound in sorted(requirements.items()):
        side, _, name = requirement.partition("_")
        value = metrics.value(Metric(name))
        if value is None:
            failed.append(f"{name} cannot be measured on rows of one label, and {requirement}={bound:g} is required")
        elif value > bound if side == "max" else value < bound:
            failed.append(f"{name} is {value:.4f}, and {requirement}={bound:g} is required")
    return failed


def _too_few(scores: Scores) -> str:
    """Return why the rows cannot carry a comparison, or nothing."""
    rarer = min(scores.positives, scores.rows - scores.positives)
    if scores.rows < MIN_ROWS:
        return f"{scores.rows} rows are too few to judge a model by; at least {MIN_ROWS} are needed"
    if rarer < MIN_PER_LABEL:
        return f"only {rarer} rows have the rarer label; at least {MIN_PER_LABEL} are needed"
    return ""


def _decide(
    scores: Scores, criteria: Criteria, failed: list[str], difference: PairedDifference | None
) -> tuple[Verdict, str]:
    too_few = _too_few(scores)
    if failed:
        return Verdict.BELOW_REQUIREMENTS, f"the challenger does not meet what is required: {'; '.join(failed)}"
    if too_few:
        return Verdict.INCONCLUSIVE, too_few
    if difference is None:
        met = "all absolute requirements are met" if criteria.requirements else "no requirement was set"
        return Verdict.NO_CHAMPION, f"no champion to compare with; {met} on {scores.rows} rows"
    return judge(difference, criteria, rows=scores.rows)


def judge(difference: PairedDifference, criteria: Criteria, *, rows: int) -> tuple[Verdict, str]:
    """Return the verdict on a measured difference and the sentence that says why."""
    name, margin = str(criteria.metric), criteria.margin
    interval = f"{1 - criteria.alpha:.0%} interval {difference.low:+.5f} to {difference.high:+.5f}"
    measured = f"{name} improves by {difference.improvement:+.5f} ({interval}, {rows} rows)"
    if difference.low > 0:
        return Verdict.BETTER, f"better: {measured}"
    if difference.low > -margin:
        return Verdict.NOT_WORSE, f"not worse: {measured}, so it is worse by less than the margin of {margin:g}"
    if difference.high < 0:
        return Verdict.WORSE, f"worse: {measured}, and not shown to be within the margin of {margin:g}"
    return Verdict.INCONCLUSIVE, (
        f"inconclusive: {measured}; with these rows an improvement of {difference.detectable:.5f} would be seen in "
        f"four of five evaluations, and an equal challenger pass the margin of {margin:g} with chance "
        f"{difference.power_of_margin(margin):.0%}: evaluate on more rows or widen the margin"
    )
