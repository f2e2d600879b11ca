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


class FailureKind(enum.StrEnum):
    """Whose fault a failed job was; each kind has its own retry behaviour."""

    #: The script raised, ran out of memory, or the input was wrong: the same job would fail again.
    ALGORITHM = "algorithm"
    #: The request was wrong in a way only the running job could show (no objects under the input prefix).
    CLIENT = "client"
    #: No instances to be had.
    CAPACITY = "capacity"
    #: AWS's own fault.
    INTERNAL = "internal"


RETRYABLE_FAILURES = frozenset({FailureKind.CAPACITY, FailureKind.INTERNAL})


def failure_kind(reason: str) -> FailureKind:
    """Classify a SageMaker FailureReason by the word it starts with, or by the capacity wording.

    What the script itself says (AlgorithmError) may speak of anything, capacity too.
    """
    if reason.startswith("AlgorithmError"):
        return FailureKind.ALGORITHM
    if "capacity" in reason.lower():
        return FailureKind.CAPACITY
    if reason.startswith("InternalServerError"):
        return FailureKind.INTERNAL
    if reason.startswith("ClientError"):
        return FailureKind.CLIENT
    return FailureKind.ALGORITHM
