"""AWS's errors in this package's words: refused for good, or unavailable for now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from airflow_dlaws.errors import DlawsError, NoCapacity, ServiceRefused, ServiceUnavailable

#: Codes that mean "later", whatever HTTP status they come with.
_PASSING = frozenset(
    {
        "ConcurrentUpdateException",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "InternalServiceException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
#: Refused now, but a retry, a new process, has new credentials (or a clock that has been set).
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_ACCESS = frozenset({"AccessDenied", "AccessDeniedException", "403"})
_QUOTA = re.compile(r"is (\d+) \w+, with current utilization of (\d+) \w+ and a request delta of (\d+)")


@contextmanager
def service_errors(action: str) -> Iterator[None]:
    """Raise ServiceUnavailable or ServiceRefused in place of boto's errors; `action` says what was tried."""
    try:
        yield
    except ClientError as error:
        raise translated(action, error) from error
    except (NoCredentialsError, PartialCredentialsError, NoRegionError, ParamValidationError) as error:
        raise ServiceRefused(f"cannot {action}: {error}") from error
    except BotoCoreError as error:
        raise ServiceUnavailable(f"cannot {action} now: {error}") from error


def error_code(error: ClientError) -> str:
    """Return AWS's code of an error."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def error_text(error: ClientError) -> str:
    """Return AWS's message of an error."""
    return str(error.response.get("Error", {}).get("Message", ""))


def translated(action: str, error: ClientError) -> DlawsError:
    """Return this package's error for AWS's."""
    code, text = error_code(error), error_text(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "ResourceLimitExceeded":
        return _quota_error(action, text)
    if code in _PASSING or status >= 500:
        return ServiceUnavailable(f"cannot {action} now: {code}: {text}")
    way_out = ". Allow it in the policy of the Airflow connection's role" if code in _ACCESS else ""
    refused = ServiceRefused(f"cannot {action}: {code}: {text}{way_out}")
    refused.permanent = code not in _EXPIRED and not text.startswith("Signature expired")
    return refused


def _quota_error(action: str, text: str) -> DlawsError:
    """Tell a quota that is in use now from one that can never hold the request."""
    found = _QUOTA.search(text)
    if found and int(found.group(1)) >= int(found.group(3)):
        return NoCapacity(f"cannot {action} now, the account's quota is in use: {text}")
    return ServiceRefused(
        f"cannot {action}, the account's quota is too small: {text} "
        "Ask for more in the Service Quotas console, or use another instance type"
    )
