"""The tags by which a job is recognised as one task's, and found by people."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.limits import fits_in_tag

DIGEST_TAG = "dlaws:digest"
#: Which process looks after a running job: the one that has created or adopted it last.
HOLDER_TAG = "dlaws:holder"


def job_tags(own: Mapping[str, str], identity: TaskIdentity, digest: str, attempt: int) -> list[dict[str, str]]:
    """Return the tags of a job: the user's own, and which task has asked for it and for what."""
    ours = {
        DIGEST_TAG: digest,
        "dlaws:dag": identity.dag_id,
        "dlaws:run": identity.run_id,
        "dlaws:task": identity.task_id,
        "dlaws:map-index": str(identity.map_index),
        "dlaws:clear-marker": str(identity.clear_marker),
        "dlaws:run-began": identity.run_began,
        "dlaws:attempt": str(attempt),
        "dlaws:deployment": identity.deployment,
    }
    return [{"Key": key, "Value": _plain(value)[:256]} for key, value in {**own, **ours}.items()]


def _plain(value: str) -> str:
    """Return the value with an underscore for each character that AWS does not take in tags."""
    return "".join(each if fits_in_tag(each) else "_" for each in value)
