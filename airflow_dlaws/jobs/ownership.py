"""Does a running job still belong to a task that wants it? Pure decisions over its tags and what Airflow says.

A job that no live task owns is an orphan: it costs money and nobody will ever read its result. What cannot be told is
never called an orphan.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from airflow_dlaws.jobs.identity import TaskIdentity

#: States in which a task instance goes on with its job, or will: None is one that the scheduler has not looked at yet,
#: and a task that waits for its retry adopts the job of the try before.
LIVE_STATES = frozenset(
    {
        None, "scheduled", "queued", "running", "restarting", "deferred", "awaiting_input",
        "up_for_retry", "up_for_reschedule",
    }
)  # fmt: skip
#: States in which it has ended. A state in neither set is one that this version does not know: it is not judged.
ENDED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


#: Endings of names that mean another machine in each network: Docker's, Kubernetes' services.
_EVERY_NETWORK = (".localhost", ".local", ".docker.internal")


class Verdict(enum.StrEnum):
    """Whose a job is."""

    OWNED = "owned"
    ORPHAN = "orphan"
    #: Too young to be judged: Airflow may not have written down yet what its task does.
    YOUNG = "young"
    #: Another Airflow's, which nobody has asked.
    FOREIGN = "foreign"
    #: Cannot be told.
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """A verdict and the sentence that says why."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True)
class JobClaim:
    """Which task a job says it belongs to.

    :param trial: number of the sweep's trial that the job is; None for a job of its own.
    :param exact: whether the job's name follows from these values; tags cannot hold every character.
    """

    identity: TaskIdentity
    trial: str | None = None
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class TaskAnswer:
    """What Airflow says of a task instance.

    :param missing: what there is not ("run", "task instance"); empty where the instance was found.
    :param max_tries: its clear marker now.
    """

    state: str | None = None
    max_tries: int = 0
    missing: str = ""


def claim_of(tags: Mapping[str, str], name: str, *, limit: int, role: str = "") -> JobClaim | None:
    """Read the tags that `job_tags` writes; None where a job has none of them, or an unreadable one.

    :param name: of the job, or of the tuning job that has launched it.
    :param limit: longest name of its kind.
    :param role: what it is to its task, where that stands in its name.
    """
    try:
        identity = TaskIdentity(
            dag_id=tags["dlaws:dag"],
            run_id=tags["dlaws:run"],
            task_id=tags["dlaws:task"],
            map_index=int(tags["dlaws:map-index"]),
            clear_marker=int(tags["dlaws:clear-marker"]),
            deployment=tags["dlaws:deployment"],
            run_began=tags.get("dlaws:run-began", ""),
        )
        expected = identity.name(tags["dlaws:digest"], limit=limit, attempt=int(tags["dlaws:attempt"]), role=role)
    except (KeyError, ValueError):
        return None
    task_id, _, trial = identity.task_id.partition(":")
    owner = TaskIdentity(**{**vars(identity), "task_id": task_id})
    return JobClaim(identity=owner, trial=trial or None, exact=expected == name)


def is_anybodys(deployment: str) -> bool:
    """Tell whether more than one Airflow may call itself so: none has a base URL, or each one of its own network."""
    host = urlsplit(deployment).hostname or ""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_EVERY_NETWORK)


def before_asking(
    claim: JobClaim | None, *, age: timedelta, grace: timedelta, deployment: str | None, vouched: bool = False
) -> Ownership | None:
    """Judge as far as that goes without Airflow; None where Airflow must be asked.

    :param age: of the job. Younger ones than `grace` are not judged.
    :param deployment: the Airflow that will be asked, as jobs name it in their tags.
    :param vouched: a person has said that no other Airflow with jobs here calls itself so.
    """
    if claim is None:
        return Ownership(verdict=Verdict.UNKNOWN, reason="its tags do not say whose it is")
    if not claim.exact:
        reason = "its tags cannot say exactly whose it is: its name does not follow from them"
        return Ownership(verdict=Verdict.UNKNOWN, reason=reason)
    if deployment is None or claim.identity.deployment.rstrip("/") != deployment.rstrip("/"):
        reason = f"it belongs to the Airflow at {claim.identity.deployment or '(no base_url)'}, which was not asked"
        return Ownership(verdict=Verdict.FOREIGN, reason=reason)
    if is_anybodys(deployment) and not (vouched and deployment):
        reason = (
            f"any Airflow may call itself {deployment or '(no base_url)'}: set [api] base_url, or give --deployment if "
            "no other one has jobs in this account"
        )
        return Ownership(verdict=Verdict.UNKNOWN, reason=reason)
    if age < grace:
        return Ownership(verdict=Verdict.YOUNG, reason=f"it is younger than {grace.total_seconds():.0f} s")
    return None


def judge_ownership(claim: JobClaim, answer: TaskAnswer) -> Ownership:
    """Judge a job by what Airflow says of its task instance."""
    if answer.missing:
        return Ownership(verdict=Verdict.ORPHAN, reason=f"Airflow has no such {answer.missing} any more")
    if answer.max_tries != claim.identity.clear_marker:
        reason = "its task was cleared since, and what it starts now is another job"
        return Ownership(verdict=Verdict.ORPHAN, reason=reason)
    if answer.state in LIVE_STATES:
        return Ownership(verdict=Verdict.OWNED, reason=f"its task is {answer.state or 'about to be scheduled'}")
    if answer.state in ENDED_STATES:
        return Ownership(verdict=Verdict.ORPHAN, reason=f"its task has ended: {answer.state}")
    return Ownership(verdict=Verdict.UNKNOWN, reason=f"its task is in a state that is not known here: {answer.state}")
