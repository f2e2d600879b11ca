"""The protocol of Failing Loudly (arXiv 1810.11953) on MNIST-5k: power by family of shifts and size, beside BBSDs.

As in the paper: ten families of shifts, each at three sizes; batches of 10 to 10,000 rows; alpha 5 %; the power of a
family is the share of its batches called drift. Other than there: 1,800 training rows and 1,800 of reference (BBSDs
gets all of them, and so more power than the paper's as many as the batch has), one classifier for each of MODELS
splits instead of one in all, more repetitions than 5, and batches of 10,000 are drawn with replacement
(drift_data.Drawing.bootstrap), as the set has 5,000 images. Only zeros go up to 1,000 rows, as in the paper.

The two are compared on the same batches. BBSDs has no practical threshold: any significant change is drift to it. So
ours is compared without its own; what it says with them, as shipped, stands beside. Ours misses the bar in a row where
it is weaker by more than twice the standard error of the paired difference; the note says which of its families of
tests found the drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import drift_peers
from drift_data import Drawing
from drift_ours import ANY_EFFECT, Look, Watch
from drift_shifts import FAMILIES, Bank, Shift

SIZES = (10, 20, 50, 100, 200, 500, 1000)
#: More rows than there are: drawn with replacement.
LARGE = 10_000
MODELS = 3
#: Of these batches the set has none of 10,000 to speak of: some 300 zeros.
UP_TO_1000 = ("only zero + medium image",)
HEALTHY = "none (false alarms)"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One batch and both verdicts."""

    family: str
    n: int
    ours: Look
    #: With the thresholds of the effect as shipped.
    shipped: Look
    bbsd: bool


def repeat(bank: Bank, seed: int, number: int, large: bool) -> list[Judged]:
    """Judge one batch of each shift and size against one reference."""
    rng = np.random.default_rng([seed, number, 6])
    kind = Drawing.bootstrap if large else Drawing.disjoint
    drawing = kind(bank.model.others, bank.images.reference, rng)
    watch = Watch.of(bank, drawing.reference)
    softmax = bank.model.softmax(bank.images.pixels[drawing.reference])
    out = []
    for family, shifts in {HEALTHY: (Shift(),) * 3, **FAMILIES}.items():
        for shift in shifts:
            for n in (LARGE,) if large else SIZES:
                if n <= 1000 or family not in UP_TO_1000:
                    # There are some 300 zeros: what only they may fill is drawn with replacement beyond their number.
                    again = large or (shift.only_zero and n > 100)
                    pixels = bank.batch(shift, drawing.pool, n, rng, again=again)
                    answers = bank.model.softmax(pixels)
                    counts = watch.counts(pixels, answers)
                    mine, shipped = watch.but(ANY_EFFECT).look(counts), watch.look(counts)
                    theirs = drift_peers.bbsd(softmax, answers)
                    out.append(Judged(family=family, n=n, ours=mine, shipped=shipped, bbsd=theirs))
    return out


def powers(judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """Return by family and n the power of both, the paired error, and who found it."""
    cells: dict[tuple[str, int], list[Judged]] = {}
    for one in judged:
        cells.setdefault((one.family, one.n), []).append(one)
    out: dict[str, dict[str, Any]] = {}
    for (family, n), rows in cells.items():
        mine, theirs = (
            np.array([pick(one) for one in rows], float) for pick in (lambda o: o.ours.drift, lambda o: o.bbsd)
        )
        kinds = sorted({kind for one in rows for kind in one.ours.kinds})
        out.setdefault(family, {})[str(n)] = {
            "ours": round(float(mine.mean()), 4),
            "shipped": round(sum(one.shipped.drift for one in rows) / len(rows), 4),
            "bbsds": round(float(theirs.mean()), 4),
            "error": round(float((mine - theirs).std(ddof=1)) / math.sqrt(len(rows)), 4),
            "batches": len(rows),
            "inconclusive": round(sum(one.ours.inconclusive for one in rows) / len(rows), 4),
            "found by": {kind: round(sum(kind in one.ours.kinds for one in rows) / len(rows), 3) for kind in kinds},
        }
    return out


def gaps(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the rows in which ours is weaker by more than the noise, with what is known of the reason."""
    return [
        f"{family}, n = {n}: {cell['ours']:.3f}, BBSDs {cell['bbsds']:.3f} (± {2 * cell['error']:.3f}); {note(cell)}"
        for family, cells in table.items()
        if family != HEALTHY
        for n, cell in cells.items()
        if cell["ours"] < cell["bbsds"] - 2 * cell["error"] and cell["ours"] < cell["bbsds"]
    ]


def note(cell: Mapping[str, Any]) -> str:
    """Say what found the drift, and what a gap comes from."""
    by = max(cell["found by"], key=cell["found by"].get) if cell["found by"] else "nothing"
    told = f"{by} {cell['found by'].get(by, 0):.2f}"
    if cell["inconclusive"]:
        told += f", {cell['inconclusive']:.0%} inconclusive"
    if cell["ours"] < cell["bbsds"]:
        told += "; BBSDs spends all of alpha on the softmax, ours a share"
    return told


def show(table: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table, a row for each family and n."""
    header = ("family", "n", "ours", "BBSDs", "paired error", "ours as shipped", "batches", "note")
    print(f"\n| {' | '.join(header)} |\n" + "|---" * len(header) + "|")
    for family, cells in table.items():
        for n, cell in cells.items():
            shares = [f"{cell[name]:.3f}" for name in ("ours", "bbsds", "error", "shipped")]
            told = "" if family == HEALTHY else note(cell)
            print("| " + " | ".join([family, n, *shares, str(cell["batches"]), told]) + " |")
