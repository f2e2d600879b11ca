"""The errors the local SageMaker answers with: AWS's codes, and AWS's words where they are known.

Codes are sure; clients match on the beginning of the messages. Sources: the botocore service model,
aws/amazon-sagemaker-operator-for-k8s, hashicorp/terraform-provider-aws, the Amazon provider.
"""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """An answer other than 200. `fields` are further members of the modelled error (ModelError has three)."""

    def __init__(self, code: str, message: str, *, status: int = 400, **fields: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status, self.fields = code, message, status, fields


def validation_error(message: str) -> ServiceError:
    """SageMaker's answer to nearly every bad request, and to most names that do not exist."""
    return ServiceError("ValidationException", message)


def unsupported(what: str) -> ServiceError:
    """What AWS would accept and this machine cannot do. Never answered with a pretence."""
    return ServiceError("ValidationException", f"The local AWS does not support {what}.")


def unsupported_operation(operation: str, supported: list[str]) -> ServiceError:
    """An operation AWS has and we have not. 501: no client takes it for a fault worth retrying."""
    message = f"The local AWS does not support {operation}. It supports {', '.join(sorted(supported))}."
    return ServiceError("NotSupportedByLocalAws", message, status=501)


def resource_in_use(message: str) -> ServiceError:
    """A name that is taken, for training, processing and tuning jobs."""
    return ServiceError("ResourceInUse", message)


def resource_not_found(message: str) -> ServiceError:
    """A name that does not exist, for the few operations that do not say ValidationException."""
    return ServiceError("ResourceNotFound", message)


def limit_exceeded(message: str) -> ServiceError:
    """A quota is used up."""
    return ServiceError("ResourceLimitExceeded", message)


def throttled() -> ServiceError:
    """Too many requests a second."""
    return ServiceError("ThrottlingException", "Rate exceeded")


def internal_failure(message: str) -> ServiceError:
    """A fault of the local AWS itself; botocore retries it as it would AWS's."""
    return ServiceError("InternalFailure", message, status=500)
