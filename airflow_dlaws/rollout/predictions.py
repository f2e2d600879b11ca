"""Does green answer otherwise than blue? Evidence on the distribution of predictions, on the same minutes.

A retrained model is meant to differ somewhat. Harm is only

- a shift: some set of answers is more frequent with green by more than `largest_prediction_shift` (total variation); or
- a collapse: green gives anything but its favourite answer less than a fifth as often as blue does.

Blue's answers before green serves make the cells: its most frequent classes, or tenths of its scores; what is of no
cell (an unknown class, no number, unreadable) is one more. Each bet is on a set of cells and tested by `margin`, so the
answers may change over the day as they like, for both fleets. One answer a request counts.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.rollout.harm import log_sum
from airflow_dlaws.rollout.margin import Margin, RateWindow, log_factor

#: Fewer answers of blue than this make no cells.
FEWEST_ANSWERS = 200
#: Classes beyond the most frequent ones are one cell, "other": a shift among rare classes is below any margin.
_MOST_CLASSES = 12
#: Numbers of so few different values are classes.
_FEW_VALUES = 12
_SCORE_CELLS = 10
_COLLAPSED = 0.2
#: How far beyond the margin bets on a shift lie, as a share of what is left to certainty.
_BEYOND = (0.4, 0.97)
#: Of the bets: on shifts of one class or one end of the scores, on a collapse, and on what earlier minutes show.
_SHIFT_WEIGHT, _COLLAPSE_WEIGHT, _LEARNT_WEIGHT = 0.5, 0.2, 0.3
#: Earlier minutes speak as loud as blue's past at so many answers.
_PRIOR_ANSWERS = 40.0
#: Minutes that may still get late files are kept one by one; older ones as the evidence they came to.
_OPEN_MINUTES = 45

Outcome = str | float | None


@dataclass(frozen=True, kw_only=True)
class PredictionReference:
    """Cells cut by blue's answers before the rollout; the last cell is for what is of no other."""

    #: The classes in the order of the cells; empty where answers are scores.
    classes: tuple[str, ...] = ()
    #: Increasing cuts between the cells of scores; empty where answers are classes.
    cuts: tuple[float, ...] = ()
    #: Blue's answers by cell.
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        cells = (len(self.classes) or len(self.cuts) + 1) + 1
        if bool(self.classes) == bool(self.cuts) or len(self.counts) != cells:
            raise SpecificationError(
                f"cells of predictions are made by classes or by cuts, with a count each: {len(self.classes)} classes, "
                f"{len(self.cuts)} cuts, {len(self.counts)} counts"
            )

    def cell(self, outcome: Outcome) -> int:
        """Return the cell of an answer."""
        last = len(self.counts) - 1
        if self.classes:
            name = class_name(outcome)
            return self.classes.index(name) if name in self.classes else last
        if not isinstance(outcome, float) or math.isnan(outcome):
            return last
        return bisect.bisect_right(self.cuts, outcome)

    def name(self, cell: int) -> str:
        """Return what a cell holds, for people."""
        if cell == len(self.counts) - 1:
            return "other answers"
        if self.classes:
            return self.classes[cell]
        edges = ["", *(f"{cut:.4g}" for cut in self.cuts), ""]
        return f"{edges[cell] or 'below'} to {edges[cell + 1] or 'above'}"

    @property
    def shares(self) -> tuple[float, ...]:
        """Blue's share of answers in each cell, none of them 0."""
        total = sum(self.counts) + 0.5 * len(self.counts)
        return tuple((count + 0.5) / total for count in self.counts)


def class_name(outcome: Outcome) -> str | None:
    """Return the name of a class, also where it is a number."""
    return f"{outcome:g}" if isinstance(outcome, float) else outcome


