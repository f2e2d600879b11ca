"""Do two models answer the same requests alike? Always-valid evidence on pairs of answers.

A pair is one request, answered by the model in service and by its shadow. Its disagreement is the share of its answers
(one a row of the request) that differ: 0 to 1. Against a rate d0 of disagreement that is just allowed, an alternative q
multiplies the evidence by

    (q / d0)**x * ((1 - q) / (1 - d0))**(1 - x)         for a pair with disagreement x

For q above d0 its expectation is at most 1 as long as the models disagree in at most d0 of the answers, for q below d0
as long as they disagree in at least d0 (the factor is convex in x, so a pair of many rows counts at most like a coin
with the same mean: Hoeffding 1963). Evidence is averaged over alternatives with fixed weights, so by Ville's inequality
it ever reaches 1/alpha with chance at most alpha, however often one looks: Waudby-Smith and Ramdas, "Estimating means
of bounded random variables by betting" (JRSS B 86, 2024). Requests are taken as independent of each other, so of equal
ones only the first may be added: were each added five times in a row, a wrong verdict would have a chance of one half.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.rollout.harm import log_sum

#: Where the alternatives lie, in units of what is just allowed, and how much is bet on each.
_WORSE = ((1.25, 0.2), (1.5, 0.2), (2.0, 0.2), (3.0, 0.2), (5.0, 0.2))
#: Most is bet on perfect agreement: it is proven soonest, and models that serve in turn mostly agree.
_BETTER = ((0.0, 0.4), (0.25, 0.3), (0.5, 0.2), (0.75, 0.1))
#: Pairs that a person is shown.
_WORST = 5
#: Enough values for a distance, few enough to keep.
_MOST_NUMBERS = 5000
#: Names under which an answer with fields says what it means; the first that both have is compared.
_FIELDS = (
    "predicted_label", "label", "predicted_class", "class", "prediction", "predictions", "score", "scores",
    "probability", "probabilities",
)  # fmt: skip
#: Probabilities are told from other numbers by their sum; so far it may be off, printed with few digits.
_SUM_ERROR = 0.01


@dataclass(frozen=True, kw_only=True)
class AnswerPair:
    """One request, answered twice: one answer a row, each a number, a text, a list or a mapping."""

    #: By which people find it: its inference id, or the event id of the answer that users saw.
    event: str
    production: tuple[object, ...]
    shadow: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class WorstPair:
    """A pair that disagrees, as people are shown it."""

    event: str
    production: str
    shadow: str


@dataclass(frozen=True, kw_only=True)
class AgreementEvidence:
    """What the pairs so far say."""

    #: Of requests that all differ.
    pairs: int = 0
    #: Pairs of requests that had come before, which are not counted.
    repeated: int = 0
    #: Sum of the pairs' disagreements.
    disagreements: float = 0.0
    #: Natural logarithms of the evidence that the models disagree more, and less, than is allowed.
    log_worse: float = 0.0
    log_better: float = 0.0
    #: Between the answers of both models, 0 to 1: total variation of labels, Kolmogorov and Smirnov's of numbers.
    distance: float = 0.0
    worst: tuple[WorstPair, ...] = ()

    @property
    def agreement(self) -> float | None:
        """The share of answers that agree."""
        return 1 - self.disagreements / self.pairs if self.pairs else None


class AgreementMeter:
    """Adds up pairs; `evidence` may be read at any time.

    :param smallest_agreement: the share of answers that must agree, above 0 and below 1.
    :param tolerance: two numbers agree within this share of the larger one.
    """

    def __init__(self, smallest_agreement: float, tolerance: float) -> None:
        self._allowed, self._tolerance = 1 - smallest_agreement, tolerance
        self._pairs, self._disagreements = 0, 0.0
        self._worse = [
            _Bet(self._allowed, min(self._allowed * times, (1 + self._allowed) / 2), w) for times, w in _WORSE
        ]
        self._better = [_Bet(self._allowed, self._allowed * times, weight) for times, weight in _BETTER]
        self._labels: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._numbers: tuple[list[float], list[float]] = ([], [])
        self._worst: list[tuple[float, int, WorstPair]] = []

    def add(self, pair: AnswerPair) -> None:
        """Add one pair."""
        disagreement, gap = compared(pair, self._tolerance)
        self._pairs += 1
        self._disagreements += disagreement
        for bet in (*self._worse, *self._better):
            bet.add(disagreement)
        for side, answers in enumerate((pair.production, pair.shadow)):
            for answer in answers:
                self._tally(side, answer)
        if disagreement > 0:
            shown = WorstPair(event=pair.event, production=_shown(pair.production), shadow=_shown(pair.shadow))
            heapq.heappush(self._worst, (gap, -self._pairs, shown))
            if len(self._worst) > _WORST:
                heapq.heappop(self._worst)

    @property
    def log_worse(self) -> float:
        """Natural logarithm of the evidence that the models disagree more than is allowed."""
        return log_sum([bet.log_evidence for bet in self._worse])

    @property
    def log_better(self) -> float:
        """Natural logarithm of the evidence that they disagree less."""
        # Minus infinity is no JSON.
        return max(log_sum([bet.log_evidence for bet in self._better]), -1e9)

    @property
    def evidence(self) -> AgreementEvidence:
        """What they say."""
        return AgreementEvidence(
            pairs=self._pairs,
            disagreements=self._disagreements,
            log_worse=self.log_worse,
            log_better=self.log_better,
            distance=max(_total_variation(*self._labels), _kolmogorov_smirnov(*self._numbers)),
            worst=tuple(shown for _, _, shown in sorted(self._worst, key=lambda row: row[:2], reverse=True)),
        )

    def _tally(self, side: int, answer: object) -> None:
        meaning = _meaning(answer)
        if isinstance(meaning, float):
            if len(self._numbers[side]) < _MOST_NUMBERS:
                self._numbers[side].append(meaning)
        else:
            self._labels[side][str(meaning)] += 1


def pairs_needed(smallest_agreement: float, alpha: float) -> int:
    """Return how many pairs that all agree prove that the models agree as much as is asked for."""
    (_, weight) = _BETTER[0]
    return math.ceil(math.log(1 / (alpha * weight)) / -math.log(smallest_agreement))


class _Bet:
    """The evidence for one alternative rate of disagreement."""

    def __init__(self, allowed: float, rate: float, weight: float) -> None:
        self._disagree = math.log(rate / allowed) if rate else -math.inf
        self._agree = math.log1p(-rate) - math.log1p(-allowed)
        self.log_evidence = math.log(weight)

    def add(self, disagreement: float) -> None:
        if disagreement:
            self.log_evidence += disagreement * self._disagree
        if disagreement < 1:
            self.log_evidence += (1 - disagreement) * self._agree


def compared(pair: AnswerPair, tolerance: float) -> tuple[float, float]:
    """Return the share of a pair's answers that differ, and the largest gap between two of them (0 to 1).

    Labels, texts and whole numbers agree if they are equal; lists of probabilities if the same class is likeliest;
    scores between 0 and 1 if they are on the same side of a half; other numbers within `tolerance` of the larger one.
    """
    if len(pair.production) != len(pair.shadow) or not pair.production:
        return (1.0, 1.0) if pair.production or pair.shadow else (0.0, 0.0)
    rows = [_gap(left, right, tolerance) for left, right in zip(pair.production, pair.shadow, strict=True)]
    differing = sum(not agrees for agrees, _ in rows)
    return differing / len(rows), max(gap for agrees, gap in rows if differing == 0 or not agrees)


def _gap(left: object, right: object, tolerance: float) -> tuple[bool, float]:
    """Return whether two answers agree, and how far apart they are, 0 to 1."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return _fields_gap(left, right, tolerance)
    if _is_list(left) and _is_list(right):
        return _lists_gap(list(left), list(right), tolerance)  # type: ignore[call-overload]
    first, second = _number(left), _number(right)
    if first is None or second is None:
        same = str(left).strip() == str(right).strip()
        return same, 0.0 if same else 1.0
    return _numbers_gap(first, second, tolerance)


