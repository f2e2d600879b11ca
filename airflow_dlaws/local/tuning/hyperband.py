"""Which children of a tuning job Hyperband stops. Pure decisions; AWS does not publish its own brackets and rungs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from airflow_dlaws.local.tuning.stopping import Running, Series, worse

#: The reduction factor in the paper (Li et al. 2018).
_REDUCTION = 3
#: AWS infers MaxResource from one of these static hyperparameters where it is not given (HyperbandStrategyConfig).
INFERRED_FROM = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")


class HyperbandRule:
    """Asynchronous successive halving (Li et al. 2020) over the brackets of Hyperband.

    A job belongs to the bracket of its number. When its series reaches a rung of that bracket it goes on if it is
    among the best third of those that have reached this rung so far, itself included; the first ones always go on.
    """

    def __init__(self, *, least: int, most: int, minimize: bool) -> None:
        self._rungs, self._most, self._minimize = rungs(least, most), most, minimize
        self._seen: dict[tuple[int, int], list[float]] = {}
        self._judged: dict[int, int] = {}

    def stops(self, job: Running, completed: Iterable[Series]) -> bool:
        """See `StoppingRule`."""
        start = self._judged.get(job.number, 0)
        self._judged[job.number] = len(job.series)
        return any(self._stops_at(job, resource) for resource in range(start + 1, len(job.series) + 1))

    def _stops_at(self, job: Running, resource: int) -> bool:
        if resource >= self._most:  # "Once a job reaches the MaxResource value, it is stopped"
            return True
        bracket = job.number % max(1, len(self._rungs))
        if resource not in self._rungs[bracket:]:
            return False
        seen = self._seen.setdefault((bracket, resource), [])
        value = job.series[resource - 1]
        seen.append(value)
        if len(seen) < _REDUCTION:
            return False
        best = sorted(seen, reverse=not self._minimize)
        return worse(value, best[len(seen) // _REDUCTION - 1], minimize=self._minimize)


def rungs(least: int, most: int) -> list[int]:
    """Return the resources at which Hyperband looks: `least` times powers of three, below `most`."""
    found = []
    while least < most:
        found.append(least)
        least *= _REDUCTION
    return found


def inferred_resource(static: Mapping[str, str]) -> int | None:
    """Return MaxResource as AWS infers it from the static hyperparameters, or None."""
    for name in INFERRED_FROM:
        if static.get(name, "").isdigit() and int(static[name]) >= 1:
            return int(static[name])
    return None
