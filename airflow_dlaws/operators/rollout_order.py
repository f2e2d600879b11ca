"""How BlueGreenRolloutOperator's arguments become an order: which model, where, on what, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.operators.rollout_plan import PLAN_FIELDS, RolloutPlanOptions
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.rehearsal import REHEARSAL_SECONDS

#: What does not make another model or configuration: a retry may follow an edited plan.
_NOT_IN_NAMES = (
    "plan",
    "timeout_seconds",
    "state_s3_uri",
    "allow_older",
    "require_approval",
    "keep_configurations",
    "sample_requests",
    "sample_content_type",
    "sns_topic_arn",
)


class RolloutOrderOptions(RolloutPlanOptions):
    """Which model package goes into service on which endpoint, on what instances, with what recorded.

    :param endpoint_name: created if it does not exist.
    :param model_package_arn: what to serve, as returned by RegisterModelOperator.
    :param role_arn: the role that SageMaker assumes to serve.
    :param instance_type: such as ml.m5.xlarge; :param initial_instance_count: how many of them.
    :param state_s3_uri: where lock, state and report are kept (under `rollouts/`).
    :param variant_name: must be that of the configuration in service.
    :param sample_requests: S3 location of an object with one request on each line. They are sent to the new model on a
        throw-away endpoint of one instance before the endpoint is touched, and any answer but 2xx fails the task. Costs
        that instance for the minutes that it takes to start and answer, and needs the quota for it; None: no rehearsal.
    :param sample_content_type: of these requests.
    :param sns_topic_arn: an SNS topic that is told, as JSON with the numbers, of each event: started, promoted,
        rolled_back, inconclusive, needs_a_person, abandoned. At least once each; a failure changes no outcome.
    :param data_capture_s3_uri: where requests and answers are captured; None switches capture off.
    :param capture_percent: share of the requests that is captured.
    :param allow_older: move to an older version of the model package in service; otherwise that is refused.
    :param require_approval: refuse a model package whose ModelApprovalStatus is not Approved.
    :param keep_configurations: after a verified promotion, how many former configurations of this endpoint's rollouts
        stay, the previous one included, with their models; None deletes nothing.
    """

    _also_in_plan = ("initial_instance_count",)
    template_fields: Sequence[str] = (
        "endpoint_name",
        "model_package_arn",
        "role_arn",
        "instance_type",
        "initial_instance_count",
        "state_s3_uri",
        "variant_name",
        *PLAN_FIELDS,
        "data_capture_s3_uri",
        "capture_percent",
        "allow_older",
        "require_approval",
        "keep_configurations",
        "sample_requests",
        "sample_content_type",
        "sns_topic_arn",
    )

    def __init__(
        self,
        *,
        endpoint_name: str,
        model_package_arn: str,
        role_arn: str,
        instance_type: str,
        state_s3_uri: str,
        initial_instance_count: int | str = 1,
        variant_name: str = "AllTraffic",
        data_capture_s3_uri: str | None = None,
        capture_percent: int | str = 100,
        allow_older: bool | str = False,
        require_approval: bool | str = False,
        keep_configurations: int | str | None = None,
        sample_requests: str | None = None,
        sample_content_type: str = "text/csv",
        sns_topic_arn: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint_name, self.model_package_arn, self.role_arn = endpoint_name, model_package_arn, role_arn
        self.instance_type, self.initial_instance_count = instance_type, initial_instance_count
        self.state_s3_uri, self.variant_name = state_s3_uri, variant_name
        self.data_capture_s3_uri, self.capture_percent = data_capture_s3_uri, capture_percent
        self.allow_older, self.keep_configurations = allow_older, keep_configurations
        self.require_approval = require_approval
        self.sample_requests, self.sample_content_type = sample_requests, sample_content_type
        self.sns_topic_arn = sns_topic_arn

    def _order(self) -> RolloutOrder:
        plan, samples = self._plan(), _optional(self.sample_requests)
        more = REHEARSAL_SECONDS if samples and self.timeout is None else 0.0
        return RolloutOrder(
            endpoint_name=self.endpoint_name,
            model_package_arn=self.model_package_arn,
            role_arn=self.role_arn,
            instance_type=self.instance_type,
            initial_instance_count=_integer("initial_instance_count", self.initial_instance_count),
            variant_name=self.variant_name,
            state_s3_uri=self.state_s3_uri,
            data_capture_s3_uri=_optional(self.data_capture_s3_uri),
            capture_percent=_integer("capture_percent", self.capture_percent),
            allow_older=boolean("allow_older", self.allow_older),
            require_approval=boolean("require_approval", self.require_approval),
            keep_configurations=_count("keep_configurations", self.keep_configurations),
            sns_topic_arn=_optional(self.sns_topic_arn),
            sample_requests=samples,
            sample_content_type=self.sample_content_type,
            plan=plan,
            timeout_seconds=self._timeout_seconds(plan) + more,
        )

    def _refuse_early(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        self._refuse_bad_plan()
        if not any(is_template(getattr(self, name)) for name in self.template_fields):
            self._order()


def names_for(identity: TaskIdentity, order: RolloutOrder) -> RolloutNames:
    """Return the names of what this task makes. The plan is no part of them: a retry may follow an edited one."""
    document = to_json(order)
    for field in _NOT_IN_NAMES:
        del document[field]
    digest = digest_of(document)
    index = f"[{identity.map_index}]" if identity.map_index >= 0 else ""
    return RolloutNames(
        model_name=identity.name(digest, role="model"),
        config_name=identity.name(digest, role="config"),
        rehearsal_name=identity.name(digest, role="rehearsal"),
        shadow_config_name=identity.name(digest, role="shadow"),
        owner=f"{identity.deployment}/{identity.dag_id}/{identity.run_id}/{identity.task_id}{index}".strip("/"),
        digest=digest,
        task=identity,
    )


def _integer(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise SpecificationError(f"{name}={value!r} is no whole number") from error


def _optional(value: str | None) -> str | None:
    """Return None also where a template rendered it as text."""
    return None if value in (None, "", "None") else value


def _count(name: str, value: Any) -> int | None:
    return None if value in (None, "", "None") else _integer(name, value)


def boolean(name: str, value: Any) -> bool:
    """Read a boolean that may have come from a template as text."""
    words = {"true": True, "false": False}
    if (text := str(value).strip().lower()) not in words:
        raise SpecificationError(f"{name}={value!r} must be true or false")
    return words[text]
