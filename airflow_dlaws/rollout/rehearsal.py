"""A model's rehearsal: it loads on one instance of its own and answers sample requests, before any user sees it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: What starting an instance, loading a model and going through the samples may take: AWS gives up a container that does
#: not answer its ping after about 24 minutes, and an instance needs some before.
REHEARSAL_SECONDS = 2700.0
#: A rehearsal is no load test: so many lines of the samples are sent, one after the other.
MOST_REQUESTS = 1000


class RehearsalVerdict(enum.StrEnum):
    """Where the rehearsal is."""

    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a rollout remembers of its rehearsal."""

    verdict: RehearsalVerdict = RehearsalVerdict.PENDING
    reason: str = ""
    #: Throw-away endpoints that may be there and are still to be deleted: our own, and those of former rollouts.
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What became of the sample requests. Times are in seconds."""

    sent: int = 0
    slowest: float = 0.0
    #: Why the first request that failed did, with its line number; empty where all were answered.
    failure: str = ""

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        if self.failure:
            return f"sample request {self.sent} failed: {self.failure}"
        return f"{self.sent} sample requests answered, the slowest in {self.slowest:.3g} s"
