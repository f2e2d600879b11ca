"""What a job has cost: arithmetic only. Prices come from AWS or from the user; none is built in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars for one hour of one instance, and where that is known from.

    :param usd_per_hour: None where it is not known; `source` says why then.
    """

    usd_per_hour: float | None
    source: str


def spot_saving(billable_seconds: int, training_seconds: int) -> float | None:
    """Return the share of the on-demand price that spot machines have saved; None where nothing ran.

    AWS's formula for managed spot training (DescribeTrainingJob, BillableTimeInSeconds).
    """
    return round(1 - billable_seconds / training_seconds, 4) if training_seconds else None


def estimate(price: Price, *, billable_seconds: int, instances: int, instance_type: str) -> tuple[float | None, str]:
    """Return the cost in US dollars, and the arithmetic behind it; no cost where the price is not known.

    Volumes, storage and transfer are not in it. Spot machines are priced as AWS tells it: fewer billable seconds.
    """
    if price.usd_per_hour is None:
        return None, f"no cost: {price.source}"
    cost = price.usd_per_hour * instances * billable_seconds / _SECONDS_PER_HOUR
    basis = (
        f"{instances} x {billable_seconds} s billed x {price.usd_per_hour:g} USD an hour of {instance_type} "
        f"({price.source}); without volumes, storage and transfer"
    )
    return round(cost, 6), basis


def together(estimates: Sequence[tuple[float | None, str]]) -> tuple[float | None, str]:
    """Return the cost of hosts of several types, each estimated by itself, and the arithmetic behind it.

    None, and why, where one of them is not known.
    """
    for cost, basis in estimates:
        if cost is None:
            return None, basis
    return round(sum(cost or 0.0 for cost, _ in estimates), 6), " plus ".join(basis for _, basis in estimates)
