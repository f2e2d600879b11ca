"""SageMaker's own services that a training job can be tied to: an MLflow tracking server, the model registry."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_dlaws.errors import SpecificationError

_MLFLOW = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:\d{12}:mlflow-[a-zA-Z-]*/.+")
_GROUP = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]{9,16}:\d{12}:model-package-group/\S+")
_PACKAGE = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]{9,16}:\d{12}:model-package/\S+")


@dataclass(frozen=True, kw_only=True)
class MlflowTracking:
    """Where SageMaker tracks the job in MLflow (MlflowConfig).

    :param arn: of a SageMaker MLflow app or tracking server.
    """

    arn: str
    experiment: str | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        _check_arn("mlflow: arn", self.arn, _MLFLOW, "arn:aws:sagemaker:REGION:ACCOUNT:mlflow-tracking-server/NAME")
        for name in ("experiment", "run"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= 256):
                raise SpecificationError(f"mlflow: {name}={value!r} must be a text of 1 to 256 characters")


@dataclass(frozen=True, kw_only=True)
class ModelPackageOutput:
    """The model package group that SageMaker itself puts the job's model in (ModelPackageConfig).

    RegisterModelOperator records lineage, metrics and the drift reference too; this records the model only.
    """

    group_arn: str
    source_arn: str | None = None

    def __post_init__(self) -> None:
        form = "arn:aws:sagemaker:REGION:ACCOUNT:model-package{}/NAME"
        _check_arn("model_package: group_arn", self.group_arn, _GROUP, form.format("-group"))
        if self.source_arn is not None:
            _check_arn("model_package: source_arn", self.source_arn, _PACKAGE, form.format(""))


def _check_arn(field: str, value: object, pattern: re.Pattern[str], form: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise SpecificationError(f"{field}={value!r} must be an ARN of the form {form}")
