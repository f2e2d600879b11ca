"""Application Auto Scaling for the variants of endpoints: targets, policies and scheduled actions are kept and checked.

Nothing here scales by itself, and target tracking makes no alarms: a test changes the instance count as AWS would, by
UpdateEndpointWeightsAndCapacities. The rules are those of the API reference and of SageMaker's developer guide ("Update
endpoints that use auto scaling"); `endpoints` refuses the updates that AWS refuses.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError
from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import dispatch, protocol, service_model
from airflow_dlaws.local.context import Handler, LocalContext, RequestContext
from airflow_dlaws.local.errors import ServiceError, unsupported, unsupported_operation, validation_error
from airflow_dlaws.local.scalable_targets import ScalableTarget

SERVICE = "application-autoscaling"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
_RESOURCE = re.compile(r"endpoint/(?P<endpoint>[^/]+)/variant/(?P<variant>[^/]+)")
_POLICY_BODIES = {
    "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
    "StepScaling": "StepScalingPolicyConfiguration",
}
_NOT_SUSPENDED = {
    "DynamicScalingInSuspended": False,
    "DynamicScalingOutSuspended": False,
    "ScheduledScalingSuspended": False,
}
#: What AWS answers where MaxResults is not given; also the most it takes.
_PAGE = 50


class ApplicationAutoScaling:
    """Answers requests signed for `application-autoscaling`."""

    def __init__(self, context: LocalContext) -> None:
        self._context, self._targets = context, context.scalable_targets
        self.operations: dict[str, Handler] = {
            "RegisterScalableTarget": self._register,
            "DescribeScalableTargets": self._describe_targets,
            "DeregisterScalableTarget": self._deregister,
            "PutScalingPolicy": self._put_policy,
            "DescribeScalingPolicies": self._describe_policies,
            "DeleteScalingPolicy": self._delete_policy,
            "PutScheduledAction": self._put_action,
            "DescribeScheduledActions": self._describe_actions,
            "DeleteScheduledAction": self._delete_action,
            "ListTagsForResource": self._list_tags,
            "TagResource": self._tag,
        }

    def answer(self, request: Request, region: str) -> Response:
        """Answer in the JSON protocol."""
        return dispatch.guarded(protocol.json_error, lambda: self._answer(request, region))

    def _answer(self, request: Request, region: str) -> Response:
        name = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if name not in self.operations:
            raise unsupported_operation(name, list(self.operations))
        operation = service_model.load(SERVICE).operation_model(name)
        document = protocol.json_body(request)
        with self._targets.lock:
            answer = dispatch.perform(self._context, self.operations[name], operation, document, region)
        return protocol.json_answer(operation, answer)

    def _register(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        resource = _variant_of(asked)
        self._refuse_missing(resource, request.region)
        target = self._targets.find(request.region, asked["ResourceId"])
        if target is None:
            target = self._new_target(asked, request)
        elif asked.get("Tags"):
            raise validation_error(
                "The scalable target that you tried to tag already exists. To update tags on an existing scalable "
                "target, use the TagResource API."
            )
        changes: dict[str, Any] = {name: asked[name] for name in ("MinCapacity", "MaxCapacity") if name in asked}
        wanted = target.description | changes
        least, most = wanted["MinCapacity"], wanted["MaxCapacity"]
        if least > most:
            raise validation_error(f"Maximum capacity ({most}) cannot be less than minimum capacity ({least})")
        target.description.update(changes)
        target.description["SuspendedState"] |= asked.get("SuspendedState") or {}
        self._targets.add(request.region, asked["ResourceId"], target)
        return {"ScalableTargetARN": target.description["ScalableTargetARN"]}

    def _new_target(self, asked: Mapping[str, Any], request: RequestContext) -> ScalableTarget:
        for name in ("MinCapacity", "MaxCapacity"):
            if name not in asked:
                raise validation_error(f"{name} is required to register a new scalable target")
        role = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        service = "sagemaker.application-autoscaling.amazonaws.com"
        description = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": asked["ResourceId"],
            "ScalableDimension": DIMENSION,
            "MinCapacity": asked["MinCapacity"],
            "MaxCapacity": asked["MaxCapacity"],
            "RoleARN": f"arn:aws:iam::{request.account}:role/aws-service-role/{service}/{role}",
            "CreationTime": self._context.now(),
            "SuspendedState": dict(_NOT_SUSPENDED),
            "ScalableTargetARN": f"{_arn(request)}:scalable-target/{uuid.uuid4().hex}",
        }
        return ScalableTarget(description=description, tags=dict(asked.get("Tags") or {}))

    def _refuse_missing(self, resource: re.Match[str], region: str) -> None:
        try:
            answer = self._context.client("sagemaker", region).describe_endpoint(EndpointName=resource["endpoint"])
        except ClientError as error:
            raise validation_error(f"SageMaker endpoint doesn't exist: {resource['endpoint']}") from error
        names = [variant["VariantName"] for variant in answer.get("ProductionVariants", [])]
        if resource["variant"] not in names:
            raise validation_error(f"SageMaker variant doesn't exist: {resource[0]} (the endpoint has {names})")

    def _deregister(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        """Deregister; AWS deletes policies and scheduled actions with it."""
        _variant_of(asked)
        if not self._targets.remove(request.region, asked["ResourceId"]):
            raise _not_found("scalable target", asked)
        return {}

    def _target(self, asked: Mapping[str, Any], request: RequestContext) -> ScalableTarget:
        _variant_of(asked)
        target = self._targets.find(request.region, asked["ResourceId"])
        if target is None:
            raise _not_found("scalable target", asked)
        return target

    def _put_policy(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        target, name = self._target(asked, request), asked["PolicyName"]
        old = target.policies.get(name)
        kind = asked.get("PolicyType") or (old or {}).get("PolicyType") or "StepScaling"
        if kind not in _POLICY_BODIES:
            raise unsupported(f"PolicyType {kind}")
        body = _POLICY_BODIES[kind]
        if body not in asked and (old is None or body not in old):
            raise validation_error(f"{body} is required for a policy of type {kind}")
        arn = f"arn:aws:autoscaling:{request.region}:{request.account}:scalingPolicy:{uuid.uuid4()}:resource/sagemaker/"
        policy = {
            "PolicyARN": f"{arn}{asked['ResourceId']}:policyName/{name}",
            "CreationTime": self._context.now(),
            **(old or {}),
            **{key: asked[key] for key in ("PolicyName", "ServiceNamespace", "ResourceId", "ScalableDimension")},
            "PolicyType": kind,
            "Alarms": [],
        }
        if body in asked:
            policy[body] = asked[body]
        target.policies[name] = policy
        return {"PolicyARN": policy["PolicyARN"], "Alarms": []}

    def _delete_policy(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        if self._target(asked, request).policies.pop(asked["PolicyName"], None) is None:
            raise _not_found(f"scaling policy {asked['PolicyName']}", asked)
        return {}

    def _put_action(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        target, name = self._target(asked, request), asked["ScheduledActionName"]
        old = target.actions.get(name, {})
        if not old and "Schedule" not in asked:
            raise validation_error("Schedule is required to create a scheduled action")
        arn = f"arn:aws:autoscaling:{request.region}:{request.account}:scheduledAction:{uuid.uuid4()}"
        made = {
            "ScheduledActionARN": f"{arn}:resource/sagemaker/{asked['ResourceId']}:scheduledActionName/{name}",
            "CreationTime": self._context.now(),
        }
        target.actions[name] = {**made, **old, **asked}
        return {}

    def _delete_action(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        if self._target(asked, request).actions.pop(asked["ScheduledActionName"], None) is None:
            raise _not_found(f"scheduled action {asked['ScheduledActionName']}", asked)
        return {}

    def _describe_targets(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        wanted = asked.get("ResourceIds")
        rows = [target.description for target in self._all(asked, request)]
        return _page([row for row in rows if not wanted or row["ResourceId"] in wanted], asked, "ScalableTargets")

    def _describe_policies(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        rows = [policy for target in self._all(asked, request) for policy in target.policies.values()]
        return _page(_named(rows, asked, "PolicyName"), asked, "ScalingPolicies")

    def _describe_actions(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        rows = [action for target in self._all(asked, request) for action in target.actions.values()]
        return _page(_named(rows, asked, "ScheduledActionName"), asked, "ScheduledActions")

    def _all(self, asked: Mapping[str, Any], request: RequestContext) -> list[ScalableTarget]:
        if asked["ServiceNamespace"] != "sagemaker":
            raise unsupported(f"ServiceNamespace {asked['ServiceNamespace']}")
        return self._targets.all(request.region)

    def _list_tags(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return {"Tags": self._tagged(asked, request).tags}

    def _tag(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        self._tagged(asked, request).tags.update(asked["Tags"])
        return {}

    def _tagged(self, asked: Mapping[str, Any], request: RequestContext) -> ScalableTarget:
        for target in self._targets.all(request.region):
            if target.description["ScalableTargetARN"] == asked["ResourceARN"]:
                return target
        raise ServiceError("ResourceNotFoundException", f"The resource {asked['ResourceARN']} could not be found.")


def _variant_of(asked: Mapping[str, Any]) -> re.Match[str]:
    """Return endpoint and variant of a ResourceId; only variants of endpoints scale here."""
    if asked["ServiceNamespace"] != "sagemaker" or asked["ScalableDimension"] != DIMENSION:
        raise unsupported(f"{asked['ServiceNamespace']} with {asked['ScalableDimension']}")
    found = _RESOURCE.fullmatch(asked["ResourceId"])
    if found is None:
        raise validation_error("Unsupported service namespace, resource type or scalable dimension")
    return found


def _not_found(what: str, asked: Mapping[str, Any]) -> ServiceError:
    return ServiceError(
        "ObjectNotFoundException",
        f"No {what} found for service namespace: {asked['ServiceNamespace']}, resource ID: {asked['ResourceId']}, "
        f"scalable dimension: {asked['ScalableDimension']}",
    )


def _named(rows: list[dict[str, Any]], asked: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    names, resource = asked.get(f"{key}s"), asked.get("ResourceId")
    return [row for row in rows if (not names or row[key] in names) and (not resource or row["ResourceId"] == resource)]


def _page(rows: list[dict[str, Any]], asked: Mapping[str, Any], into: str) -> dict[str, Any]:
    start = int(asked.get("NextToken") or 0)
    end = start + min(_PAGE, asked.get("MaxResults") or _PAGE)
    return {into: rows[start:end], "NextToken": str(end) if end < len(rows) else None}


def _arn(request: RequestContext) -> str:
    return f"arn:aws:{SERVICE}:{request.region}:{request.account}"
