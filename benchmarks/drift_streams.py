"""Repeated looks: does healthy traffic ever raise an alarm, and how soon does drifted traffic?

All traffic is drawn from the rows kept from training, with replacement, and so is the reference
(drift_data.Drawing.bootstrap): the traffic lasts, and its null hypothesis is exactly true.

The delay is counted in samples from the change to the alarm, after HEALTHY samples without one. Peers: ADWIN and KSWIN
on the model's confidence and on the reconstruction error of a PCA of the training rows (one number each is what they
take); and the greatest population stability index over the pixels, the predicted label and both numbers, in a sliding
window, against a fixed threshold. Each peer's sensitivity is set on healthy calibration streams of the same length so
that RATE of them raise an alarm: something only a benchmark can do. Ours is not calibrated: its alpha is RATE, for
streams of any length. It stands there twice: as shipped, and without thresholds of the effect, as the peers have none
(a class that halves is a stability index of 0.035, far below the customary 0.2, and two rows in a hundred are fewer
than the share that matters).

Ours and the stability index get a reference of HEALTHY rows, as many as ADWIN and KSWIN have seen of the stream before
it changes: how weak a change can be found is limited by what is known of health.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import drift_peers
from airflow_dlaws.drift.counts import TrafficCounts
from drift_data import Drawing
from drift_ours import ANY_EFFECT, Watch
from drift_shifts import Bank, Shift

RATE = 0.05
#: Looks of a healthy run, and rows of a look.
LOOKS, LOOK_ROWS = 500, 50
HEALTHY, AFTER, STEP = 2500, 2000, 25
PSI_WINDOWS = (50, 200, 500)
NUMBERS = ("confidence", "reconstruction error")
OURS, OURS_ANY = "ours, as shipped", "ours, any effect"

SHIFTS: Mapping[str, Shift] = {
    "gn .3/.02": Shift(noise=0.3, delta=0.02),
    "gn .3/.1": Shift(noise=0.3, delta=0.1),
    "gn .3/.5": Shift(noise=0.3, delta=0.5),
    "gn .1/.5": Shift(noise=0.1, delta=0.5),
    "ko .5": Shift(knock_out=0.5),
    "ko 1.0": Shift(knock_out=1.0),
}


def windows(
    bank: Bank, shift: Shift, pool: np.ndarray, rows: int, step: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield `rows` rows of traffic in windows of `step`."""
    for _ in range(rows // step):
        yield bank.batch(shift, pool, step, rng, again=True)


def first_alarm(bank: Bank, seed: int, number: int) -> int | None:
    """Return at which of LOOKS looks at healthy traffic the first alarm is raised, if ever."""
    rng = np.random.default_rng([seed, number, 4])
    drawing = Drawing.bootstrap(bank.model.others, bank.images.reference, rng)
    watch = Watch.of(bank, drawing.reference)
    state = watch.start()
    for look, pixels in enumerate(windows(bank, Shift(), drawing.pool, LOOKS * LOOK_ROWS, LOOK_ROWS, rng), 1):
        state, alarm = watch.advance(state, watch.counts(pixels))
        if alarm:
            return look
    return None


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What the peers see of rows: two numbers, or columns for a stability index."""

    bank: Bank
    mean: np.ndarray
    components: np.ndarray

    @classmethod
    def of(cls, bank: Bank, components: int = 20) -> Numbers:
        """Fit the PCA on the training rows."""
        rows = bank.images.pixels[bank.model.trained].astype(float)
        _, _, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        return cls(bank=bank, mean=rows.mean(0), components=vectors[:components])

    def two(self, pixels: np.ndarray) -> np.ndarray:
        """Return confidence and reconstruction error (n x 2)."""
        rest = pixels - self.mean
        rest = rest - rest @ self.components.T @ self.components
        return np.column_stack([self.bank.model.softmax(pixels).max(1), np.sqrt((rest**2).mean(1))])

    def columns(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels, predicted label and both numbers (n x columns)."""
        label = self.bank.model.softmax(pixels).argmax(1) + 0.5
        return np.column_stack([pixels, label, self.two(pixels)])


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream of healthy traffic and what may follow it."""

    #: By way of ours: whether it alarmed in the healthy stretch, and else the delay of each shift in samples.
    ours: Mapping[str, tuple[bool, Mapping[str, int | None]]]
    numbers: Mapping[str, np.ndarray]
    #: The greatest stability index by window length: of the healthy stretch, and after each STEP of each shift.
    psi: Mapping[int, Mapping[str, np.ndarray]]


def run_stream(bank: Bank, numbers: Numbers, seed: int, number: int, shifts: Mapping[str, Shift]) -> Stream:
    """Run ours over one stream, and write down what the peers need."""
    rng = np.random.default_rng([seed, number, 5])
    drawing = Drawing.bootstrap(bank.model.others, HEALTHY, rng)
    healthy = list(windows(bank, Shift(), drawing.pool, HEALTHY, STEP, rng))
    after = {name: list(windows(bank, shift, drawing.pool, AFTER, STEP, rng)) for name, shift in shifts.items()}
    mine = run_ours(Watch.of(bank, drawing.reference), healthy, after) if shifts else {}
    index = drift_peers.Psi.of(numbers.columns(bank.images.pixels[drawing.reference]))
    before = np.array([index.counts(numbers.columns(rows)) for rows in healthy])
    counted = {name: np.array([index.counts(numbers.columns(rows)) for rows in parts]) for name, parts in after.items()}
    psi = {}
    for length in PSI_WINDOWS:
        steps = length // STEP
        tail = before[len(before) - steps + 1 :]
        series = {name: sliding(np.concatenate([tail, rows]), steps) for name, rows in counted.items()}
        psi[length] = {name: index.most(rows) for name, rows in {"healthy": sliding(before, steps), **series}.items()}
    two = {"healthy": np.concatenate([numbers.two(rows) for rows in healthy])}
    two |= {name: np.concatenate([numbers.two(rows) for rows in parts]) for name, parts in after.items()}
    return Stream(ours=mine, numbers=two, psi=psi)


def sliding(counts: np.ndarray, steps: int) -> np.ndarray:
    """Return the sums of every `steps` consecutive entries."""
    total = np.concatenate([np.zeros_like(counts[:1]), counts.cumsum(0)])
    return total[steps:] - total[:-steps]


def run_ours(
    watch: Watch, healthy: Sequence[np.ndarray], after: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, tuple[bool, dict[str, int | None]]]:
    """Run both ways of ours over one stream."""
    before = [watch.counts(pixels) for pixels in healthy]
    counted = {name: [watch.counts(pixels) for pixels in parts] for name, parts in after.items()}
    ways = {OURS: watch, OURS_ANY: watch.but(ANY_EFFECT)}
    return {name: run_way(way, before, counted) for name, way in ways.items()}


def run_way(
    watch: Watch, healthy: Sequence[TrafficCounts], after: Mapping[str, Sequence[TrafficCounts]]
) -> tuple[bool, dict[str, int | None]]:
    """Return whether there is an alarm in the healthy stretch, and else the delay of each shift."""
    state = watch.start()
    for counts in healthy:
        state, alarm = watch.advance(state, counts)
        if alarm:
            return True, {}
    delays = dict[str, int | None]()
    for name, parts in after.items():
        now, delays[name] = state, None
        for at, counts in enumerate(parts, 1):
            now, alarm = watch.advance(now, counts)
            if alarm:
                delays[name] = at * STEP
                break
    return False, delays


def psi_delays(calibration: Sequence[Stream], streams: Sequence[Stream], length: int) -> dict[str, Any]:
    """Calibrate the threshold of one window length and return its false alarms and delays."""
    threshold = float(np.quantile([one.psi[length]["healthy"].max() for one in calibration], 1 - RATE, method="higher"))
    false = [one.psi[length]["healthy"].max() > threshold for one in streams]
    delays: dict[str, list[int | None]] = {}
    for one, alarmed in zip(streams, false, strict=True):
        for name in SHIFTS if not alarmed else ():
            over = np.flatnonzero(one.psi[length][name] > threshold)
            delays.setdefault(name, []).append(int(over[0] + 1) * STEP if len(over) else None)
    return {"false_alarms": float(np.mean(false)), "delays": delays, "setting": f"threshold {threshold:.2f}"}


def write_river(calibration: Sequence[Stream], streams: Sequence[Stream], target: Path) -> None:
    """Write what drift_river.py reads."""
    arrays = {f"shifted|{name}": np.array([one.numbers[name] for one in streams]) for name in SHIFTS}
    arrays["calibration"] = np.array([one.numbers["healthy"] for one in calibration])
    arrays["healthy"] = np.array([one.numbers["healthy"] for one in streams])
    np.savez(target, rate=RATE, names=np.array(NUMBERS), **arrays)


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return median, restricted mean and share found of the delays of one detector."""
    out: dict[str, Any] = {key: value for key, value in found.items() if key != "delays"}
    for name in SHIFTS:
        delays = found["delays"].get(name, [])  # none where every run alarmed before the change
        capped = np.array([AFTER if delay is None else delay for delay in delays] or [AFTER], float)
        seen = sum(delay is not None for delay in delays) / max(1, len(delays))
        out[name] = {
            "median": float(np.median(capped)),
            "mean": round(float(capped.mean()), 1),
            "error": round(float(capped.std()) / math.sqrt(len(capped)), 1),
            "found": round(seen, 3),
            "runs": len(delays),
        }
    return out


def delays_of(streams: Sequence[Stream]) -> dict[str, Any]:
    """Return ours in the form of the peers, by way."""
    out = {}
    for way in (OURS, OURS_ANY):
        well = [one.ours[way][1] for one in streams if not one.ours[way][0]]
        delays = {name: [found[name] for found in well] for name in SHIFTS}
        share = float(np.mean([one.ours[way][0] for one in streams]))
        out[way] = {"false_alarms": share, "delays": delays, "setting": f"alpha {RATE}, not calibrated"}
    return out


def misses(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return for which shifts a peer's mean delay is shorter than ours without thresholds, by more than the noise."""
    out = []
    for shift in SHIFTS:
        mine = rows[OURS_ANY][shift]
        best, name = min((row[shift]["mean"], name) for name, row in rows.items() if name not in (OURS, OURS_ANY))
        if mine["mean"] - 2 * mine["error"] > best:
            out.append(f"delay, {shift}: {mine['mean']:g} samples, {name} has {best:g}")
    return out


def show(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table of the delays."""
    print(f"\nSamples from change to alarm: mean (median; share found within {AFTER}; one not found counts {AFTER})\n")
    print(
        f"| detector | setting | false alarms in {HEALTHY} | {' | '.join(SHIFTS)} |\n|---|---|---"
        + "|---" * len(SHIFTS)
        + "|"
    )
    for name, row in rows.items():
        cells = [f"{row[s]['mean']:.0f} ({row[s]['median']:.0f}; {row[s]['found']:.2f})" for s in SHIFTS]
        print(f"| {name} | {row['setting']} | {row['false_alarms']:.3f} | " + " | ".join(cells) + " |")


def read_river(target: Path) -> dict[str, Any]:
    """Return the delays that drift_river.py wrote."""
    return json.loads(target.read_text())
