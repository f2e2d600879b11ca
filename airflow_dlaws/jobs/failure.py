"""Why a job ended without success, and what helps: one table for every engine. Pure decisions.

Each kind says whether trying again can help, and the way out. A job that is started again after the infrastructure's
fault gets the same checkpoint location (`jobs/checkpoints.py`), so it goes on where the last one was.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class FailureKind(enum.StrEnum):
    """Why a job ended without success; each kind has its own retry behaviour."""

    #: The script raised, ran out of memory, or the input was wrong: the same job would fail again.
    ALGORITHM = "algorithm"
    #: The request was wrong in a way only the running job could show (no objects under the input prefix).
    CLIENT = "client"
    #: The job's role, a key or a repository policy does not allow what the job needs.
    ACCESS = "access"
    #: No instances to be had.
    CAPACITY = "capacity"
    #: Pending for longer than the request allows (MaxPendingTimeInSeconds): no instances either.
    PENDING_TIME = "pending time"
    #: AWS's own fault.
    INTERNAL = "internal"
    #: Spot instances were taken away, or never came, and the time to wait for others is over.
    SPOT = "spot interruption"
    #: The job ran for as long as the request allows.
    RUN_TIME = "run time"
    #: A spot job that was not interrupted had not ended within the time to wait.
    WAIT_TIME = "wait time"
    #: Somebody stopped it, in the console or through the API.
    STOPPED = "stopped"


@dataclass(frozen=True)
class Behaviour:
    """What a task does about a kind of failure.

    :param permanent: trying again is bound to end the same way, and is paid for again.
    :param way_out: a sentence for the person who reads the task's log.
    """

    permanent: bool
    way_out: str


_RETRY = "A retry of the task starts another job"
BEHAVIOUR = {
    FailureKind.ALGORITHM: Behaviour(
        True, "Fix the script and clear the task: a retry would pay again for the same error."
    ),
    FailureKind.CLIENT: Behaviour(True, "Correct the request (data, image, permissions) and clear the task."),
    FailureKind.ACCESS: Behaviour(
        True,
        "Allow it in the policies of the job's role (role_arn), of the key (kms_key_id) or of the repository, and "
        "clear the task.",
    ),
    FailureKind.CAPACITY: Behaviour(
        False,
        f"{_RETRY}. Set capacity_wait to keep trying without using up retries; or ask for another instance type.",
    ),
    FailureKind.PENDING_TIME: Behaviour(
        False, f"{_RETRY}. Raise the time that it may be pending; or ask for another instance type."
    ),
    FailureKind.INTERNAL: Behaviour(
        False, f"The fault was AWS's. {_RETRY}, which goes on from the last checkpoint if the script writes any."
    ),
    FailureKind.SPOT: Behaviour(
        False,
        f"{_RETRY}, which goes on from the last checkpoint. Raise max_wait_s, or set spot=False if it is urgent.",
    ),
    FailureKind.RUN_TIME: Behaviour(
        True,
        "Raise max_runtime_s, or make the job shorter, and clear the task; with resume_on_clear=True it goes on from "
        "the last checkpoint.",
    ),
    FailureKind.WAIT_TIME: Behaviour(
        True,
        "Raise max_wait_s, or make the job shorter, and clear the task; with resume_on_clear=True it goes on from the "
        "last checkpoint.",
    ),
    FailureKind.STOPPED: Behaviour(
        True,
        "It was stopped by a user, in the console or through the API. Clear the task to start another one; with "
        "resume_on_clear=True it goes on from the last checkpoint.",
    ),
}

#: Instances did not come: waiting helps, and nothing was paid for.
NO_CAPACITY = frozenset({FailureKind.CAPACITY, FailureKind.PENDING_TIME})

#: SecondaryStatus of a job that the service has stopped at a limit. The third word is ours: AWS has none for it.
MAX_RUNTIME = "MaxRuntimeExceeded"
MAX_WAIT_TIME = "MaxWaitTimeExceeded"
MAX_PENDING_TIME = "MaxPendingTimeExceeded"
#: SecondaryStatus between two lives of a spot job.
INTERRUPTED = "Interrupted"

#: How AWS's services word a refusal: IAM, S3, KMS, ECR. A message that only *advises* to look at permissions (a prefix
#: without objects) has none of these words.
_ACCESS = re.compile(
    r"Access ?Denied|not authorized|unauthorized|forbidden|KMS\.?\w*Exception|kms:\w+|assume (the )?role", re.I
)


#: What is short of capacity and no instance: waiting does not help a disk that is full.
_OTHER_CAPACITY = re.compile(
    r"(disk|storage|volume|file ?system|memory|throughput)[\w-]* capacity|capacity of [\w ]*(disk|volume|storage|file)",
    re.I,
)


def failure_kind(reason: str) -> FailureKind:
    """Classify a SageMaker FailureReason by the word it starts with, or by the wording of capacity and access.

    What the script itself says (AlgorithmError) may speak of anything, capacity too.
    """
    if reason.startswith("AlgorithmError"):
        return FailureKind.ALGORITHM
    if "capacity" in reason.lower() and not _OTHER_CAPACITY.search(reason):
        return FailureKind.CAPACITY
    if reason.startswith("InternalServerError"):
        return FailureKind.INTERNAL
    if _ACCESS.search(reason):
        return FailureKind.ACCESS
    if reason.startswith("ClientError"):
        return FailureKind.CLIENT
    return FailureKind.ALGORITHM


def stop_kind(detail: str, *, interruptions: int, started: bool) -> FailureKind:
    """Classify a job that was stopped, by its SecondaryStatus.

    :param interruptions: how often its spot instances were taken away.
    :param started: whether it had instances at all.
    """
    if detail == MAX_RUNTIME:
        return FailureKind.RUN_TIME
    if detail == MAX_PENDING_TIME:
        return FailureKind.PENDING_TIME
    if detail == INTERRUPTED:
        return FailureKind.SPOT
    if detail == MAX_WAIT_TIME:
        return FailureKind.SPOT if interruptions or not started else FailureKind.WAIT_TIME
    return FailureKind.STOPPED
