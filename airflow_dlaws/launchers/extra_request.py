"""`extra_request`: members of CreateTrainingJob for which this package has no parameter, checked without a call.

What AWS adds is known to the installed botocore on the day it is upgraded, so nobody has to wait for this package. What
has a parameter is refused here: there is one way to say a thing, and no value of a parameter is changed unseen.
"""

from __future__ import annotations

import copy
import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_dlaws.errors import SpecificationError

OPERATION = "CreateTrainingJob"
#: Members that a parameter sets, and that parameter. A member stands for all that is in it.
OWNED: Mapping[str, str] = {
    "TrainingJobName": "the task's identity (dag_id, task_id)",
    "Tags": "tags",
    "RoleArn": "role_arn",
    "HyperParameters": "hyperparameters",
    "Environment": "environment",
    "AlgorithmSpecification.TrainingImage": "image",
    "AlgorithmSpecification.AlgorithmName": "image",
    "AlgorithmSpecification.TrainingInputMode": "channels (input_mode)",
    "AlgorithmSpecification.MetricDefinitions": "metrics",
    "AlgorithmSpecification.ContainerEntrypoint": "entry_point",
    "AlgorithmSpecification.ContainerArguments": "arguments",
    "OutputDataConfig.S3OutputPath": "output_s3_uri",
    "OutputDataConfig.KmsKeyId": "kms_key_id",
    "OutputDataConfig.CompressionType": "output_compression",
    "ResourceConfig.InstanceType": "instance_type",
    "ResourceConfig.InstanceCount": "instance_count",
    "ResourceConfig.VolumeSizeInGB": "volume_size_gb",
    "ResourceConfig.VolumeKmsKeyId": "volume_kms_key_id",
    "ResourceConfig.KeepAlivePeriodInSeconds": "keep_alive_s",
    "ResourceConfig.InstanceGroups": "instance_groups",
    "ResourceConfig.InstancePreferences": "capacity_preferences",
    "ResourceConfig.TrainingPlanArn": "training_plan_arn",
    "ResourceConfig.SelectedInstanceType": "capacity_preferences (AWS tells what it has selected)",
    "ResourceConfig.SelectedInstanceCount": "capacity_preferences (AWS tells what it has selected)",
    "VpcConfig": "subnets and security_group_ids",
    "StoppingCondition.MaxRuntimeInSeconds": "max_runtime_s",
    "StoppingCondition.MaxWaitTimeInSeconds": "max_wait_s",
    "StoppingCondition.MaxPendingTimeInSeconds": "max_pending_s",
    "EnableNetworkIsolation": "network_isolation",
    "EnableInterContainerTrafficEncryption": "encrypt_traffic",
    "EnableManagedSpotTraining": "spot",
    "CheckpointConfig.S3Uri": "checkpoint_s3_uri",
    "CheckpointConfig.LocalPath": "checkpoint_s3_uri (scripts find the folder in SM_CHECKPOINT_DIR)",
    "RetryStrategy": "max_retry_attempts",
    "RemoteDebugConfig.EnableRemoteDebug": "remote_debug",
    "InfraCheckConfig.EnableInfraCheck": "infra_check",
    "MlflowConfig": "mlflow",
    "ModelPackageConfig": "model_package",
}
_CHANNELS = "InputDataConfig"


def check_extra(extra: Mapping[str, Any]) -> None:
    """Refuse members that have a parameter, and what the installed botocore does not know. No call, 0.1 s of CPU.

    :raises SpecificationError: names the member, and the parameter, or the closest names.
    """
    _check_owned(extra)
    faults = list(_faults(_shape(), dict(extra), ""))
    if faults:
        raise SpecificationError(f"extra_request: {'; '.join(faults)} (botocore {_botocore_version()})")


