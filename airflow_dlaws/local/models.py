"""Models: which image serves which artifact with which environment. Immutable once made.

Not here: pipelines of several containers, multi-model hosting, ModelDataSource, network settings.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.local import listing
from airflow_dlaws.local.context import Handler, LocalContext, PerRegion, RequestContext
from airflow_dlaws.local.errors import unsupported, validation_error
from airflow_dlaws.local.model_packages import ModelPackages

_UNSUPPORTED = ("ModelDataSource", "AdditionalModelDataSources", "MultiModelConfig", "InferenceSpecificationName")


@dataclass(frozen=True, kw_only=True)
class ServingContainer:
    """What a server process needs: an image, the artifact to unpack, the environment."""

    image: str
    model_data_url: str | None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as it was asked for, and the container that came of it."""

    arn: str
    created: datetime
    request: Mapping[str, Any]
    container: ServingContainer


class Models:
    """The operations on models."""

    def __init__(self, context: LocalContext, packages: ModelPackages) -> None:
        self._context, self._packages = context, packages
        self._models: PerRegion[dict[str, Model]] = PerRegion(dict)
        self._lock = threading.Lock()

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {
            "CreateModel": self._create,
            "DescribeModel": self._describe,
            "DeleteModel": self._delete,
            "ListModels": self._list,
        }

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """See `Resource`."""

    def find(self, name: str, request: RequestContext) -> Model:
        """Return a model.

        :raises ServiceError: there is none.
        """
        model = self._models[request.region].get(name)
        if model is None:
            raise validation_error(f'Could not find model "{request.arn("model", name)}".')
        return model

    def check_artifact(self, url: str | None, region: str) -> None:
        """Refuse a model artifact that is not in S3, as AWS does at CreateModel.

        :raises ServiceError: the object does not exist, or the URL names no object.
        """
        if url is None:
            return
        bucket, _, key = url.removeprefix("s3://").partition("/")
        try:
            self._context.client("s3", region).head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise validation_error(f"Could not find model data at {url}.") from error

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        name = parameters["ModelName"]
        arn = request.arn("model", name)
        container = self._container(_the_container(parameters), request)
        self.check_artifact(container.model_data_url, request.region)
        with self._lock:
            models = self._models[request.region]
            if name in models:
                raise validation_error(f'Cannot create already existing model "{arn}".')
            models[name] = Model(arn=arn, created=self._context.now(), request=parameters, container=container)
            self._context.tags.create(arn, parameters.get("Tags"))
        return {"ModelArn": arn}

    def _container(self, definition: Mapping[str, Any], request: RequestContext) -> ServingContainer:
        for member in _UNSUPPORTED:
            if member in definition:
                raise unsupported(f"{member} in a container")
        if definition.get("Mode", "SingleModel") != "SingleModel":
            raise unsupported(f"container mode {definition['Mode']}")
        if "ModelPackageName" in definition:
            return self._packaged(definition, request)
        if "Image" not in definition:
            raise validation_error("Either Image or ModelPackageName must be specified in a container.")
        return ServingContainer(
            image=definition["Image"],
            model_data_url=definition.get("ModelDataUrl"),
            environment=definition.get("Environment", {}),
        )

    def _packaged(self, definition: Mapping[str, Any], request: RequestContext) -> ServingContainer:
        if "Image" in definition or "ModelDataUrl" in definition:
            raise validation_error("A container with ModelPackageName must not have Image or ModelDataUrl.")
        package = self._packages.find(definition["ModelPackageName"], request)
        if package.approval != "Approved":
            # That AWS refuses is documented ("Deploy a model from the registry"); its words could not be verified.
            raise validation_error(
                f"Cannot create a model from model package {package.arn}: its ModelApprovalStatus is "
                f"{package.approval}, not Approved."
            )
        container = package.container
        return ServingContainer(
            image=container["Image"],
            model_data_url=container.get("ModelDataUrl"),
            environment={**container.get("Environment", {}), **definition.get("Environment", {})},
        )

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        model = self.find(parameters["ModelName"], request)
        echoed = {member: value for member, value in model.request.items() if member != "Tags"}
        return {"EnableNetworkIsolation": False, **echoed, "ModelArn": model.arn, "CreationTime": model.created}

    def _delete(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        """Delete a model, in use or not: AWS lets an endpoint live on and fail at its next update."""
        with self._lock:
            model = self.find(parameters["ModelName"], request)
            del self._models[request.region][parameters["ModelName"]]
            self._context.tags.forget(model.arn)
        return {}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        summaries = [
            {"ModelName": name, "ModelArn": model.arn, "CreationTime": model.created}
            for name, model in list(self._models[request.region].items())
        ]
        return listing.page(summaries, parameters, into="Models", name="ModelName")


def _the_container(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    primary, containers = parameters.get("PrimaryContainer"), parameters.get("Containers")
    if (primary is None) == (not containers):
        raise validation_error("Exactly one of PrimaryContainer and Containers must be specified.")
    if containers and len(containers) > 1:
        raise unsupported(f"a pipeline of {len(containers)} containers; give one container")
    if "VpcConfig" in parameters:
        raise unsupported("VpcConfig in CreateModel")
    if "ExecutionRoleArn" not in parameters:
        raise validation_error("ExecutionRoleArn is required to create a model.")
    definition: Mapping[str, Any] = primary or containers[0]  # type: ignore[index]
    return definition
