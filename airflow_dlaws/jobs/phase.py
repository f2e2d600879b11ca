"""The phases of a job, whatever engine runs it, and SageMaker's words for them."""

from __future__ import annotations

import enum


class JobPhase(enum.StrEnum):
    """Where a job is. `STOPPED` is terminal and is not success."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


TERMINAL = frozenset({JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.STOPPED})

#: DescribeTrainingJob's TrainingJobStatus. A job over its runtime limit is Stopped there, not Failed.
SAGEMAKER_PHASES = {
    "InProgress": JobPhase.RUNNING,
    "Stopping": JobPhase.STOPPING,
    "Completed": JobPhase.SUCCEEDED,
    "Failed": JobPhase.FAILED,
    "Stopped": JobPhase.STOPPED,
    "Deleting": JobPhase.STOPPED,
}


def is_terminal(phase: JobPhase) -> bool:
    """Tell whether the job will not change any more."""
    return phase in TERMINAL
