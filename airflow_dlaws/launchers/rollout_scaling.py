"""A variant's registration with Application Auto Scaling: read, taken off, put back and read again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import ServiceUnavailable
from airflow_dlaws.launchers.aws_errors import error_code, service_errors
from airflow_dlaws.rollout.scaling import ScalableTarget

log = logging.getLogger(__name__)

_POLICY_BODIES = ("TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration")
_ACTION_MEMBERS = ("Schedule", "Timezone", "StartTime", "EndTime", "ScalableTargetAction")
#: RegisterScalableTarget: "there might be a brief delay until the operation achieves eventual consistency".
_READS, _PAUSE_SECONDS = 6, 2.0


class VariantScaling:
    """The registration of one variant.

    :param client: gives the boto3 client of a service ("application-autoscaling"), made when it is needed.
    """

    def __init__(
        self,
        client: Callable[[str], Any],
        *,
        endpoint_name: str,
        variant_name: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._sleep = client, sleep
        self._names = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{endpoint_name}/variant/{variant_name}",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }

    @property
    def _service(self) -> Any:
        return self._client("application-autoscaling")

    @property
    def resource(self) -> str:
        """The ResourceId."""
        return self._names["ResourceId"]

    def read(self) -> ScalableTarget | None:
        """Return how the variant is registered, None where it is not."""
        names = self._names
        with service_errors(f"read the autoscaling of {self.resource}"):
            answer = self._service.describe_scalable_targets(
                ServiceNamespace=names["ServiceNamespace"],
                ResourceIds=[names["ResourceId"]],
                ScalableDimension=names["ScalableDimension"],
            )
            if not answer["ScalableTargets"]:
                return None
            (found,) = answer["ScalableTargets"]
            return ScalableTarget(
                min_capacity=found["MinCapacity"],
                max_capacity=found["MaxCapacity"],
                suspended=found.get("SuspendedState") or {},
                policies=tuple(_policy(row) for row in self._policies()),
                actions=tuple(_action(row) for row in self._actions()),
                tags=self._tags(found.get("ScalableTargetARN")),
            )

    def _policies(self) -> Iterator[Mapping[str, Any]]:
        for page in self._service.get_paginator("describe_scaling_policies").paginate(**self._names):
            yield from page["ScalingPolicies"]

    def _actions(self) -> Iterator[Mapping[str, Any]]:
        for page in self._service.get_paginator("describe_scheduled_actions").paginate(**self._names):
            yield from page["ScheduledActions"]

    def _tags(self, arn: str | None) -> dict[str, str]:
        """Return the tags that a person may set; those of AWS itself come and go with AWS."""
        tags = self._service.list_tags_for_resource(ResourceARN=arn)["Tags"] if arn else {}
        return {key: value for key, value in tags.items() if not key.startswith("aws:")}

    def take_off(self) -> None:
        """Deregister the variant, and with it its policies and scheduled actions; not registered is no error."""
        with service_errors(f"deregister {self.resource} from autoscaling"):
            try:
                self._service.deregister_scalable_target(**self._names)
            except ClientError as error:
                if error_code(error) != "ObjectNotFoundException":
                    raise

    def put_back(self, target: ScalableTarget) -> None:
        """Register the variant as it was, and read it back. What somebody else has registered meanwhile stays.

        :raises DlawsError: AWS refuses it, or shows something else after it.
        """
        found = self.read()
        if found and (found.min_capacity, found.max_capacity) != (target.min_capacity, target.max_capacity):
            log.warning(
                "%s was registered by somebody else meanwhile (%s): left so, not put back to %s",
                self.resource,
                found.sentence,
                target.sentence,
            )
            return
        if found is None or not found.includes(target):
            self._register(target, found)
            self._read_back(target)
        log.info("autoscaling of %s is as it was: %s", self.resource, target.sentence)

    def _register(self, target: ScalableTarget, found: ScalableTarget | None) -> None:
        """Register; where a try that died has registered already (`found`), what it did not come to."""
        with service_errors(f"register {self.resource} for autoscaling again ({target.sentence})"):
            answer = self._service.register_scalable_target(
                **self._names,
                MinCapacity=target.min_capacity,
                MaxCapacity=target.max_capacity,
                **({"SuspendedState": dict(target.suspended)} if target.suspended else {}),
                # "The scalable target that you tried to tag already exists": tags are taken with a new one alone.
                **({"Tags": dict(target.tags)} if target.tags and found is None else {}),
            )
            if found is not None and not target.tags.items() <= found.tags.items():
                self._service.tag_resource(ResourceARN=answer["ScalableTargetARN"], Tags=dict(target.tags))
            for policy in target.policies:
                self._service.put_scaling_policy(**self._names, **policy)
            for action in target.actions:
                self._service.put_scheduled_action(**self._names, **action)

    def _read_back(self, target: ScalableTarget) -> None:
        for attempt in range(_READS):
            found = self.read()
            if found and found.includes(target):
                return
            if attempt < _READS - 1:
                self._sleep(_PAUSE_SECONDS)
        shown = found.sentence if found else "not registered"
        raise ServiceUnavailable(f"{self.resource} was registered again ({target.sentence}), but AWS shows: {shown}")


def _policy(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("PolicyName", "PolicyType", *_POLICY_BODIES)
    return {name: row[name] for name in names if row.get(name) is not None}


def _action(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of PutScheduledAction, its times as text: the record is kept as JSON."""
    members = {name: row[name] for name in ("ScheduledActionName", *_ACTION_MEMBERS) if row.get(name) is not None}
    return {name: value.isoformat() if name in ("StartTime", "EndTime") else value for name, value in members.items()}