def _fields_gap(left: Mapping[Any, Any], right: Mapping[Any, Any], tolerance: float) -> tuple[bool, float]:
    for name in _FIELDS:
        if name in left and name in right:
            return _gap(left[name], right[name], tolerance)
    if left.keys() != right.keys():
        return False, 1.0
    return _lists_gap([left[name] for name in left], [right[name] for name in left], tolerance)


def _lists_gap(left: Sequence[object], right: Sequence[object], tolerance: float) -> tuple[bool, float]:
    if len(left) != len(right):
        return False, 1.0
    first, second = _probabilities(left), _probabilities(right)
    if first and second:
        return first.index(max(first)) == second.index(max(second)), _largest_gap(first, second)
    parts = [_gap(one, other, tolerance) for one, other in zip(left, right, strict=True)]
    return all(agrees for agrees, _ in parts), max((gap for _, gap in parts), default=0.0)


def _numbers_gap(left: float, right: float, tolerance: float) -> tuple[bool, float]:
    if not (math.isfinite(left) and math.isfinite(right)):  # no tolerance reaches infinity
        same = str(left) == str(right)
        return same, 0.0 if same else 1.0
    gap = abs(left - right)
    if left.is_integer() and right.is_integer():
        return left == right, min(1.0, gap)
    if 0 <= left <= 1 and 0 <= right <= 1:
        return (left >= 0.5) == (right >= 0.5), gap
    size = max(abs(left), abs(right))
    return gap <= tolerance * size, min(1.0, gap / 2 / size)


