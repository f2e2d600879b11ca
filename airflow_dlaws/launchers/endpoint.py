"""SageMaker endpoints through an injected client: describe one, make what it serves, move it.

Create first, and where the name is taken, describe and compare: a retry of the task adopts what it made before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.launchers.aws_errors import error_code, error_text, service_errors, translated
from airflow_dlaws.launchers.model import ensure_model, must_equal
from airflow_dlaws.registry.approval import ApprovalStatus, approval_of, describe
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder, is_older
from airflow_dlaws.rollout.state import EndpointStatus, EndpointView

#: SageMaker answers ValidationException for nearly everything; what is missing is told by the wording.
_MISSING = "Could not find"
#: CaptureMode with which answers are captured.
_ANSWERS = frozenset({"Output", "InputAndOutput"})
_NOT_IN_TAGS = re.compile(r"[^\w\s.:/=+@-]")
#: Without the exclusions the new configuration's data capture and weight would count for nothing.
_KEEP_SIZE: Mapping[str, Any] = {
    "RetainAllVariantProperties": True,
    "ExcludeRetainedVariantProperties": [
        {"VariantPropertyType": "DesiredWeight"},
        {"VariantPropertyType": "DataCaptureConfig"},
    ],
}
#: VariantStatus of a fleet that has traffic.
_ON_TRAFFIC = frozenset({"ActivatingTraffic", "Baking"})


class EndpointPort:
    """What a rollout does with SageMaker. `client` is a boto3 SageMaker client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def describe(self, endpoint_name: str) -> EndpointView | None:
        """Return what the endpoint shows, or None where there is none.

        :raises ServiceUnavailable: AWS throttled the question or had an outage.
        """
        try:
            answer = self._client.describe_endpoint(EndpointName=endpoint_name)
        except ClientError as error:
            if _is_missing(error):
                return None
            raise translated(f"describe endpoint {endpoint_name}", error) from error
        return _view(answer)

    def ensure_model(self, order: RolloutOrder, names: RolloutNames) -> None:
        """Create the model from its package, or adopt the one this task made before.

        :raises IdentityConflict: the name is taken by another model.
        :raises ServiceRefused: the package does not exist or is not approved.
        """
        ensure_model(
            self._client,
            names.model_name,
            {"ModelPackageName": order.model_package_arn},
            role_arn=order.role_arn,
            tags=tags_of(names),
        )

    def ensure_config(self, order: RolloutOrder, names: RolloutNames) -> None:
        """Create the endpoint configuration, or adopt the one this task made before.

        :raises IdentityConflict: the name is taken by another configuration.
        """
        variant = _variant(order, names, instances=order.initial_instance_count)
        request: dict[str, Any] = {
            "EndpointConfigName": names.config_name,
            "ProductionVariants": [variant],
            "Tags": tags_of(names),
        }
        if order.data_capture_s3_uri:
            place = capture_uri(order.data_capture_s3_uri, names.config_name)
            request["DataCaptureConfig"] = capture_config(place, order.capture_percent)
        try:
            self._client.create_endpoint_config(**request)
        except ClientError as error:
            found = self._existing(error, self._client.describe_endpoint_config, EndpointConfigName=names.config_name)
            if found is None:
                raise translated(f"create endpoint configuration {names.config_name}", error) from error
            model = found["ProductionVariants"][0].get("ModelName")
            must_equal(f"endpoint configuration {names.config_name}", "model", model, names.model_name)

    def ensure_rehearsal_config(self, order: RolloutOrder, names: RolloutNames) -> None:
        """Create the configuration of the throw-away endpoint: one instance, and nothing is captured."""
        try:
            self._client.create_endpoint_config(
                EndpointConfigName=names.rehearsal_name,
                ProductionVariants=[_variant(order, names, instances=1)],
                Tags=self.tags(names),
            )
        except ClientError as error:
            if "already exist" not in error_text(error):
                raise translated(f"create endpoint configuration {names.rehearsal_name}", error) from error

    def delete_config(self, name: str) -> None:
        """Delete an endpoint configuration; one that is not there is no error."""
        with service_errors(f"delete endpoint configuration {name}"):
            try:
                self._client.delete_endpoint_config(EndpointConfigName=name)
            except ClientError as error:
                if not _is_missing(error):
                    raise

    @staticmethod
    def tags(names: RolloutNames) -> list[dict[str, str]]:
        """Return the tags of what a rollout makes."""
        return tags_of(names)

    def check_variants(self, config_name: str, variant_name: str) -> Mapping[str, Any]:
        """Refuse to move from a configuration that AWS cannot shift traffic from, or go back to; return its variant.

        :raises SpecificationError: the configuration is gone, or its variants have other names.
        """
        with service_errors(f"describe endpoint configuration {config_name}"):
            try:
                answer = self._client.describe_endpoint_config(EndpointConfigName=config_name)
            except ClientError as error:
                if not _is_missing(error):
                    raise
                raise SpecificationError(
                    f"endpoint configuration {config_name} is in service but was deleted: no way back. "
                    "Create it again under that name, then clear this task"
                ) from error
        found = sorted(variant["VariantName"] for variant in answer["ProductionVariants"])
        if found != [variant_name]:
            raise SpecificationError(
                f"variant_name={variant_name!r}, but {config_name} in service has {found}: AWS shifts traffic only "
                f"between equal variant names. Set variant_name to {found[0]!r}"
            )
        variant: Mapping[str, Any] = answer["ProductionVariants"][0]
        return variant

    def capture_of(self, config_name: str) -> str:
        """Return where a configuration captures requests and answers; empty where it captures no answers."""
        with service_errors(f"describe endpoint configuration {config_name}"):
            config = self._client.describe_endpoint_config(EndpointConfigName=config_name)
        capture = config.get("DataCaptureConfig") or {}
        modes = {option["CaptureMode"] for option in capture.get("CaptureOptions", [])}
        return str(capture["DestinationS3Uri"]) if capture.get("EnableCapture") and modes & _ANSWERS else ""

    def package_of(self, config_name: str) -> str:
        """Return the ARN of the model package that a configuration serves; empty where it was made of none."""
        with service_errors(f"describe what endpoint configuration {config_name} serves"):
            config = self._client.describe_endpoint_config(EndpointConfigName=config_name)
            name = config["ProductionVariants"][0].get("ModelName")
            model = self._client.describe_model(ModelName=name) if name else {}
        return str(model.get("PrimaryContainer", {}).get("ModelPackageName", ""))

    def approval(self, order: RolloutOrder) -> str:
        """Return what has been decided on the order's model package, in a sentence; empty where nobody has.

        :raises SpecificationError: it is not approved, and must be.
        """
        decided = approval_of(describe(self._client, order.model_package_arn))
        if order.require_approval and (decided is None or decided.status is not ApprovalStatus.APPROVED):
            told = decided.sentence if decided else ApprovalStatus.PENDING.value
            raise SpecificationError(
                f"{order.model_package_arn} is not approved ({told}): put a ModelApprovalOperator before this task, or "
                "approve it in the registry and clear this task; or set require_approval=False"
            )
        return decided.sentence if decided else ""

    def refuse_older(self, order: RolloutOrder, config_name: str) -> None:
        """Refuse to move from a configuration that serves a newer version of the same model package group.

        :raises SpecificationError: it does, and the order does not say that this is meant.
        """
        if order.allow_older:
            return
        live = self.package_of(config_name)
        if live and is_older(order.model_package_arn, live):
            raise SpecificationError(
                f"{order.model_package_arn} is older than {live}, which {order.endpoint_name} serves: set "
                "allow_older=True to go back to it on purpose"
            )

    def create(self, endpoint_name: str, config_name: str, *, tags: Sequence[Mapping[str, str]] = ()) -> bool:
        """Ask for a new endpoint; return False where there is one by now."""
        try:
            self._client.create_endpoint(EndpointName=endpoint_name, EndpointConfigName=config_name, Tags=list(tags))
        except ClientError as error:
            if self.describe(endpoint_name) is not None:
                return False
            raise translated(f"create endpoint {endpoint_name}", error) from error
        return True

    def update(
        self, endpoint_name: str, config_name: str, deployment_config: Mapping[str, Any], *, keep_size: bool = False
    ) -> bool:
        """Ask for another configuration; return False where AWS refuses because the endpoint is moving already.

        :param keep_size: as many instances as serve now, whatever the configuration begins with.
        :raises ServiceRefused: AWS refuses it for another reason.
        """
        try:
            self._client.update_endpoint(
                EndpointName=endpoint_name,
                EndpointConfigName=config_name,
                DeploymentConfig=dict(deployment_config),
                **(_KEEP_SIZE if keep_size else {}),
            )
        except ClientError as error:
            view = self.describe(endpoint_name)
            if error_code(error) == "ValidationException" and view and view.status is not EndpointStatus.IN_SERVICE:
                return False
            raise translated(f"update endpoint {endpoint_name} to {config_name}", error) from error
        return True

    def _existing(self, error: ClientError, describe: Any, **name: str) -> Mapping[str, Any] | None:
        """Return the resource whose creation failed because it is there, or None where it failed for another reason."""
        if "already exist" not in error_text(error):
            return None
        with service_errors(f"describe {name}"):
            found: Mapping[str, Any] = describe(**name)
        return found


