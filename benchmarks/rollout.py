"""Would this gate have rolled back? Simulated canaries of an hour, a look every minute: `make bench-rollout`.

Ours is `airflow_dlaws.rollout.analysis.Judgement`, the code that judges real rollouts, fed with simulated minutes.
Beside it stand what teams use: a fixed test at the end, p < 0.05 looked at every minute, a static alarm on 5 % errors,
a Mann-Whitney judge on minute points (as Kayenta's), and Wald's sequential test that knows both rates beforehand: the
lower bound that nobody reaches who does not. Blue fails 1 % of its requests; a tenth of the traffic goes to green.

Latency is judged from the end of green's warm-up on; its minutes are counted from there, Wald's as well.

    share   of the rollouts that were rolled back within the hour
    median  minute of the rollback, over all rollouts (one that never comes is infinitely late)

Figures go to benchmarks/results/rollout.json. Exit 1 where a figure misses its bar.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy.stats import mannwhitneyu

from airflow_dlaws.rollout.analysis import Judgement, is_comparable
from airflow_dlaws.rollout.latency import LEVELS, LatencyReference
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.stakes import Traffic, stakes_of
from rollout_traffic import LATENCY_SIGMA, Hour, Scenario, hours

RESULTS = Path(__file__).parent / "results" / "rollout.json"
MINUTES = 60
ALPHA = 0.05
PLAN = RolloutPlan(alpha=ALPHA, wait_seconds=60 * MINUTES)
_NORMAL = NormalDist()
#: Quantiles of the simulated latency (log-normal around 40 ms), in microseconds, as CloudWatch would tell them.
REFERENCE = LatencyReference(
    levels=LEVELS,
    thresholds=tuple(40_000 * math.exp(LATENCY_SIGMA * _NORMAL.inv_cdf(level)) for level in LEVELS),
    answers=10_000,
)
#: The judge on minute points is slow; so many rollouts are enough to see where it stands.
MANN_WHITNEY_RUNS = 400


@dataclass(frozen=True)
class Figure:
    """How one gate fared in one scenario."""

    share: float
    median: float | None

    @property
    def text(self) -> str:
        """As the table shows it."""
        return f"{self.share:6.3f}" + ("      -" if self.median is None else f" ({self.median:4.0f})")


@dataclass(frozen=True)
class Row:
    """One scenario."""

    scenario: str
    requests: int
    rollouts: int
    gates: dict[str, Figure]
    misses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def ours(hour: Hour, traffic: Traffic) -> int | None:
    """Return the minute in which our gate rolls back; it knows the traffic of the hour before."""
    judgement = Judgement(PLAN, REFERENCE, stakes_of(PLAN, traffic))
    for index in range(MINUTES):
        minute = hour.minute(index)
        if is_comparable(minute):
            judgement.add(minute)
        if judgement.log_evidence >= -math.log(ALPHA):
            return index + 1
    return None


def every_minute(hour: Hour) -> int | None:
    """A pooled z test of two proportions at p < 0.05, one-sided, looked at every minute."""
    statistic = _z(
        np.cumsum(hour.green), np.cumsum(hour.green_errors), np.cumsum(hour.blue), np.cumsum(hour.blue_errors)
    )
    return _first(statistic > _NORMAL.inv_cdf(1 - ALPHA))


def at_the_end(hour: Hour) -> int | None:
    """The same test, once, when the hour is over."""
    totals = [np.array([part.sum()]) for part in (hour.green, hour.green_errors, hour.blue, hour.blue_errors)]
    return MINUTES if _z(*totals)[0] > _NORMAL.inv_cdf(1 - ALPHA) else None


def static_alarm(hour: Hour) -> int | None:
    """More than 5 % of green's requests failed in one minute."""
    return _first(hour.green_errors > 0.05 * hour.green)


def minute_points(hour: Hour) -> int | None:
    """Mann-Whitney on the minutes' error rates, at the end: confidence 0.98 and a quarter above, as Kayenta's judge."""
    served = (hour.green > 0) & (hour.blue > 0)
    green, blue = (hour.green_errors / np.maximum(hour.green, 1))[served], (hour.blue_errors / hour.blue)[served]
    if not len(green) or np.ptp(np.concatenate([green, blue])) == 0:
        return None
    p_value = mannwhitneyu(green, blue, alternative="greater").pvalue
    return MINUTES if p_value < 0.02 and green.mean() > 1.25 * blue.mean() else None


def wald(scenario: Scenario) -> Callable[[Hour], int | None]:
    """Wald's sequential probability ratio test that knows blue's rate and the harm beforehand (Wald 1945)."""
    if scenario.slowdown > 1:
        shift = math.log(scenario.slowdown) / LATENCY_SIGMA

        def latency(hour: Hour) -> int | None:
            evidence = np.cumsum(shift * hour.green_scores - hour.green * shift**2 / 2)
            return _first(evidence >= -math.log(ALPHA))

        return latency
    rate, harmed = scenario.error_rate, scenario.error_rate * scenario.harm

    def errors(hour: Hour) -> int | None:
        answered = hour.green - hour.green_errors
        steps = hour.green_errors * math.log(harmed / rate) + answered * math.log((1 - harmed) / (1 - rate))
        return _first(np.cumsum(steps) >= -math.log(ALPHA))

    return errors


