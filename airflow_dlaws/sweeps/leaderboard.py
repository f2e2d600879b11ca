"""How a sweep stands, for people and for the tasks that follow: the leaderboard, and the small result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.sweeps.decide import summary
from airflow_dlaws.sweeps.journal import SweepJournal, Trial, TrialState
from airflow_dlaws.sweeps.spec import Direction


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One trial on the leaderboard.

    :param value: the objective at the end of a completed trial.
    :param last_value: the last objective that was reported, `at` so much of the resource.
    :param reports: (resource, objective) pairs, ascending.
    """

    trial: int
    state: TrialState
    parameters: Mapping[str, Any]
    value: float | None = None
    last_value: float | None = None
    at: float | None = None
    billable_seconds: float = 0.0
    job_name: str = ""
    artifact_uri: str | None = None
    reason: str = ""
    reports: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """A sweep's trials, the best first: completed ones by their objective, then the others by how far they came.

    :param engine: who has searched, "optuna" or "sagemaker".
    """

    sweep: str
    engine: str
    objective: str
    direction: Direction
    resource: str
    summary: str
    ended: bool
    ending: str
    ending_reason: str
    billable_seconds: float
    standings: tuple[Standing, ...]

    @property
    def best(self) -> Standing | None:
        """The best completed trial."""
        first = self.standings[0] if self.standings else None
        return first if first and first.state is TrialState.COMPLETED else None


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep's task hands on through XCom.

    :param best_parameters: hyperparameters of the best trial, those of the space alone.
    :param artifact_uri: the best trial's model archive; `output_uri` the archive of what else it has left, and
        `job_name`, `job_arn`, `metrics` and `manifest_uri` are of its training job: a sweep is registered as a
        training is.
    :param billable_seconds: instance-seconds of all trials.
    :param trials: how many trials ended in which state.
    :param ending: why no more trials were tried: "exhausted" or "budget"; SageMaker's own words with its tuner.
    """

    sweep: str
    best_trial: int
    best_value: float
    best_parameters: Mapping[str, Any]
    objective: str
    job_name: str
    job_arn: str
    artifact_uri: str
    output_uri: str
    metrics: Mapping[str, float]
    manifest_uri: str
    billable_seconds: float
    trials: Mapping[str, int]
    ending: str
    leaderboard_uri: str
    report_uri: str


def leaderboard_of(journal: SweepJournal, engine: str = "optuna") -> Leaderboard:
    """Return the leaderboard of a sweep of ours."""
    spec = journal.spec
    return Leaderboard(
        sweep=journal.name,
        engine=engine,
        objective=spec.objective,
        direction=spec.direction,
        resource=spec.early_stopping.resource if spec.early_stopping else "epoch",
        summary=summary(journal),
        ended=journal.ended_at is not None,
        ending=str(journal.ending or ""),
        ending_reason=journal.ending_reason,
        billable_seconds=journal.cost,
        standings=ranked([_standing(trial) for trial in journal.trials], spec.direction),
    )


def ranked(standings: Sequence[Standing], direction: Direction) -> tuple[Standing, ...]:
    """Return the standings, the best first."""

    def key(standing: Standing) -> tuple[bool, float, float, int]:
        done = standing.state is TrialState.COMPLETED and standing.value is not None
        value = standing.value if done else standing.last_value
        ordered = direction.key(value) if value is not None else float("inf")
        return not done, 0.0 if done else -(standing.at or 0.0), ordered, standing.trial

    return tuple(sorted(standings, key=key))


def _standing(trial: Trial) -> Standing:
    last = trial.reports[-1] if trial.reports else None
    return Standing(
        trial=trial.number,
        state=trial.state,
        parameters=trial.parameters,
        value=trial.value,
        last_value=last.value if last else None,
        at=last.resource if last else None,
        billable_seconds=trial.cost,
        job_name=trial.job.name if trial.job else "",
        artifact_uri=trial.artifact_uri,
        reason=trial.reason,
        reports=tuple((report.resource, report.value) for report in trial.reports),
    )
