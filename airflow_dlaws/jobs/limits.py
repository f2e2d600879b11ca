"""The limits of a training request, each checked by one function that names the value, what is allowed, the way out.

The numbers are those of CreateTrainingJob in botocore's service model; the checks here run when a DAG is parsed and
again before the first call, so that a bad value costs nothing. A value that still holds a template cannot be judged.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.metric_line import metric_regex

HYPERPARAMETER_COUNT = 100
HYPERPARAMETER_KEY_LENGTH = 256
HYPERPARAMETER_VALUE_LENGTH = 2500
ENVIRONMENT_COUNT = 100
ENVIRONMENT_LENGTH = 512
CHANNEL_COUNT = 20
METRIC_COUNT = 40
METRIC_REGEX_LENGTH = 500
ARGUMENT_COUNT = 100
ARGUMENT_LENGTH = 256
TAG_COUNT = 50
#: `launchers/job_tags.py` adds nine, and either a holder or, to a trial of a sweep, the holder, sweep and trial.
OWN_TAG_COUNT = 12
#: 28 days, the longest a training job may run.
MAX_RUNTIME_S = 28 * 24 * 3600

_S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ENVIRONMENT_KEY = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
_KMS_KEY = re.compile(r"[a-zA-Z0-9:/_-]{1,2048}")
_NETWORK_ID = re.compile(r"[-0-9a-zA-Z]{1,32}")
_RESERVED_TAGS = ("aws:", "dlaws:")
_IMAGE = re.compile(r"\S{1,255}")


def is_template(value: Any) -> bool:
    """Tell whether a value, or anything inside it, is still to be rendered by Airflow (Jinja text, an XComArg)."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value or "{#" in value
    if isinstance(value, Mapping):
        return any(is_template(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(is_template(item) for item in value)
    return hasattr(value, "iter_references")


def check_s3_uri(field: str, value: Any) -> None:
    """Refuse what is no location in S3."""
    if not isinstance(value, str) or not _S3_URI.fullmatch(value):
        raise SpecificationError(
            f"{field}={value!r} is no S3 location: write s3://bucket/prefix with a valid bucket name"
        )


def check_role_arn(field: str, value: Any) -> None:
    """Refuse what is not the ARN of an IAM role."""
    if not isinstance(value, str) or not _ROLE_ARN.fullmatch(value):
        raise SpecificationError(
            f"{field}={value!r} is no role ARN: write arn:aws:iam::ACCOUNT:role/NAME, "
            "the role that SageMaker assumes for the job (not a bare name, not a user)"
        )


def check_instance_type(field: str, value: Any) -> None:
    """Refuse what cannot be an instance type; whether it exists is known to the service model only."""
    if not isinstance(value, str) or not _INSTANCE_TYPE.fullmatch(value):
        raise SpecificationError(
            f"{field}={value!r} is no SageMaker instance type: they read ml.FAMILY.SIZE, as ml.m5.xlarge"
        )


def check_image(field: str, value: Any) -> None:
    """Refuse what cannot be the URI of a container image."""
    if not isinstance(value, str) or not _IMAGE.fullmatch(value):
        raise SpecificationError(
            f"{field}={value!r} is no image URI: write ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG, without spaces"
        )


def check_word(field: str, value: Any) -> None:
    """Refuse what is no single word."""
    if not isinstance(value, str) or not value or value.split() != [value]:
        raise SpecificationError(f"{field}={value!r} must be one word")


def check_key(field: str, value: Any) -> None:
    """Refuse what cannot be a key of the Key Management Service."""
    if not isinstance(value, str) or not _KMS_KEY.fullmatch(value):
        raise SpecificationError(f"{field}={value!r} must be the id, the alias or the ARN of a KMS key")


def check_network_ids(field: str, values: Any, most: int) -> None:
    """Refuse more subnets or security groups than the service takes, and what cannot be one."""
    if isinstance(values, str) or len(values) > most:
        raise SpecificationError(f"{field}={values!r} must be a list of at most {most} ids")
    for value in values:
        if not isinstance(value, str) or not _NETWORK_ID.fullmatch(value):
            raise SpecificationError(f"{field}={value!r} must be an id such as subnet-0abc or sg-0abc")


def check_tags(field: str, values: Any) -> None:
    """Refuse tags that the service refuses; some places are this package's."""
    _check_mapping(field, values, TAG_COUNT - OWN_TAG_COUNT)
    for key, value in values.items():
        _check_length(f"{field} key", key, 128, least=1)
        if strange := sorted({each for each in key if not fits_in_tag(each)}):
            raise SpecificationError(
                f"{field} key {key!r} holds {''.join(strange)!r}: AWS takes letters, digits, spaces and _ . : / = + - @"
            )
        if key.lower().startswith(_RESERVED_TAGS):
            raise SpecificationError(f"{field} key {key!r}: tags that begin with aws: are AWS's, with dlaws: ours")
        _check_length(f"{field}[{key!r}]", value, 256)


def fits_in_tag(character: str) -> bool:
    """Tell whether AWS takes the character in a tag: its pattern is letters, separators, numbers and some signs."""
    return character in "_.:/=+-@" or unicodedata.category(character)[0] in "LZN"


def check_json(field: str, values: Any) -> None:
    """Refuse a mapping that holds anything but JSON."""
    _check_mapping(field, values, 100)
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecificationError(
            f"{field}={values!r} must hold JSON only (texts, numbers, lists...): {error}"
        ) from error


def check_entry_point(field: str, value: Any) -> None:
    """Refuse what cannot be a script inside the source folder."""
    if not isinstance(value, str) or not value.endswith(".py") or value.startswith("/") or ".." in value.split("/"):
        raise SpecificationError(f"{field}={value!r} must be a .py file inside the source folder, as 'train.py'")
    check_arguments(field, (value,))


def check_range(field: str, value: Any, low: int, high: int, unit: str = "") -> None:
    """Refuse what is no integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpecificationError(f"{field}={value!r} must be an integer from {low} to {high}{unit and ' ' + unit}")


def check_channel_name(field: str, value: Any) -> None:
    """Refuse names that SageMaker refuses, and `code`, which carries the source."""
    if not isinstance(value, str) or not _CHANNEL_NAME.fullmatch(value):
        raise SpecificationError(f"{field}={value!r}: a channel name has 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    if value == "code":
        raise SpecificationError(f"{field}='code' is reserved for the source folder: give your channel another name")


def check_hyperparameters(field: str, values: Any) -> None:
    """Refuse more, longer or other hyperparameters than the service takes; their values become strings."""
    _check_mapping(field, values, HYPERPARAMETER_COUNT)
    for key, value in values.items():
        _check_length(f"{field} key", key, HYPERPARAMETER_KEY_LENGTH, least=1)
        if not isinstance(value, (str, int, float, bool)):
            raise SpecificationError(
                f"{field}[{key!r}]={value!r} must be a string, a number or a boolean: "
                "pass structures as a JSON string, or as a file in a channel"
            )
        _check_length(f"{field}[{key!r}]", str(value), HYPERPARAMETER_VALUE_LENGTH)


def check_environment(field: str, values: Any) -> None:
    """Refuse environment variables that the service refuses."""
    _check_mapping(field, values, ENVIRONMENT_COUNT)
    for key, value in values.items():
        if not isinstance(key, str) or not _ENVIRONMENT_KEY.fullmatch(key) or len(key) > ENVIRONMENT_LENGTH:
            raise SpecificationError(
                f"{field} key {key!r}: a variable has up to {ENVIRONMENT_LENGTH} letters, digits and underscores "
                "and starts with no digit"
            )
        _check_length(f"{field}[{key!r}]", value, ENVIRONMENT_LENGTH)


def check_arguments(field: str, values: Any) -> None:
    """Refuse more or longer arguments than the service takes (four belong to the launcher)."""
    if isinstance(values, str) or len(values) > ARGUMENT_COUNT - 4:
        raise SpecificationError(f"{field}={values!r} must be a list of at most {ARGUMENT_COUNT - 4} strings")
    for value in values:
        _check_length(f"{field} item", value, ARGUMENT_LENGTH, least=1)


def check_metrics(field: str, values: Any) -> None:
    """Refuse more or longer metric names than the service takes."""
    if isinstance(values, str) or len(values) > METRIC_COUNT:
        raise SpecificationError(f"{field}={values!r} must be a list of at most {METRIC_COUNT} metric names")
    for value in values:
        _check_length(f"{field} item", value, 255, least=1)
        if (length := len(metric_regex(value))) > METRIC_REGEX_LENGTH:
            raise SpecificationError(
                f"{field} item {value!r}: the expression that finds it has {length} characters, AWS takes "
                f"{METRIC_REGEX_LENGTH}: give it a shorter name, of letters, digits, ':' and '_'"
            )


def _check_mapping(field: str, values: Any, count: int) -> None:
    if not isinstance(values, Mapping):
        raise SpecificationError(f"{field}={values!r} must be a mapping of names to values")
    if len(values) > count:
        raise SpecificationError(f"{field} has {len(values)} entries, at most {count} are allowed: move some to a file")


def _check_length(field: str, value: Any, limit: int, *, least: int = 0) -> None:
    if not isinstance(value, str):
        raise SpecificationError(f"{field}={value!r} must be a string")
    if not least <= len(value) <= limit:
        shown = value if len(value) <= 80 else value[:77] + "..."
        raise SpecificationError(
            f"{field}={shown!r} has {len(value)} characters, {least} to {limit} are allowed: put long values in a file"
        )
