"""Which task asks for a job, and the name the job gets from that.

A retry, a restarted triggerer and a worker that died all compute the same name and find the same job; a cleared task
computes another one. `clear_marker` is the task instance's `max_tries`: Airflow raises it on a clear and leaves it
alone on a retry, in all versions from 3.0 on. A run that was deleted may be made again with the same id and all that:
it has begun at another time.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from airflow_dlaws.errors import SpecificationError

#: SageMaker's limit for the names of training jobs, models, endpoints and endpoint configurations.
NAME_LIMIT = 63
#: SageMaker's limit for the names of tuning jobs, which prefix their children's.
TUNING_NAME_LIMIT = 32
#: 64 bits of hash: a collision needs billions of jobs in one account, and the digest in the tag would still catch it.
_HASH_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class TaskIdentity:
    """One task instance of one run, up to the next clear.

    :param deployment: tells two Airflow deployments that share an AWS account apart; the base URL of the API server.
    :param run_began: tells a run from a deleted one of the same id: ISO 8601, UTC. No retry changes it; clearing a task
        of a run that has ended does, for all that will run of it. Empty in what older versions have left.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    clear_marker: int = 0
    deployment: str = ""
    run_began: str = ""

    @property
    def of_all_lives(self) -> TaskIdentity:
        """What all lives of the task instance have in common."""
        return replace(self, clear_marker=-1, run_began="")

    @property
    def task_key(self) -> str:
        """What all lives of the task instance share, as 16 hexadecimal digits."""
        parts = [self.deployment, self.dag_id, self.run_id, self.task_id, self.map_index]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_HASH_LENGTH]

    def name(self, digest: str, *, limit: int = NAME_LIMIT, attempt: int = 1, role: str = "") -> str:
        """Return the service-side name of the resource this task makes.

        :param digest: of the specification, from :func:`digest_of`.
        :param limit: longest name the service accepts.
        :param attempt: 2 and up after a failure that was the infrastructure's fault, never for an ordinary retry.
        :param role: tells several resources of one task apart ("model", "config").
        :raises SpecificationError: `limit` leaves no room for the hash.
        """
        if limit < _HASH_LENGTH + 2:
            raise SpecificationError(f"a name of at most {limit} characters cannot hold a {_HASH_LENGTH}-digit hash")
        parts = [self.deployment, self.dag_id, self.run_id, self.task_id, self.map_index, self.clear_marker, digest]
        key = json.dumps([*parts, attempt, role, *([self.run_began] if self.run_began else [])])
        hashed = hashlib.sha256(key.encode()).hexdigest()[:_HASH_LENGTH]
        readable = _slug(f"{self.dag_id}-{self.task_id}")[: limit - _HASH_LENGTH - 1].strip("-")
        return f"{readable}-{hashed}" if readable else f"j{hashed}"


def digest_of(specification: Any) -> str:
    """Return a stable digest (16 hexadecimal digits) of any JSON value; key order does not matter."""
    canonical = json.dumps(specification, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _slug(text: str) -> str:
    """Reduce to `[a-z0-9-]`, single dashes, as all SageMaker name patterns allow."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
