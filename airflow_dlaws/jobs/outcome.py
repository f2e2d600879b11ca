"""What a job's state means: for a task that comes back to it, and for a task that has waited for it. Pure decisions."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_dlaws.jobs.failure import BEHAVIOUR, FailureKind, failure_kind, stop_kind
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus


class Reuse(enum.StrEnum):
    """What to do with a job found under the name that belongs to the task."""

    ADOPT = "adopt"
    START_ANOTHER = "start another"
    GIVE_UP = "give up"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a finished job did its work, whether trying again can help, and the sentence that says why.

    :param kind: why it did not succeed; None where it did.
    """

    succeeded: bool
    permanent: bool
    sentence: str
    kind: FailureKind | None = None


def decide_reuse(status: JobStatus) -> tuple[Reuse, str]:
    """Decide what a task does with the job it finds: adopt it, start another one, or give up.

    A job that somebody stopped was stopped by an earlier try that was killed, so the task may start another; a job that
    failed through its own fault must not be paid for twice.
    """
    if status.phase is JobPhase.STOPPING:
        return Reuse.START_ANOTHER, "it is being stopped"
    if not status.terminal or status.phase is JobPhase.SUCCEEDED:
        return Reuse.ADOPT, f"it is {status.phase}"
    verdict = judge(status)
    if verdict.kind is FailureKind.STOPPED:
        return Reuse.START_ANOTHER, "it was stopped"
    return (Reuse.GIVE_UP if verdict.permanent else Reuse.START_ANOTHER), verdict.sentence


def kind_of(status: JobStatus) -> FailureKind | None:
    """Tell why a finished job did not succeed; None where it did, or has not ended."""
    if status.phase is JobPhase.FAILED:
        return status.failure or failure_kind(status.reason)
    if status.phase is JobPhase.STOPPED:
        started = status.started_at is not None
        return status.failure or stop_kind(status.detail, interruptions=status.interruptions, started=started)
    return None


def judge(status: JobStatus) -> Verdict:
    """Judge a finished job. Stopped is never success."""
    kind = kind_of(status)
    if kind is None:
        succeeded = status.phase is JobPhase.SUCCEEDED
        sentence = "the job completed" if succeeded else f"the job has not ended: it is {status.phase}"
        return Verdict(succeeded=succeeded, permanent=succeeded, sentence=sentence)
    behaviour = BEHAVIOUR[kind]
    sentence = f"{_what_happened(status, kind)}. {behaviour.way_out}"
    return Verdict(succeeded=False, permanent=behaviour.permanent, sentence=sentence, kind=kind)


def _what_happened(status: JobStatus, kind: FailureKind) -> str:
    if status.phase is JobPhase.FAILED:
        return f"the job failed ({kind}): {status.reason or 'the service gave no reason'}".rstrip(".")
    if kind is FailureKind.STOPPED:
        return "the job was stopped before it had finished"
    if kind is FailureKind.SPOT:
        return f"{_interruptions(status)}, and the service stopped the job at its limit ({status.detail})"
    return f"the service stopped the job at its limit ({status.detail})"


def _interruptions(status: JobStatus) -> str:
    if status.started_at is None and not status.interruptions:
        return "no spot instances came"
    times = "once" if status.interruptions == 1 else f"{status.interruptions} times"
    return f"spot instances were taken away {times}"


def failure_message(reference: JobReference, sentence: str, *, log_tail: Sequence[str], logs_url: str) -> str:
    """Say what happened to a job: name, reason, last log lines, where to read more."""
    parts = [f"Job {reference.name}: {sentence}"]
    if log_tail:
        parts += [f"Last {len(log_tail)} log lines:", *(f"    {line}" for line in log_tail)]
    else:
        parts.append("No log line has arrived: the container may never have started.")
    return "\n".join([*parts, f"Logs: {logs_url}"])
