"""ADWIN and KSWIN of river on streams of one number. Runs in river's own virtual environment; imports nothing of ours.

    python drift_river.py IN.npz OUT.json

IN holds `calibration` (S x H x k: healthy), `healthy` (T x H x k) and `shifted|NAME` (T x D x k: what follows), for k
streams. Each detector is calibrated on each stream, by bisection on its own sensitivity, to raise any alarm in
`rate` of the S calibration runs. OUT tells for each detector, stream and NAME the number of samples from the change
to the alarm (null: none in D), for the runs without an alarm before the change, and the share of those with one.
"""

import json
import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
from river import drift
from river.drift import kswin
from scipy import stats


class Remembering:
    """scipy's two-sample KS test of equally many distinct values: its p-value is a function of the statistic."""

    def __init__(self):
        self.known = {}

    def ks_2samp(self, one, two, method):
        """Return (statistic, p-value) as scipy does, computing each p-value once."""
        if len(set(one) | set(two)) < len(one) + len(two):
            return stats.ks_2samp(one, two, method=method)
        order = np.argsort(np.concatenate([one, two]))
        steps = np.cumsum(np.where(order < len(one), 1, -1))
        key = (len(one), len(two), int(np.abs(steps).max()))
        if key not in self.known:
            self.known[key] = tuple(stats.ks_2samp(one, two, method=method))
        return self.known[key]


def check(remembering):
    """Fail where the remembered values are not scipy's."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        one, two = rng.random(30).tolist(), (rng.random(30) ** rng.uniform(0.5, 2)).tolist()
        found, known = remembering.ks_2samp(one, two, "auto"), stats.ks_2samp(one, two, method="auto")
        assert np.allclose(found, tuple(known)), f"{found} is not {known}"


def adwin(sensitivity, seed):
    """Return ADWIN with delta = 10 ** -sensitivity; it draws nothing, so the seed is not used."""
    return drift.ADWIN(delta=10**-sensitivity)


def kswin_of(alpha, seed):
    """Return KSWIN."""
    return drift.KSWIN(alpha=alpha, seed=seed)


def alarm(detector, values):
    """Return after how many values the detector alarms, or None."""
    for at, value in enumerate(values, 1):
        detector.update(value)
        if detector.drift_detected:
            return at
    return None


def least_p(values, seed):
    """Return the least p-value that KSWIN sees in a run without alarms."""
    detector, least = drift.KSWIN(alpha=1e-300, seed=seed), 1.0
    for at, value in enumerate(values, 1):
        detector.update(value)
        if at >= detector.window_size:
            least = min(least, detector.p_value)
    return least


def calibrated_adwin(streams, rate):
    """Return the sensitivity at which the share `rate` of the streams alarms."""
    low, high = 0.0, 60.0
    for _ in range(9):
        middle = (low + high) / 2
        share = np.mean([alarm(adwin(middle, 0), stream) is not None for stream in streams])
        low, high = (middle, high) if share > rate else (low, middle)
    return high


def calibrated_kswin(streams, rate):
    """Return the largest alpha at which at most the share `rate` of the streams alarms."""
    least = np.array([least_p(values, seed + 10_000) for seed, values in enumerate(streams)])
    allowed = [p for p in least if np.mean(least <= p) <= rate]
    return float(max(allowed, default=least.min() / 2))


def judge(make, healthy, shifted, warm):
    """Return the false alarms, and the delays of the runs without one."""
    false = [alarm(make(seed), stream) is not None for seed, stream in enumerate(healthy)]
    delays = {}
    for name, streams in shifted.items():
        delays[name] = []
        for seed, (before, after) in enumerate(zip(healthy, streams, strict=True)):
            if not false[seed]:
                detector = make(seed)
                alarm(detector, before[-warm:])
                delays[name].append(alarm(detector, after))
    return {"false_alarms": float(np.mean(false)), "delays": delays}


def main(source, target):
    """Calibrate and judge both on every stream."""
    kswin.stats = Remembering()
    check(kswin.stats)
    data, out = np.load(source), {}
    rate, names = float(data["rate"]), [str(name) for name in data["names"]]
    shifted = {key.split("|")[1]: data[key] for key in data.files if key.startswith("shifted|")}
    for k, stream in enumerate(names):
        calibration, healthy = data["calibration"][:, :, k], data["healthy"][:, :, k]
        after = {name: rows[:, :, k] for name, rows in shifted.items()}
        sensitivity = calibrated_adwin(calibration, rate)
        made = judge(partial(adwin, sensitivity), healthy, after, healthy.shape[1])
        out[f"ADWIN on {stream}"] = {**made, "setting": f"delta = 1e-{sensitivity:.2f}"}
        alpha = calibrated_kswin(calibration, rate)
        made = judge(partial(kswin_of, alpha), healthy, after, 200)
        out[f"KSWIN on {stream}"] = {**made, "setting": f"alpha = 1e{math.log10(alpha):.2f}"}
        print(stream, "done", flush=True)
    Path(target).write_text(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