def reference_of(outcomes: Sequence[Outcome]) -> PredictionReference | None:
    """Cut blue's answers into cells; None where there are too few, or few can be read."""
    known = [outcome for outcome in outcomes if outcome is not None]
    if len(known) < FEWEST_ANSWERS:
        return None
    numbers = sorted(outcome for outcome in known if isinstance(outcome, float) and math.isfinite(outcome))
    if len(numbers) == len(known) and len(set(numbers)) > _FEW_VALUES:
        cuts = tuple(sorted({numbers[len(numbers) * n // _SCORE_CELLS] for n in range(1, _SCORE_CELLS)}))
        return _counted(outcomes, (), cuts)
    frequent = Counter(name for name in map(class_name, known) if name is not None).most_common(_MOST_CLASSES)
    return _counted(outcomes, tuple(name for name, _ in frequent), ())


def _counted(outcomes: Sequence[Outcome], classes: tuple[str, ...], cuts: tuple[float, ...]) -> PredictionReference:
    cells = (len(classes) or len(cuts) + 1) + 1
    empty = PredictionReference(classes=classes, cuts=cuts, counts=(0,) * cells)
    counts = Counter(map(empty.cell, outcomes))
    return PredictionReference(classes=classes, cuts=cuts, counts=tuple(counts[cell] for cell in range(cells)))


@dataclass(frozen=True, kw_only=True)
class AnswerMinute:
    """Answers of one minute by cell. `start` is in epoch seconds."""

    start: int
    green: tuple[int, ...]
    blue: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PredictionTally:
    """All that is known of the predictions so far, in bounded space."""

    #: In the order of time.
    minutes: tuple[AnswerMinute, ...] = ()
    #: What the settled minutes came to: the logarithm of each bet, and answers by cell.
    settled_logs: tuple[float, ...] = ()
    settled_green: tuple[int, ...] = ()
    settled_blue: tuple[int, ...] = ()
    #: Minutes before are settled; answers of theirs that come now are not counted. Epoch seconds.
    settled_until: int = 0


@dataclass(frozen=True, kw_only=True)
class PredictionEvidence:
    """How far predictions speak against green."""

    log_evidence: float
    #: Answers of minutes in which both fleets answered.
    green_answers: int
    blue_answers: int
    #: The half of the summed differences of the shares, 0 to 1; None without answers.
    distance: float | None
    #: What differs most, in a sentence.
    sentence: str
    #: The answers by cell.
    green_cells: tuple[int, ...] = ()
    blue_cells: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Bet:
    weight: float
    cells: frozenset[int]
    margin: Margin
    green_rate: float
    blue_rate: float


class PredictionJudge:
    """Judges tallies against one reference.

    :param shift: the largest total variation distance between green's answers and blue's that is no harm.
    """

    def __init__(self, reference: PredictionReference, shift: float) -> None:
        self._reference, self._shift = reference, Margin(intercept=shift, slope=1.0)
        self._bets = list(_bets(reference, shift))

    def evidence(self, tally: PredictionTally) -> PredictionEvidence:
        """Return the evidence of all minutes."""
        fold = self._fold(tally)
        for minute in tally.minutes:
            fold.add(minute)
        green, blue = sum(fold.green), sum(fold.blue)
        weighted = [
            math.log(weight) + log for weight, log in zip([*_weights(self._bets)], fold.logs, strict=True) if weight
        ]
        return PredictionEvidence(
            log_evidence=log_sum(weighted),
            green_answers=green,
            blue_answers=blue,
            distance=_distance(fold.green, fold.blue) if green and blue else None,
            sentence=self._sentence(fold.green, fold.blue) if green and blue else "",
            green_cells=tuple(fold.green),
            blue_cells=tuple(fold.blue),
        )

    def settle(self, tally: PredictionTally, now: float) -> PredictionTally:
        """Return the tally with its old minutes made into the evidence they came to."""
        until = int(now) // 60 * 60 - 60 * _OPEN_MINUTES
        if not tally.minutes or tally.minutes[0].start >= until:
            return tally
        fold = self._fold(tally)
        for minute in tally.minutes:
            if minute.start < until:
                fold.add(minute)
        return PredictionTally(
            minutes=tuple(minute for minute in tally.minutes if minute.start >= until),
            settled_logs=tuple(fold.logs),
            settled_green=tuple(fold.green),
            settled_blue=tuple(fold.blue),
            settled_until=until,
        )

    def _fold(self, tally: PredictionTally) -> _Fold:
        cells = len(self._reference.counts)
        return _Fold(
            self._bets,
            self._shift,
            self._reference.shares,
            list(tally.settled_logs or (0.0,) * (len(self._bets) + 1)),
            list(tally.settled_green or (0,) * cells),
            list(tally.settled_blue or (0,) * cells),
        )

    def _sentence(self, green: Sequence[int], blue: Sequence[int]) -> str:
        gaps = [g / sum(green) - b / sum(blue) for g, b in zip(green, blue, strict=True)]
        cell = max(range(len(gaps)), key=lambda cell: abs(gaps[cell]))
        name = self._reference.name(cell)
        what = f"class {name!r}" if self._reference.classes and cell < len(gaps) - 1 else f"answers {name}"
        return (
            f"{what}: {green[cell] / sum(green):.1%} of {sum(green)} answers of green, "
            f"{blue[cell] / sum(blue):.1%} of {sum(blue)} of blue"
        )


@dataclass
class _Fold:
    bets: Sequence[_Bet]
    shift: Margin
    prior: Sequence[float]
    logs: list[float]
    green: list[int]
    blue: list[int]

    def add(self, minute: AnswerMinute) -> None:
        greens, blues = sum(minute.green), sum(minute.blue)
        if not (greens and blues):
            return
        for index, bet in enumerate([*self.bets, self._learnt()]):
            if bet is not None:
                window = RateWindow(
                    green=greens,
                    green_hits=sum(minute.green[cell] for cell in bet.cells),
                    blue=blues,
                    blue_hits=sum(minute.blue[cell] for cell in bet.cells),
                )
                self.logs[index] += log_factor(bet.margin, bet.green_rate, bet.blue_rate, window)
        self.green = [old + new for old, new in zip(self.green, minute.green, strict=True)]
        self.blue = [old + new for old, new in zip(self.blue, minute.blue, strict=True)]

    def _learnt(self) -> _Bet | None:
        """Bet on the set of cells in which green had more answers so far, and on the shares seen so far."""
        green, blue = self._smoothed(self.green), self._smoothed(self.blue)
        cells = frozenset(cell for cell in range(len(green)) if green[cell] > blue[cell])
        rates = sum(green[cell] for cell in cells), sum(blue[cell] for cell in cells)
        if not cells or self.shift.allows(*rates):
            return None
        return _Bet(_LEARNT_WEIGHT, cells, self.shift, *rates)

    def _smoothed(self, counts: Sequence[int]) -> list[float]:
        total = sum(counts) + _PRIOR_ANSWERS
        return [(count + _PRIOR_ANSWERS * share) / total for count, share in zip(counts, self.prior, strict=True)]


def _weights(bets: Sequence[_Bet]) -> Iterator[float]:
    yield from (bet.weight for bet in bets)
    yield _LEARNT_WEIGHT


def _bets(reference: PredictionReference, shift: float) -> Iterator[_Bet]:
    shares = reference.shares
    margin = Margin(intercept=shift, slope=1.0)
    shifts = []
    for cells in _sets(reference):
        blue = sum(shares[cell] for cell in cells)
        room = 1 - shift - blue
        shifts += [(cells, blue + shift + room * beyond, blue) for beyond in _BEYOND if room > 0]
    yield from (_Bet(_SHIFT_WEIGHT / len(shifts), cells, margin, green, blue) for cells, green, blue in shifts)
    collapse = Margin(intercept=1 - _COLLAPSED, slope=_COLLAPSED)
    for cell, share in enumerate(shares):
        rest = 1 - share
        yield _Bet(_COLLAPSE_WEIGHT / len(shares), frozenset([cell]), collapse, 1 - 0.02 * _COLLAPSED * rest, share)


def _sets(reference: PredictionReference) -> Iterable[frozenset[int]]:
    """Return the sets of cells that green may have more of: one class, all but one, one end of the scores."""
    cells = range(len(reference.counts))
    singles = [frozenset([cell]) for cell in cells]
    wanted = [*singles, *(frozenset(cells) - single for single in singles)]
    if reference.cuts:
        wanted += [end for cut in cells[1:-1] for end in (frozenset(cells[:cut]), frozenset(cells[cut:-1]))]
    return dict.fromkeys(each for each in wanted if each and len(each) < len(cells))


def _distance(green: Sequence[int], blue: Sequence[int]) -> float:
    total_green, total_blue = sum(green), sum(blue)
    return sum(abs(g / total_green - b / total_blue) for g, b in zip(green, blue, strict=True)) / 2


def counted(
    tally: PredictionTally, cells: int, answers: Mapping[int, tuple[Sequence[int], Sequence[int]]]
) -> PredictionTally:
    """Return the tally with more answers in it.

    :param cells: how many there are.
    :param answers: by the start of a minute (epoch seconds): the cells of green's answers, and of blue's.
    """
    minutes = {minute.start: minute for minute in tally.minutes}
    for start, (green, blue) in answers.items():
        if start < tally.settled_until:
            continue
        old = minutes.get(start) or AnswerMinute(start=start, green=(0,) * cells, blue=(0,) * cells)
        minutes[start] = AnswerMinute(start=start, green=_plus(old.green, green), blue=_plus(old.blue, blue))
    return dataclasses.replace(tally, minutes=tuple(minutes[start] for start in sorted(minutes)))


def _plus(counts: Sequence[int], cells: Sequence[int]) -> tuple[int, ...]:
    more = Counter(cells)
    return tuple(count + more[cell] for cell, count in enumerate(counts))
