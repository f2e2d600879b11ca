"""The order for one rollout: which model, on which endpoint, on what machines, by which plan. Validates itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.rollout.plan import RolloutPlan, Strategy

#: EndpointName, VariantName: letters, digits, single dashes, 63 characters.
_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}")
_PACKAGE_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:model-package/\S+")
_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]+(\.fifo)?")
#: AWS's default limit is lower; this only catches nonsense.
_MOST_INSTANCES = 1000
_MOST_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class RolloutOrder:
    """What a rollout task asks for. Everything another process needs to go on with it."""

    endpoint_name: str
    model_package_arn: str
    role_arn: str
    instance_type: str
    initial_instance_count: int = 1
    variant_name: str = "AllTraffic"
    #: Where state, lock and report are kept.
    state_s3_uri: str
    #: Where requests are captured; None switches data capture off.
    data_capture_s3_uri: str | None = None
    capture_percent: int = 100
    #: Move to a model package version that is older than the one in service.
    allow_older: bool = False
    #: Refuse a model package that nobody has approved.
    require_approval: bool = False
    #: After a verified promotion, how many former configurations stay, the previous one included; None keeps all.
    keep_configurations: int | None = None
    #: An object with one request on each line, sent to a throw-away endpoint first; None switches the rehearsal off.
    sample_requests: str | None = None
    sample_content_type: str = "text/csv"
    #: Told of every event; None for silence.
    sns_topic_arn: str | None = None
    plan: RolloutPlan = field(default_factory=RolloutPlan)
    #: Seconds until the rollout goes back because it takes too long.
    timeout_seconds: float

    def __post_init__(self) -> None:
        for name in ("endpoint_name", "variant_name"):
            value = getattr(self, name)
            if not _NAME.fullmatch(value):
                raise SpecificationError(f"{name}={value!r}: use 1 to 63 letters, digits and single dashes")
        if not _PACKAGE_ARN.fullmatch(self.model_package_arn):
            raise SpecificationError(
                f"model_package_arn={self.model_package_arn!r} is no model package: give the ARN that "
                "RegisterModelOperator returns (arn:aws:sagemaker:REGION:ACCOUNT:model-package/GROUP/VERSION)"
            )
        limits.check_role_arn("role_arn", self.role_arn)
        limits.check_instance_type("instance_type", self.instance_type)
        limits.check_range("initial_instance_count", self.initial_instance_count, 1, _MOST_INSTANCES)
        limits.check_range("capture_percent", self.capture_percent, 1, 100, "per cent")
        if self.keep_configurations is not None:
            limits.check_range("keep_configurations", self.keep_configurations, 1, _MOST_KEPT)
        limits.check_s3_uri("state_s3_uri", self.state_s3_uri)
        if self.data_capture_s3_uri is not None:
            limits.check_s3_uri("data_capture_s3_uri", self.data_capture_s3_uri)
        if self.sns_topic_arn is not None and not _TOPIC_ARN.fullmatch(self.sns_topic_arn):
            raise SpecificationError(
                f"sns_topic_arn={self.sns_topic_arn!r} is no topic: give arn:aws:sns:REGION:ACCOUNT:NAME"
            )
        if self.sample_requests is not None:
            limits.check_s3_uri("sample_requests", self.sample_requests)
        watched = self.plan.bake_seconds + self.plan.shadow_seconds
        if self.timeout_seconds <= watched:
            raise SpecificationError(
                f"timeout={self.timeout_seconds:g} s is over before the new model was watched for "
                f"{watched} s: raise timeout, or shorten the waits"
            )
        if self.plan.strategy is Strategy.ROLLING and self.plan.instance_count != self.initial_instance_count:
            raise SpecificationError(
                f"the plan counts batches of {self.plan.instance_count} instance(s), and initial_instance_count is "
                f"{self.initial_instance_count}: make them equal"
            )


def is_older(requested_arn: str, live_arn: str) -> bool:
    """Tell whether a model package is an older version of the same group than another one."""
    requested, live = (arn.rpartition("/") for arn in (requested_arn, live_arn))
    same_group = requested[0] == live[0] and requested[2].isdigit() and live[2].isdigit()
    return same_group and int(requested[2]) < int(live[2])


@dataclass(frozen=True, kw_only=True)
class RolloutNames:
    """The names that belong to the task that asks, up to the next clear."""

    model_name: str
    config_name: str
    #: Of the throw-away endpoint and its configuration.
    rehearsal_name: str = ""
    #: The task, without its lives: who may take up its own lock again.
    owner: str
    #: Tells the same task's lives apart in tags and messages.
    digest: str
    #: The configuration in which the new model is a shadow.
    shadow_config_name: str = ""
    #: Whose throw-away endpoint it is, for whoever finds one; None in the notes of older versions.
    task: TaskIdentity | None = None
