"""The shifts of Failing Loudly (Rabanser, Günnemann, Lipton, NeurIPS 2019, arXiv 1810.11953).

Sizes are those of the paper's code: gaussian noise of 1, 10 and 100
grey levels of 255; image changes by rotation, shift, shear, zoom and flips; the class 0 knocked out; only the class 0;
adversarial images; each on the share `delta` of the rows. What the paper applies to all test rows and then samples is
applied to the sample here: each row is changed with probability delta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from drift_data import Images
from drift_models import Classifier


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Ranges of a random change of an image: degrees, shares of the side, degrees, share, and flips."""

    rotation: float
    shift: tuple[float, float]
    shear: float
    zoom: float
    flips: tuple[bool, bool] = (False, False)


#: (rotation, width and height shift, shear, zoom, horizontal and vertical flip) of the paper's code.
WARPS = {
    "small image": Warp(rotation=10, shift=(0.05, 0.05), shear=0.1, zoom=0.1),
    "medium image": Warp(rotation=40, shift=(0.2, 0.2), shear=0.2, zoom=0.2, flips=(True, False)),
    "large image": Warp(rotation=90, shift=(0.4, 0.4), shear=0.3, zoom=0.4, flips=(True, True)),
}


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What happens to the rows of a batch. All parts default to nothing: the healthy batch."""

    #: Standard deviation of the noise, in units of the full scale.
    noise: float = 0.0
    warp: str = ""
    adversarial: bool = False
    #: The share of rows that noise, warp or attack change.
    delta: float = 1.0
    #: The share of the class 0 that is taken out; only_zero leaves nothing else.
    knock_out: float = 0.0
    only_zero: bool = False

    def places(self, labels: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator, again: bool) -> np.ndarray:
        """Draw n places of the pool (`again`: with replacement).

        :raises ValueError: the pool has fewer rows than are to be drawn without replacement.
        """
        zero = labels[pool] == 0
        left = np.where(zero, 1 - self.knock_out, 0.0 if self.only_zero else 1.0)
        if again:
            return rng.choice(pool, n, p=left / left.sum())
        kept = pool[rng.random(len(pool)) < left]
        if n > len(kept):
            raise ValueError(f"{n} rows of {len(kept)} cannot be drawn without replacement: make the pool larger")
        return rng.choice(kept, n, replace=False)


class Bank:
    """The images of a data set as a shift leaves them; what is costly is computed once for a model.

    Each image has one warp and one attack, as in the paper's code, which shifts all test rows and then samples them.
    """

    def __init__(self, images: Images, model: Classifier, seed: int) -> None:
        self.images, self.model, self._seed = images, model, seed
        self._changed: dict[str, np.ndarray] = {}

    def batch(self, shift: Shift, pool: np.ndarray, n: int, rng: np.random.Generator, *, again: bool) -> np.ndarray:
        """Return n shifted rows of the pool (float32, n x pixels); each is changed with probability delta."""
        places = shift.places(self.images.labels, pool, n, rng, again)
        out, hit = self.images.pixels[places], rng.random(n) < shift.delta
        if shift.warp or shift.adversarial:
            out[hit] = self.changed(shift.warp or "adversarial")[places[hit]]
        if shift.noise:
            out[hit] = np.clip(out[hit] + rng.normal(0, shift.noise, out[hit].shape), 0, 1)
        return out

    def changed(self, how: str) -> np.ndarray:
        """Return all images, those that the model was not trained on changed."""
        if how not in self._changed:
            out, others = self.images.pixels.copy(), self.model.others
            if how == "adversarial":
                out[others] = self.model.adversarial(out[others], self.images.labels[others])
            else:
                rng = np.random.default_rng([self._seed, list(WARPS).index(how), 2])
                out[others] = [warped(row, WARPS[how], rng) for row in out[others]]
            self._changed[how] = out
        return self._changed[how]


def warped(row: np.ndarray, warp: Warp, rng: np.random.Generator) -> np.ndarray:
    """Return one image (flat, side * side) after a random affine change; the border's values go on outside."""
    side = round(len(row) ** 0.5)
    turn, shear = np.deg2rad(rng.uniform(-1, 1, 2) * (warp.rotation, warp.shear))
    scale = rng.uniform(1 - warp.zoom, 1 + warp.zoom, 2)
    moved = rng.uniform(-1, 1, 2) * warp.shift[::-1] * side
    matrix = (
        np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        @ np.array([[1, -np.sin(shear)], [0, np.cos(shear)]])
        @ np.diag(scale)
    )
    centre = np.full(2, (side - 1) / 2)
    offset = centre - matrix @ centre + moved
    image = ndimage.affine_transform(row.reshape(side, side), matrix, offset, order=1, mode="nearest")
    horizontal, vertical = (allowed and rng.random() < 0.5 for allowed in warp.flips)
    image = image[:, ::-1] if horizontal else image
    return (image[::-1] if vertical else image).reshape(-1)


#: The table of the digits: four shifts and the healthy batch.
DIGITS: Mapping[str, Shift] = {
    "none": Shift(),
    "gn .1/.5": Shift(noise=0.1, delta=0.5),
    "gn .3/.1": Shift(noise=0.3, delta=0.1),
    "gn .3/.5": Shift(noise=0.3, delta=0.5),
    "ko 1.0": Shift(knock_out=1.0),
}

_DELTAS = (0.1, 0.5, 1.0)
_FAMILIES: Mapping[str, Callable[[float], Shift]] = {
    "small noise": lambda delta: Shift(noise=1 / 255, delta=delta),
    "medium noise": lambda delta: Shift(noise=10 / 255, delta=delta),
    "large noise": lambda delta: Shift(noise=100 / 255, delta=delta),
    "adversarial": lambda delta: Shift(adversarial=True, delta=delta),
    "knock-out": lambda delta: Shift(knock_out=delta),
    **{name: (lambda delta, name=name: Shift(warp=name, delta=delta)) for name in WARPS},
    "medium image + knock-out": lambda delta: Shift(warp="medium image", delta=0.5, knock_out=delta),
    "only zero + medium image": lambda delta: Shift(warp="medium image", delta=delta, only_zero=True),
}
#: The ten families of the paper, each at three sizes; the power of a family is the mean over its sizes.
FAMILIES: Mapping[str, tuple[Shift, ...]] = {
    name: tuple(make(delta) for delta in _DELTAS) for name, make in _FAMILIES.items()
}