def _z(green: np.ndarray, green_errors: np.ndarray, blue: np.ndarray, blue_errors: np.ndarray) -> np.ndarray:
    pooled = (green_errors + blue_errors) / np.maximum(green + blue, 1)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(green, 1) + 1 / np.maximum(blue, 1)))
    difference = green_errors / np.maximum(green, 1) - blue_errors / np.maximum(blue, 1)
    return np.where(spread > 0, difference / np.where(spread > 0, spread, 1), 0.0)


def _first(hits: np.ndarray) -> int | None:
    return int(hits.argmax()) + 1 if hits.any() else None


def figure(minutes: Iterable[int | None]) -> Figure:
    """Summarise when rollouts were rolled back."""
    times = sorted(math.inf if minute is None else minute for minute in minutes)
    share = sum(math.isfinite(at) for at in times) / len(times)
    median = times[(len(times) - 1) // 2]
    return Figure(share=share, median=median if math.isfinite(median) else None)


def measure(scenario: Scenario, rollouts: int, seed: int) -> Row:
    """Run one scenario through every gate, on the same hours."""
    traffic = Traffic(requests_per_minute=scenario.requests / PLAN.first_share, error_rate=scenario.error_rate)
    gates: dict[str, Callable[[Hour], int | None]] = {
        "ours": partial(ours, traffic=traffic),
        "at the end": at_the_end,
        "p<.05 each minute": every_minute,
        "static 5 %": static_alarm,
    }
    if scenario.is_harmful:
        gates["Wald"] = wald(scenario)
    simulated = list(hours(scenario, rollouts, MINUTES, REFERENCE.thresholds, seed))
    figures = {name: figure(gate(hour) for hour in simulated) for name, gate in gates.items()}
    figures["Mann-Whitney"] = figure(minute_points(hour) for hour in simulated[:MANN_WHITNEY_RUNS])
    row = Row(scenario=scenario.name, requests=scenario.requests, rollouts=rollouts, gates=figures)
    return judged(row, scenario)


def judged(row: Row, scenario: Scenario) -> Row:
    """Hold a row against the bars."""
    mine = row.gates["ours"]
    if not scenario.is_harmful:
        if mine.share > ALPHA:
            row.misses.append(f"rolls back {mine.share:.1%} of healthy releases, more than {ALPHA:.0%}")
        return row
    if scenario.must_find and mine.share < 0.97:
        row.misses.append(f"finds {mine.share:.1%}, fewer than 97 %")
    bound = row.gates["Wald"].median
    if bound is None:
        row.notes.append("even Wald's test that knows the effect does not find half of them within the hour")
    elif scenario.timed:
        latest = 1.5 * bound + 1
        if mine.median is None or mine.median > latest:
            row.misses.append(f"median minute {mine.median} is later than 1.5 x {bound:g} + 1 = {latest:g}")
    return row


def scenarios() -> Sequence[Scenario]:
    """Everything that is simulated."""
    found = []
    for requests in (60, 6):
        found.append(Scenario(name="healthy", requests=requests))
        found += [
            Scenario(
                name=f"{harm:g}x errors", requests=requests, harm=harm, timed=harm >= 2,
                must_find=requests == 60 and harm >= 2,
            )
            for harm in (1.5, 2.0, 3.0, 5.0)
        ]  # fmt: skip
        found += [
            Scenario(
                name=f"latency +{slowdown - 1:.0%}", requests=requests, slowdown=slowdown, timed=True,
                must_find=requests == 60,
            )
            for slowdown in (1.2, 1.5)
        ]  # fmt: skip
        found.append(Scenario(name="healthy, daily cycle", requests=requests, shape="cycle"))
        found.append(Scenario(name="healthy, shared bursts", requests=requests, shape="bursts"))
        found.append(Scenario(name="healthy, shared slow spells", requests=requests, shape="slow spells"))
    return found


def table(rows: Sequence[Row]) -> str:
    """Return the table."""
    names = ["ours", "Wald", "at the end", "p<.05 each minute", "static 5 %", "Mann-Whitney"]
    lines = [f"{'req/min':>7}  {'green is':<28}" + "".join(f"{name:>19}" for name in names)]
    for row in rows:
        cells = [row.gates[name].text if name in row.gates else "" for name in names]
        lines.append(f"{row.requests:>7}  {row.scenario:<28}" + "".join(f"{cell:>19}" for cell in cells))
        lines += [f"{'':>9}MISSED: {miss}" for miss in row.misses] + [f"{'':>9}note: {note}" for note in row.notes]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rollouts", type=int, default=2000, help="simulated rollouts in each scenario")
    chosen = parser.parse_args(arguments)
    began = time.time()
    rows = [measure(scenario, chosen.rollouts, chosen.seed) for scenario in scenarios()]
    print(table(rows))
    missed = [f"{row.requests}/min {row.scenario}: {miss}" for row in rows for miss in row.misses]
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "seed": chosen.seed,
        "rollouts": chosen.rollouts,
        "seconds": round(time.time() - began),
        "bars": {"healthy_rolled_back": ALPHA, "found": 0.97, "median": "1.5 x Wald + 1 minute"},
        "rows": [asdict(row) for row in rows],
        "missed": missed,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{len(missed)} bars missed; figures in {RESULTS.name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
