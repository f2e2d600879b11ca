"""The strategy Bayesian, and the choice between the strategies.

AWS's own Bayesian search is not public; here it is Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local.tuning.search import DRAWS, GridSearch, RandomSearch, Search, Values
from airflow_dlaws.local.tuning.space import CategoricalRange, SearchSpace

#: Jobs that it starts with at random; Optuna's own default.
_STARTUP = 10


def make_search(strategy: str, space: SearchSpace, *, seed: int | None, minimize: bool) -> Search:
    """Return the search of a strategy. Hyperband draws its candidates at random (Li et al. 2018)."""
    if strategy == "Grid":
        return GridSearch(space)
    if strategy == "Bayesian":
        return BayesianSearch(space, seed=seed, minimize=minimize)
    return RandomSearch(space, seed=seed)


class BayesianSearch:
    """Optuna's TPE on the unit interval of each range; jobs that still run count as unpromising for now."""

    def __init__(self, space: SearchSpace, *, seed: int | None, minimize: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=_STARTUP
            )
        self._space, self._fallback = space, RandomSearch(space, seed=seed)
        self._study = optuna.create_study(direction="minimize" if minimize else "maximize", sampler=sampler)
        self._distributions: dict[str, Any] = {
            part.name: (
                optuna.distributions.CategoricalDistribution(part.values)
                if isinstance(part, CategoricalRange)
                else optuna.distributions.FloatDistribution(0.0, 1.0)
            )
            for part in space.ranges
        }
        self._failed = optuna.trial.TrialState.FAIL
        self._trials: dict[tuple[tuple[str, str], ...], Any] = {}

    def ask(self) -> Values | None:
        """See `Search`."""
        for _ in range(DRAWS):
            trial = self._study.ask(self._distributions)
            values = self._spelled(trial.params)
            if self._fallback.claim(values):
                self._trials[_key(values)] = trial
                return values
            self._study.tell(trial, state=self._failed)
        return self._fallback.ask()

    def tell(self, values: Values, objective: float | None) -> None:
        """See `Search`."""
        trial = self._trials.pop(_key(values), None)
        if trial is None:  # one of the fallback's: the model does without it
            return
        if objective is None:
            self._study.tell(trial, state=self._failed)
        else:
            self._study.tell(trial, objective)

    def _spelled(self, parameters: Mapping[str, Any]) -> dict[str, str]:
        return {
            part.name: (
                str(parameters[part.name])
                if isinstance(part, CategoricalRange)
                else part.spell(float(parameters[part.name]))
            )
            for part in self._space.ranges
        }


def _key(values: Values) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))
