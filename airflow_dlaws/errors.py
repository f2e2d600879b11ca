"""Every error this package raises on purpose.

    DlawsError
      SpecificationError     what was asked for cannot work; raised before anything is paid for
      ServiceRefused         AWS, or a cluster, said no, and will say no again
        NoSuchJob            it knows no job of that name
      ServiceUnavailable     throttled, an outage: trying again later can help
        NoCapacity           no instances now, or the account's quota is in use
        EndpointBusy         another task is rolling out on the endpoint
      IdentityConflict       the name that belongs to this task is taken by something else
      JobFailed              a job ended, and did not succeed
      OutcomeUnacceptable    measured, and bad: drifted data, a worse model, a rolled-back endpoint
      Inconclusive           cannot tell: too little data, no traffic

Each message gives the value, what is allowed, and the way out. `permanent` tells an operator whether Airflow should
try the task again.
"""

from __future__ import annotations


class DlawsError(Exception):
    """Base of all errors raised on purpose by this package."""

    #: Whether a retry with the same inputs is bound to end the same way.
    permanent: bool = True


class SpecificationError(DlawsError, ValueError):
    """What was asked for cannot work. Raised before anything is paid for."""


class ServiceRefused(DlawsError):
    """AWS refused a request, and would refuse it again (bad value, no permission, quota of zero)."""


class NoSuchJob(ServiceRefused):
    """The engine knows no job of that name."""


class ServiceUnavailable(DlawsError):
    """AWS could not serve a request now: throttling, missing capacity, an outage."""

    permanent = False


class NoCapacity(ServiceUnavailable):
    """There are no instances to be had now, or other jobs use up the account's quota."""


class EndpointBusy(ServiceUnavailable):
    """Another task is rolling out on the endpoint: one rollout at a time."""


class IdentityConflict(DlawsError):
    """The name that belongs to this task is already taken by a resource made from another specification."""


class JobFailed(DlawsError):
    """A job ended without success. The message carries the service's reason and the last log lines."""

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent


class OutcomeUnacceptable(DlawsError):
    """The work was done and measured, and what was measured is bad."""


class Inconclusive(DlawsError):
    """The evidence does not allow a verdict. Never treated as a pass."""
