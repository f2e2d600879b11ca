"""What to try next: the one door to Optuna. A study is made anew from the journal at each question: nothing is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.sweeps.journal import SweepJournal, Trial, TrialState
from airflow_dlaws.sweeps.space import Dimension, DimensionKind, space_size
from airflow_dlaws.sweeps.spec import TRIAL_LIMIT, Direction, Search, SweepSpec

#: Bergstra et al. begin with random points; ten is Optuna's own number, and too many for a sweep of sixteen.
_STARTUP_TRIALS = 10
#: In a small space the same point is drawn again and again: after so many draws the points left are listed.
_DRAWS = 20
#: Spaces of up to so many points are listed; a larger one has more points than a sweep may have trials.
_LISTED = TRIAL_LIMIT


def propose(journal: SweepJournal) -> Mapping[str, Any] | None:
    """Return the parameters of the journal's next trial; None where every point of the space was tried.

    The same journal and seed give the same parameters. Trials that run count as being as bad as the worst so far
    ("constant liar"), so that parallel trials do not all try the same. The random trials that a search begins with are
    the same for every kind of search.

    :raises SpecificationError: Optuna is not installed.
    """
    spec, number = journal.spec, len(journal.trials)
    tried = {_key(trial.parameters) for trial in journal.trials}
    if number < len(spec.initial_trials):
        return dict(spec.initial_trials[number])
    if len(tried) >= space_size(spec.space):
        return None
    for draw in range(_DRAWS):
        parameters = _draw(journal, number, draw)
        if _key(parameters) not in tried:
            return parameters
    return _untried(spec.space, tried, _seed(spec, number, _DRAWS))


def startup_trials(spec: SweepSpec) -> int:
    """Return how many trials are random before the search has something to go by."""
    if spec.search is Search.RANDOM:
        return spec.trials
    return min(_STARTUP_TRIALS, max(spec.parallel_trials, spec.trials // 2))


def _draw(journal: SweepJournal, number: int, draw: int) -> dict[str, Any]:
    optuna = _optuna()
    spec, seed = journal.spec, _seed(journal.spec, number, draw)
    if number < startup_trials(spec):
        sampler = optuna.samplers.RandomSampler(seed=seed)
        past: tuple[Trial, ...] = ()
    else:
        sampler = _tpe(optuna, seed)
        past = journal.trials
    study = optuna.create_study(sampler=sampler, direction=str(spec.direction))
    space = {dimension.name: _distribution(optuna, dimension) for dimension in spec.space}
    for trial in past:
        study.add_trial(_past_trial(optuna, trial, space, spec.direction))
    return dict(study.ask(fixed_distributions=space).params)


def _tpe(optuna: Any, seed: int) -> Any:
    with warnings.catch_warnings():
        # Multivariate sampling and the constant liar are called experimental since 2021; they are what was measured.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True)


def _past_trial(optuna: Any, trial: Trial, space: Mapping[str, Any], direction: Direction) -> Any:
    """Return a trial of the journal as Optuna knows trials; one that was stopped early is a pruned one."""
    states = optuna.trial.TrialState
    reports = {int(report.resource): report.value for report in trial.reports}
    common = {"params": dict(trial.parameters), "distributions": dict(space), "intermediate_values": reports}
    if trial.state is TrialState.COMPLETED:
        return optuna.trial.create_trial(value=trial.value, **common)
    if trial.state is TrialState.FAILED:
        return optuna.trial.create_trial(state=states.FAIL, **common)
    if trial.state in (TrialState.STOPPED, TrialState.STOPPING) and reports:
        return optuna.trial.create_trial(state=states.PRUNED, **common)
    return optuna.trial.create_trial(state=states.RUNNING, **common)


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if dimension.kind is DimensionKind.CHOICE:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    if dimension.kind is DimensionKind.INTEGER:
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return optuna.distributions.FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def _untried(space: tuple[Dimension, ...], tried: set[str], seed: int) -> dict[str, Any] | None:
    """Return a point nobody has tried: one of those left in a small space, a random one in a large space."""
    chance = random.Random(seed)
    if space_size(space) > _LISTED:
        return next(point for _ in iter(int, 1) if _key(point := _random_point(space, chance)) not in tried)
    left: list[dict[str, Any]] = [{}]
    for dimension in space:
        left = [{**point, dimension.name: value} for point in left for value in _values(dimension)]
    left = [point for point in left if _key(point) not in tried]
    return chance.choice(left) if left else None


def _values(dimension: Dimension) -> Sequence[Any]:
    """Return all values of a dimension that has finitely many."""
    if dimension.kind is DimensionKind.CHOICE:
        return dimension.choices
    if dimension.kind is DimensionKind.INTEGER:
        return range(int(dimension.low), int(dimension.high) + 1)
    return (dimension.low,)


def _random_point(space: tuple[Dimension, ...], chance: random.Random) -> dict[str, Any]:
    return {
        dimension.name: chance.choice(_values(dimension))
        if math.isfinite(dimension.size)
        else chance.uniform(dimension.low, dimension.high)
        for dimension in space
    }


def _seed(spec: SweepSpec, number: int, draw: int) -> int:
    digest = hashlib.sha256(f"{spec.seed}/{number}/{draw}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _key(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SpecificationError(
            "a sweep asks Optuna what to try next: pip install airflow-dlaws[sweeps] where the triggerer and the "
            'workers run, or let SageMaker\'s own tuner search (engine="sagemaker")'
        ) from error
    logging.getLogger("optuna").setLevel(logging.WARNING)
    return optuna
