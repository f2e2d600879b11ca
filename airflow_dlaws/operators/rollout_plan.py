"""How BlueGreenRolloutOperator's arguments become a plan: how traffic moves, what is harm, how long all may take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.operators.base import DlawsOperator
from airflow_dlaws.rollout.plan import OnKill, RolloutPlan, plan_from_text

#: Waiting for an endpoint that is busy comes on top of AWS's own limit.
_DEFAULT_MARGIN_SECONDS = 1800
#: The arguments that make up the plan; each may be a template.
PLAN_FIELDS = (
    "strategy",
    "canary_percent",
    "linear_step_percent",
    "wait_seconds",
    "termination_wait_seconds",
    "maximum_execution_seconds",
    "smallest_harm",
    "judge_latency",
    "smallest_slowdown",
    "latency_warm_up_seconds",
    "judge_predictions",
    "largest_prediction_shift",
    "business_metric",
    "alpha",
    "min_requests",
    "on_no_traffic",
    "alarm_error_rate",
    "maximum_batch_percent",
    "rollback_maximum_batch_percent",
    "shadow_seconds",
    "shadow_percent",
    "smallest_agreement",
    "agreement_tolerance",
    "capture_lag_seconds",
)


class RolloutPlanOptions(DlawsOperator):
    """How traffic moves to the new model, what counts as harm, and how long all may take.

    :param strategy: "canary", "linear", "all_at_once" or "rolling" (batches of instances, without a second fleet).
    :param canary_percent: 1 to 50; :param linear_step_percent: 10 to 50.
    :param maximum_batch_percent: rolling replaces so much at a time, 5 to 50, in whole instances.
    :param rollback_maximum_batch_percent: rolling goes back by so much at a time.
    :param shadow_seconds: before any user sees it, the new model gets copies of the requests for so long; 0 is not at
        all. Its answers must then be proven to agree with production's, and neither fail nor come later.
    :param shadow_percent: share of the requests that is copied.
    :param smallest_agreement: the share of its answers that must agree, 0.5 to 0.999.
    :param agreement_tolerance: two numbers agree within this share of the larger one.
    :param capture_lag_seconds: how long captured answers may still come once shadow_seconds are over.
    :param wait_seconds: how long a partial step is watched.
    :param termination_wait_seconds: how long blue is kept after green has all traffic (all_at_once: watched then).
    :param maximum_execution_seconds: AWS rolls back after this; by default the waits plus 30 minutes.
    :param smallest_harm: the smallest ratio of error rates, green to blue, that is worth catching.
    :param judge_latency: judge latency beside errors, against the quantiles of blue's hour before.
    :param smallest_slowdown: the smallest factor by which green may be slower that is worth catching.
    :param latency_warm_up_seconds: latency is not judged so soon after green's first request.
    :param judge_predictions: judge what green answers against what blue answers; needs `data_capture_s3_uri`.
    :param largest_prediction_shift: the largest share of answers that may be others than blue's (total variation).
    :param business_metric: dotted path of a function, or a mapping of the fields of
        :class:`~airflow_dlaws.rollout.business.BusinessMetric`; the function must be importable by the triggerer.
    :param alpha: chance that a healthy model is rolled back, over all looks together.
    :param min_requests: below this number of compared requests on green there is no verdict.
    :param on_no_traffic: "rollback" or "promote", where there is no verdict.
    :param alarm_error_rate: CloudWatch alone rolls back at this 5xx rate of green in two successive minutes.
    :param on_kill: "rollback" trips the alarm when the task is killed, cleared or marked; "leave" lets AWS go on.
    :param timeout: after this the rollout goes back; seconds or timedelta, by default AWS's limit plus 30 minutes.
    :param poll_interval: seconds between two looks.
    """

    #: Arguments of others that the plan is made of as well.
    _also_in_plan: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        strategy: str = "canary",
        canary_percent: int | str = 10,
        linear_step_percent: int | str = 25,
        wait_seconds: int | str = 600,
        termination_wait_seconds: int | str = 300,
        maximum_execution_seconds: int | str | None = None,
        smallest_harm: float | str = 1.5,
        judge_latency: bool | str = True,
        smallest_slowdown: float | str = 1.2,
        latency_warm_up_seconds: float | str = 60,
        judge_predictions: bool | str = True,
        largest_prediction_shift: float | str = 0.2,
        business_metric: str | Mapping[str, Any] | None = None,
        alpha: float | str = 0.05,
        min_requests: int | str = 50,
        on_no_traffic: str = "rollback",
        alarm_error_rate: float | str = 0.5,
        maximum_batch_percent: int | str = 25,
        rollback_maximum_batch_percent: int | str = 100,
        shadow_seconds: int | str = 0,
        shadow_percent: int | str = 100,
        smallest_agreement: float | str = 0.9,
        agreement_tolerance: float | str = 0.05,
        capture_lag_seconds: float | str = 600,
        on_kill: str = "rollback",
        timeout: float | timedelta | None = None,
        poll_interval: float = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.strategy, self.canary_percent, self.linear_step_percent = strategy, canary_percent, linear_step_percent
        self.wait_seconds, self.termination_wait_seconds = wait_seconds, termination_wait_seconds
        self.maximum_execution_seconds = maximum_execution_seconds
        self.smallest_harm, self.alpha, self.min_requests = smallest_harm, alpha, min_requests
        self.judge_latency, self.smallest_slowdown = judge_latency, smallest_slowdown
        self.latency_warm_up_seconds = latency_warm_up_seconds
        self.judge_predictions, self.largest_prediction_shift = judge_predictions, largest_prediction_shift
        self.business_metric = business_metric
        self.on_no_traffic, self.alarm_error_rate = on_no_traffic, alarm_error_rate
        self.maximum_batch_percent = maximum_batch_percent
        self.rollback_maximum_batch_percent = rollback_maximum_batch_percent
        self.shadow_seconds, self.shadow_percent = shadow_seconds, shadow_percent
        self.smallest_agreement, self.agreement_tolerance = smallest_agreement, agreement_tolerance
        self.capture_lag_seconds = capture_lag_seconds
        self.kill_policy, self.timeout, self.poll_interval = on_kill, timeout, poll_interval

    def _plan(self) -> RolloutPlan:
        values = {name: getattr(self, name) for name in PLAN_FIELDS}
        # Batches of a rolling update are counted in instances.
        values["instance_count"] = getattr(self, "initial_instance_count", 1)
        return plan_from_text({**values, "look_seconds": self.poll_interval})

    def _timeout_seconds(self, plan: RolloutPlan) -> float:
        if self.timeout is None:
            return float(plan.shadow_execution_seconds + plan.execution_seconds + _DEFAULT_MARGIN_SECONDS)
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else float(self.timeout)

    def _refuse_bad_plan(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        if self.kill_policy not in list(OnKill):
            raise SpecificationError(f"on_kill={self.kill_policy!r}: give {' or '.join(OnKill)}")
        if not any(is_template(getattr(self, name)) for name in (*PLAN_FIELDS, *self._also_in_plan)):
            self._plan()
