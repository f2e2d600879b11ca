"""The table of the digits: false alarms and detection of one look at a batch, beside Evidently's default.

Each repetition shuffles reference and pool anew (drift_data.Drawing.disjoint) under one of MODELS models, so its
batches are independent of those of other repetitions, and the null hypothesis holds for them exactly. Evidently gets
the batches of the first repetitions, with two references: the 640 rows that ours has (up to 1,000 rows its default is
a Kolmogorov-Smirnov test of each column), and 1,200 (these and the training rows; beyond 1,000 it is a distance).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import drift_peers
from drift_data import Drawing
from drift_ours import Look, Watch
from drift_shifts import DIGITS, Bank

SIZES = (50, 100, 200, 500)
MODELS = 10
#: Bars of the issue: false alarms at every n, and detection at n = 200.
MOST_FALSE, LEAST_FOUND, BAR_SIZE = 0.05, 0.97, 200

Cell = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What one reference and its batches gave."""

    looks: Mapping[Cell, Look]
    #: For the peers: reference rows, those with the training rows, and the batches; empty where nobody asked.
    references: Mapping[str, np.ndarray] = field(default_factory=dict)
    batches: Mapping[Cell, np.ndarray] = field(default_factory=dict)


def repeat(bank: Bank, seed: int, number: int, keep: bool) -> Repetition:
    """Run one repetition."""
    rng = np.random.default_rng([seed, number, 3])
    images, model = bank.images, bank.model
    drawing = Drawing.disjoint(model.others, images.reference, rng)
    watch = Watch.of(bank, drawing.reference)
    looks, batches = {}, {}
    for name, shift in DIGITS.items():
        for n in SIZES:
            pixels = bank.batch(shift, drawing.pool, n, rng, again=False)
            looks[name, n] = watch.look(watch.counts(pixels))
            if keep:
                batches[name, n] = pixels
    if not keep:
        return Repetition(looks=looks)
    own, large = drawing.reference, np.concatenate([drawing.reference, model.trained])
    references = {"640 rows": images.pixels[own], "1200 rows": images.pixels[large]}
    return Repetition(looks=looks, references=references, batches=batches)


def start_evidently(kept: list[Repetition], folder: Path) -> subprocess.Popen[str]:
    """Write the batches and let Evidently judge them, in a process of its own."""
    arrays = {}
    for name in kept[0].references:
        arrays[f"reference|{name}"] = np.array([one.references[name] for one in kept])
        for shift, n in kept[0].batches:
            stack = np.array([one.batches[shift, n] for one in kept])
            arrays[f"current|{name}|{shift} / {n}"] = stack
    np.savez(folder / "evidently.npz", **arrays)
    return drift_peers.start("evidently", "drift_evidently.py", folder / "evidently.npz", folder / "evidently.json")


def shares(found: list[Repetition]) -> dict[str, dict[str, Any]]:
    """Return by shift and n how many batches drifted, were inconclusive, and which kind of test found it."""
    out: dict[str, dict[str, Any]] = {}
    for shift, n in found[0].looks:
        looks = [one.looks[shift, n] for one in found]
        kinds = sorted({kind for look in looks for kind in look.kinds})
        out.setdefault(shift, {})[str(n)] = {
            "drift": round(sum(look.drift for look in looks) / len(looks), 4),
            "inconclusive": round(sum(look.inconclusive for look in looks) / len(looks), 4),
            "found by": {kind: round(sum(kind in look.kinds for look in looks) / len(looks), 3) for kind in kinds},
        }
    return out


def misses(ours: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return where the point estimates miss the bars."""
    out = [
        f"{share['drift']:.1%} of the healthy batches of {n} are called drift, the bar is {MOST_FALSE:.0%}"
        for n, share in ours["none"].items()
        if share["drift"] > MOST_FALSE
    ]
    for shift in set(DIGITS) - {"none"}:
        found = ours[shift][str(BAR_SIZE)]["drift"]
        if found < LEAST_FOUND:
            out.append(f"{shift} is found in {found:.1%} of the batches of {BAR_SIZE}, the bar is {LEAST_FOUND:.0%}")
    return out


def peer_shares(target: Path) -> dict[str, Any]:
    """Return Evidently's shares in the form of ours, by reference."""
    document: dict[str, Any] = {}
    for name, cells in json.loads(target.read_text()).items():
        for cell, counted in cells.items():
            shift, n = cell.split(" / ")
            share = {"drift": counted["drift"] / counted["batches"], "batches": counted["batches"]}
            document.setdefault(name, {}).setdefault(shift, {})[n] = {
                **share,
                "any column": counted["any"] / counted["batches"],
            }
    return document


def show(ours: Mapping[str, Any], peers: Mapping[str, Any], batches: int) -> None:
    """Print the table."""
    print(f"\n| detector | n | {' | '.join(DIGITS)} |" + "\n|---|---" + "|---" * len(DIGITS) + "|")
    rows = {f"ours, reference of 640 rows, {batches} batches": ours}
    rows |= {f"Evidently 0.7.23, reference of {name}": shares for name, shares in peers.items()}
    for name, table in rows.items():
        for n in map(str, SIZES):
            print(f"| {name} | {n} | " + " | ".join(f"{table[shift][n]['drift']:.3f}" for shift in DIGITS) + " |")