def _variant(order: RolloutOrder, names: RolloutNames, *, instances: int) -> dict[str, Any]:
    return {
        "VariantName": order.variant_name,
        "ModelName": names.model_name,
        "InstanceType": order.instance_type,
        "InitialInstanceCount": instances,
        "InitialVariantWeight": 1.0,
    }


def _is_missing(error: ClientError) -> bool:
    return error_code(error) == "ValidationException" and _MISSING in error_text(error)


def tags_of(names: RolloutNames) -> list[dict[str, str]]:
    """Return the tags of what a rollout makes."""
    values = {"dlaws:owner": names.owner, "dlaws:digest": names.digest}
    return [{"Key": key, "Value": _NOT_IN_TAGS.sub("_", value)[:256]} for key, value in values.items()]


def capture_uri(root: str, config_name: str) -> str:
    """Return where a configuration captures: a place of its own, for records do not say which model answered."""
    return f"{root.rstrip('/')}/{config_name}"


def capture_config(s3_uri: str, percent: int) -> dict[str, Any]:
    """Return a DataCaptureConfig of requests and answers."""
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": s3_uri,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        # Without these types the payloads are written base64-encoded.
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
    }


def _view(answer: Mapping[str, Any]) -> EndpointView:
    pending = answer.get("PendingDeploymentSummary") or {}
    statuses = [
        status for variant in pending.get("ProductionVariants", []) for status in variant.get("VariantStatus", [])
    ]
    traffic = [status for status in statuses if status["Status"] in _ON_TRAFFIC]
    starts = [status["StartTime"].timestamp() for status in traffic if status.get("StartTime")]
    baking = [status["StartTime"].timestamp() for status in traffic if _is_baking(status)]
    variants: Sequence[Mapping[str, Any]] = answer.get("ProductionVariants") or []
    green: Sequence[Mapping[str, Any]] = pending.get("ProductionVariants") or []
    (only,) = green if len(green) == 1 else ({},)
    return EndpointView(
        variants=tuple(variant["VariantName"] for variant in variants),
        instances=variants[0].get("DesiredInstanceCount") if len(variants) == 1 else None,
        status=EndpointStatus(answer["EndpointStatus"]),
        config_name=answer.get("EndpointConfigName", ""),
        pending_config_name=pending.get("EndpointConfigName", ""),
        failure_reason=answer.get("FailureReason", ""),
        on_traffic=bool(traffic),
        traffic_since=min(starts, default=None),
        baking_since=max(baking, default=None),
        green_instances=only.get("CurrentInstanceCount"),
        green_wanted=only.get("DesiredInstanceCount"),
        message=next((status["StatusMessage"] for status in reversed(statuses) if status.get("StatusMessage")), ""),
    )


def _is_baking(status: Mapping[str, Any]) -> bool:
    return status["Status"] == "Baking" and bool(status.get("StartTime"))
