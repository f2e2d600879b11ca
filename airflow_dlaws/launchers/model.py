"""SageMaker models through an injected client: made once for each task, compared where the name is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import IdentityConflict
from airflow_dlaws.launchers.aws_errors import error_text, service_errors, translated


def ensure_model(
    sagemaker: Any,
    name: str,
    container: Mapping[str, Any],
    *,
    role_arn: str | None,
    tags: Sequence[Mapping[str, str]] = (),
) -> None:
    """Create the model, or adopt the one that an earlier try has made.

    :param container: the PrimaryContainer: ModelPackageName, or Image and ModelDataUrl.
    :raises IdentityConflict: the name is taken by a model of something else.
    :raises ServiceRefused: the package does not exist or is not approved, the artifact is not there.
    """
    try:
        sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=role_arn, PrimaryContainer=dict(container), Tags=list(tags)
        )
    except ClientError as error:
        if "already exist" not in error_text(error):
            raise translated(f"create model {name} from {dict(container)}", error) from error
        with service_errors(f"describe model {name}"):
            found = sagemaker.describe_model(ModelName=name).get("PrimaryContainer", {})
        for member, asked in container.items():
            must_equal(f"model {name}", member, found.get(member), asked)


def delete_model(sagemaker: Any, name: str) -> None:
    """Delete a model; one that is not there is no error."""
    with service_errors(f"delete model {name}"):
        try:
            sagemaker.delete_model(ModelName=name)
        except ClientError as error:
            if "Could not find" not in error_text(error):
                raise


def must_equal(what: str, field: str, found: object, asked: object) -> None:
    """Refuse a resource that bears the right name and was made of something else.

    :raises IdentityConflict: with both values.
    """
    if found != asked:
        raise IdentityConflict(
            f"{what} exists with {field} {found!r}, not the {asked!r} asked for: "
            "delete it, or clear this task to get other names"
        )
