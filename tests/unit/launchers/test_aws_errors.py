"""AWS's errors become refusals or outages, and quotas say which of the two they are."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.launchers.aws_errors import service_errors

QUOTA = (
    "The account-level service limit 'ml.p3.2xlarge for training job usage' is {limit} Instances, with current "
    "utilization of {used} Instances and a request delta of 1 Instances. Please contact AWS support."
)


def client_error(code: str, text: str = "text", status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "CreateTrainingJob")


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (client_error("ThrottlingException", "Rate exceeded"), ServiceUnavailable, "Rate exceeded"),
        (client_error("Whatever", status=503), ServiceUnavailable, "cannot do it now"),
        (client_error("ValidationException", "1 validation error"), ServiceRefused, "1 validation error"),
        (client_error("AccessDeniedException"), ServiceRefused, "Allow it in the policy"),
        (client_error("ResourceLimitExceeded", QUOTA.format(limit=0, used=0)), ServiceRefused, "Service Quotas"),
        (client_error("ResourceLimitExceeded", QUOTA.format(limit=2, used=2)), ServiceUnavailable, "is in use"),
        (EndpointConnectionError(endpoint_url="http://x"), ServiceUnavailable, "http://x"),
        (NoCredentialsError(), ServiceRefused, "credentials"),
    ],
)
def test_an_error_of_aws_says_whether_a_retry_can_help(error: Exception, expected: type[Exception], words: str) -> None:
    with pytest.raises(expected, match=words), service_errors("do it"):
        raise error


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (client_error("ExpiredTokenException", "The security token included in the request is expired"), False),
        (client_error("InvalidSignatureException", "Signature expired: 20261130T100000Z is now earlier than"), False),
        (client_error("InvalidSignatureException", "The request signature we calculated does not match"), True),
        (client_error("UnrecognizedClientException", "The security token included in the request is invalid."), True),
    ],
)
def test_a_new_process_has_new_credentials_so_expired_ones_do_not_fail_a_task_for_good(
    error: ClientError, permanent: bool
) -> None:
    with pytest.raises(ServiceRefused) as refused, service_errors("do it"):
        raise error
    assert refused.value.permanent is permanent