def merged(request: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request with the extra members; channels are put together by ChannelName.

    :raises SpecificationError: see :func:`check_extra`; or the whole does not fit the service's model.
    """
    check_extra(extra)
    whole = _merge(request, extra, "")
    from botocore.validate import ParamValidator

    report = ParamValidator().validate({"TrainingJobName": "name", **whole}, _shape())
    if report.has_errors():
        raise SpecificationError(
            f"extra_request makes a request that botocore {_botocore_version()} refuses: {report.generate_report()}"
        )
    return whole


def _check_owned(extra: Mapping[str, Any]) -> None:
    for path in _paths(extra):
        for member, parameter in OWNED.items():
            if path == member or path.startswith(f"{member}."):
                raise SpecificationError(
                    f"extra_request: {member} is set by the parameter {parameter}: say it there, and leave it out here"
                )


def _paths(value: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, item in value.items():
        path = f"{above}.{name}" if above else str(name)
        yield path
        if isinstance(item, Mapping):
            yield from _paths(item, path)


def _merge(ours: Mapping[str, Any], theirs: Mapping[str, Any], above: str) -> dict[str, Any]:
    whole = copy.deepcopy(dict(ours))
    for name, item in theirs.items():
        path = f"{above}.{name}" if above else name
        if name not in whole:
            whole[name] = copy.deepcopy(item)
        elif path == _CHANNELS:
            whole[name] = _merge_channels(whole[name], item)
        elif isinstance(whole[name], Mapping) and isinstance(item, Mapping):
            whole[name] = _merge(whole[name], item, path)
        else:
            raise SpecificationError(
                f"extra_request: {path} is set already, to {whole[name]!r}: what this package says is not overridden"
            )
    return whole


def _merge_channels(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add channels, and members to channels of the same name."""
    whole = {channel["ChannelName"]: channel for channel in ours}
    for channel in theirs:
        name = channel.get("ChannelName")
        further = {key: item for key, item in channel.items() if key != "ChannelName"}
        whole[str(name)] = _merge(whole[str(name)], further, f"channel {name!r}") if name in whole else dict(channel)
    return list(whole.values())


def _faults(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Say what the model does not know or does not allow. Whether something is missing, the whole request shows."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for name, item in value.items():
            where = f"{path}.{name}" if path else str(name)
            if name in shape.members:
                yield from _faults(shape.members[name], item, where)
            else:
                yield f"{where} is no member of {path or OPERATION}{_close(str(name), list(shape.members))}"
    elif shape.type_name == "list" and isinstance(value, (list, tuple)):
        if len(value) > shape.metadata.get("max", len(value)):
            yield f"{path} has {len(value)} items, at most {shape.metadata['max']} are allowed"
        for number, item in enumerate(value):
            yield from _faults(shape.member, item, f"{path}[{number}]")
    elif shape.type_name == "map" and isinstance(value, Mapping):
        if len(value) > shape.metadata.get("max", len(value)):
            yield f"{path} has {len(value)} entries, at most {shape.metadata['max']} are allowed"
        for key, item in value.items():
            yield from _faults(shape.value, item, f"{path}.{key}")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path}={value!r} is none of its values{_close(str(value), shape.enum)}"
    elif not _fits(shape.type_name, value):
        yield f"{path}={value!r} must be a {shape.type_name}"
    elif rule := _broken_rule(shape, value):
        yield f"{path}={value!r} {rule}"


def _broken_rule(shape: Any, value: Any) -> str:
    """Return the limit of the model that a plain value breaks; botocore itself checks lower limits only."""
    size, unit = (len(value), " characters") if isinstance(value, str) else (value, "")
    least, most, pattern = (shape.metadata.get(name) for name in ("min", "max", "pattern"))
    if (least is not None and size < least) or (most is not None and size > most):
        allowed = f"{least or 0} to {most}" if most is not None else f"at least {least}"
        return f"must have {allowed}{unit}" if unit else f"must be {allowed}"
    if pattern and not _matches(pattern, value):
        return f"must match {pattern}"
    return ""


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:  # the patterns are Java's; what Python cannot read is left to AWS
        return True


#: botocore's names of types, and Python's.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (Mapping,),
    "list": (list, tuple),
    "map": (Mapping,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}


def _fits(type_name: str, value: Any) -> bool:
    if isinstance(value, bool) and type_name != "boolean":
        return False
    return isinstance(value, _TYPES.get(type_name, (object,)))


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    shown = ", ".join(sorted(known)[:40])
    return f"; there are {shown}. If it is new, upgrade botocore"


@functools.cache
def _shape() -> Any:
    """Return CreateTrainingJob's input in the installed botocore's service model."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
    return model.operation_model(OPERATION).input_shape


def _botocore_version() -> str:
    import botocore

    return str(botocore.__version__)
