"""A training job of a tuning job, as its tuning job counts, judges and lists it."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.local.training_job import TrainingJob, TrainingStatus

_RUNNING = frozenset({TrainingStatus.IN_PROGRESS, TrainingStatus.STOPPING})
#: What its row has from its own description.
_DESCRIBED = (
    "TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingStartTime", "TrainingEndTime", "TrainingJobStatus",
    "FailureReason",
)  # fmt: skip


class ObjectiveStatus(enum.StrEnum):
    """ObjectiveStatus of a training job."""

    SUCCEEDED = "Succeeded"
    PENDING = "Pending"
    FAILED = "Failed"


@dataclass(frozen=True)
class Child:
    """A training job of a tuning job.

    :param values: the hyperparameters that it tries.
    :param judged_by: Type and MetricName of the tuning job's objective.
    :param definition: DefinitionName of the tuning job's training job definition, if it has one.
    """

    job: TrainingJob
    values: Mapping[str, str]
    judged_by: Mapping[str, str]
    definition: str | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.job.status in _RUNNING

    @property
    def series(self) -> Sequence[float]:
        """What it has reported of the objective metric."""
        return self.job.observations(self.judged_by["MetricName"])

    @property
    def objective(self) -> float | None:
        """The last value it has reported, once it has ended well or was stopped; None where that is no finite number.

        That a job which was stopped early counts is assumed; Hyperband stops its best jobs at MaxResource.
        """
        series = self.series
        if self.job.status not in {TrainingStatus.COMPLETED, TrainingStatus.STOPPED} or not series:
            return None
        return series[-1] if math.isfinite(series[-1]) else None

    @property
    def objective_status(self) -> ObjectiveStatus:
        """How its objective stands."""
        if self.running:
            return ObjectiveStatus.PENDING
        return ObjectiveStatus.FAILED if self.objective is None else ObjectiveStatus.SUCCEEDED

    @property
    def kind(self) -> str:
        """Which of the TrainingJobStatusCounters counts it."""
        if self.running:
            return "InProgress"
        if self.job.status is not TrainingStatus.FAILED:
            return str(self.job.status)
        internal = str(self.job.describe()["FailureReason"]).startswith("InternalServerError")
        return "RetryableError" if internal else "NonRetryableError"

    def summary(self) -> dict[str, Any]:
        """Return its row in ListTrainingJobsForHyperParameterTuningJob; absent members are None."""
        described, objective = self.job.describe(), self.objective
        return {
            "TrainingJobDefinitionName": self.definition,
            **{member: described.get(member) for member in _DESCRIBED},
            "TunedHyperParameters": dict(self.values),
            "FinalHyperParameterTuningJobObjectiveMetric": (
                None if objective is None else {**self.judged_by, "Value": objective}
            ),
            "ObjectiveStatus": self.objective_status,
        }
