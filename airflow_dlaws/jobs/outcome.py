"""What a job's state means: for a task that comes back to it, and for a task that has waited for it. Pure decisions."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_dlaws.jobs.phase import RETRYABLE_FAILURES, FailureKind, JobPhase, failure_kind
from airflow_dlaws.jobs.reference import JobReference, JobStatus

#: The service itself ended the job at a limit of the request: the same request would end the same way.
_LIMIT_REACHED = frozenset({"MaxRuntimeExceeded", "MaxWaitTimeExceeded"})

_ADVICE = {
    FailureKind.ALGORITHM: "Fix the script and clear the task: a retry would pay again for the same error.",
    FailureKind.CLIENT: "Correct the request (data, image, permissions) and clear the task.",
    FailureKind.CAPACITY: "A retry of the task starts another job; or ask for another instance type.",
    FailureKind.INTERNAL: "The fault was AWS's: a retry of the task starts another job.",
}


class Reuse(enum.StrEnum):
    """What to do with a job found under the name that belongs to the task."""

    ADOPT = "adopt"
    START_ANOTHER = "start another"
    GIVE_UP = "give up"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a finished job did its work, whether trying again can help, and the sentence that says why."""

    succeeded: bool
    permanent: bool
    sentence: str


def decide_reuse(status: JobStatus) -> tuple[Reuse, str]:
    """Decide what a task does with the job it finds: adopt it, start another one, or give up.

    A stopped job was stopped by an earlier try that was killed, so the task may start another; a job that failed
    through its own fault must not be paid for twice.
    """
    if status.phase is JobPhase.STOPPED and status.detail not in _LIMIT_REACHED:
        return Reuse.START_ANOTHER, "it was stopped"
    if status.phase is JobPhase.STOPPING:
        return Reuse.START_ANOTHER, "it is being stopped"
    if not status.terminal or status.phase is JobPhase.SUCCEEDED:
        return Reuse.ADOPT, f"it is {status.phase}"
    verdict = judge(status)
    return (Reuse.GIVE_UP if verdict.permanent else Reuse.START_ANOTHER), verdict.sentence


def judge(status: JobStatus) -> Verdict:
    """Judge a finished job. Stopped is never success."""
    if status.phase is JobPhase.SUCCEEDED:
        return Verdict(succeeded=True, permanent=True, sentence="the job completed")
    if status.phase is JobPhase.FAILED:
        kind = failure_kind(status.reason)
        sentence = f"the job failed: {status.reason or 'the service gave no reason'}. {_ADVICE[kind]}"
        return Verdict(succeeded=False, permanent=kind not in RETRYABLE_FAILURES, sentence=sentence)
    if status.detail in _LIMIT_REACHED:
        limit = "max_runtime_s" if status.detail == "MaxRuntimeExceeded" else "max_wait_s"
        sentence = (
            f"the service stopped the job at its limit ({status.detail}). Raise {limit}, or make the job shorter."
        )
        return Verdict(succeeded=False, permanent=True, sentence=sentence)
    sentence = (
        "the job was stopped before it had finished, by a user, in the console or through the API. "
        "Clear the task to start another one."
    )
    return Verdict(succeeded=False, permanent=True, sentence=sentence)


def failure_message(reference: JobReference, sentence: str, *, log_tail: Sequence[str], logs_url: str) -> str:
    """Say what happened to a job: name, reason, last log lines, where to read more."""
    parts = [f"Job {reference.name}: {sentence}"]
    if log_tail:
        parts += [f"Last {len(log_tail)} log lines:", *(f"    {line}" for line in log_tail)]
    else:
        parts.append("No log line has arrived: the container may never have started.")
    return "\n".join([*parts, f"Logs: {logs_url}"])