def _largest_gap(left: Sequence[float], right: Sequence[float]) -> float:
    return max(abs(one - other) for one, other in zip(left, right, strict=True))


def _probabilities(values: Sequence[object]) -> list[float]:
    """Return the values as probabilities of classes, nothing where they are none."""
    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None and 0 <= number <= 1]
    return known if 1 < len(known) == len(values) and abs(sum(known) - 1) <= _SUM_ERROR else []


def _meaning(answer: object) -> object:
    """Return what an answer comes to: a label, or a number as a float."""
    if isinstance(answer, Mapping):
        named = next((answer[name] for name in _FIELDS if name in answer), None)
        return str(dict(answer)) if named is None else _meaning(named)
    if _is_list(answer):
        values = list(answer)  # type: ignore[call-overload]
        classes = _probabilities(values)
        return classes.index(max(classes)) if classes else _meaning(values[0]) if len(values) == 1 else str(values)
    number = _number(answer)
    if number is None or not math.isfinite(number):
        return str(answer).strip()
    return int(number) if number.is_integer() else number


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _total_variation(left: Counter[str], right: Counter[str]) -> float:
    """Half the sum of the differences in share. It is at most the share of pairs that disagree (coupling)."""
    counts = left.total(), right.total()
    if not all(counts):
        return 0.0
    return sum(abs(left[label] / counts[0] - right[label] / counts[1]) for label in left.keys() | right.keys()) / 2


def _kolmogorov_smirnov(left: list[float], right: list[float]) -> float:
    """The largest difference between the two shares of values up to some value."""
    if not left or not right:
        return 0.0
    steps = sorted([(value, 1 / len(left)) for value in left] + [(value, -1 / len(right)) for value in right])
    reached, largest = 0.0, 0.0
    for _, group in itertools.groupby(steps, key=lambda step: step[0]):
        reached += sum(step for _, step in group)
        largest = max(largest, abs(reached))
    return largest


def _shown(answers: Sequence[object]) -> str:
    text = ", ".join(str(answer) for answer in answers[:10])
    return text if len(text) <= 100 else f"{text[:97]}..."
