"""Move an endpoint to a model, guarded: green means that the requested configuration is in service."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_dlaws._compat import FAILED_TRIGGER_METHOD, AirflowFailException, AirflowSkipException, Context
from airflow_dlaws.errors import DlawsError, Inconclusive, OutcomeUnacceptable, ServiceRefused, SpecificationError
from airflow_dlaws.hooks.aws import AwsClients
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.job_log import ENDPOINT_LOG_GROUPS, read_tail
from airflow_dlaws.links.aws import ConsoleLink, ReportLink, report_url, sagemaker_console_url
from airflow_dlaws.operators.base import DlawsOperator, airflow_errors, held_back, identity_of
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import OnKill, RolloutPlan, plan_from_text
from airflow_dlaws.rollout.result import RolloutOutcome, RolloutResult, explain
from airflow_dlaws.rollout.state import Cause, Step
from airflow_dlaws.rollout.transitions import Action

if TYPE_CHECKING:
    from airflow_dlaws.launchers.rollout import RolloutConductor

#: Waiting for an endpoint that is busy comes on top of AWS's own limit.
_DEFAULT_MARGIN_SECONDS = 1800
_TRIGGER_GRACE = timedelta(minutes=10)
#: How long a worker stays to see a failed task's rollout back where it was; AWS goes on without it.
_FAILURE_WAIT_SECONDS = 900.0
#: A killed process has little time: Airflow follows SIGTERM with SIGKILL after 60 seconds.
_KILL_WAIT_SECONDS = 20.0
#: Enough for a traceback, short enough for an e-mail.
_LINES_IN_MESSAGE = 20
#: The arguments that make up the plan; each may be a template.
_PLAN_FIELDS = (
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
    "alpha",
    "min_requests",
    "on_no_traffic",
    "alarm_error_rate",
)


class BlueGreenRolloutOperator(DlawsOperator):
    """Roll a model package out on an endpoint by SageMaker's blue/green guardrails, and check that it is in service.

    The first deployment creates the endpoint. Every other one moves traffic as planned, compares green's 5xx rate with
    blue's at every look (an always-valid sequential test), and trips an alarm that makes AWS roll back as soon as harm
    is proven. The task succeeds only if the endpoint is read back InService on the requested configuration with nothing
    pending; it returns a :class:`~airflow_dlaws.rollout.result.RolloutResult` as JSON. A rollback, too few requests for
    a verdict, or an endpoint that needs a person fail the task at once, with the numbers and a report.

    In a backfill run the task is skipped, unless `allow_backfill`: failing would stop a backfill of many months, and
    succeeding would say that a model was deployed. So it is in a run of the calendar that a later one has overtaken.

    :param endpoint_name: created if it does not exist.
    :param model_package_arn: what to serve, as returned by RegisterModelOperator.
    :param role_arn: the role that SageMaker assumes to serve.
    :param instance_type: such as ml.m5.xlarge; :param initial_instance_count: how many of them.
    :param state_s3_uri: where lock, state and report are kept (under `rollouts/`).
    :param variant_name: must be that of the configuration in service.
    :param strategy: "canary", "linear" or "all_at_once".
    :param canary_percent: 1 to 50; :param linear_step_percent: 10 to 50.
    :param wait_seconds: how long a partial step is watched.
    :param termination_wait_seconds: how long blue is kept after green has all traffic (all_at_once: watched then).
    :param maximum_execution_seconds: AWS rolls back after this; by default the waits plus 30 minutes.
    :param smallest_harm: the smallest ratio of error rates, green to blue, that is worth catching.
    :param judge_latency: judge latency beside errors, against the quantiles of blue's hour before.
    :param smallest_slowdown: the smallest factor by which green may be slower that is worth catching.
    :param latency_warm_up_seconds: latency is not judged so soon after green's first request.
    :param alpha: chance that a healthy model is rolled back, over all looks together.
    :param min_requests: below this number of compared requests on green there is no verdict.
    :param on_no_traffic: "rollback" or "promote", where there is no verdict.
    :param alarm_error_rate: CloudWatch alone rolls back at this 5xx rate of green in two successive minutes.
    :param data_capture_s3_uri: where requests and answers are captured; None switches capture off.
    :param capture_percent: share of the requests that is captured.
    :param allow_backfill: deploy from backfills and overtaken runs too.
    :param allow_older: move to an older version of the model package in service; otherwise that is refused.
    :param keep_configurations: after a verified promotion, how many former configurations of this endpoint's rollouts
        stay, the previous one included, with their models; None deletes nothing.
    :param on_kill: "rollback" trips the alarm when the task is killed, cleared or marked; "leave" lets AWS go on.
    :param timeout: after this the rollout goes back; seconds or timedelta, by default AWS's limit plus 30 minutes.
    :param poll_interval: seconds between two looks.
    :param deferrable: wait in the triggerer, without a worker.
    """

    template_fields: Sequence[str] = (
        "endpoint_name",
        "model_package_arn",
        "role_arn",
        "instance_type",
        "initial_instance_count",
        "state_s3_uri",
        "variant_name",
        *_PLAN_FIELDS,
        "data_capture_s3_uri",
        "capture_percent",
        "allow_backfill",
        "allow_older",
        "keep_configurations",
    )
    operator_extra_links = (ConsoleLink(), ReportLink())
    ui_color = "#dcefe4"

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
        alpha: float | str = 0.05,
        min_requests: int | str = 50,
        on_no_traffic: str = "rollback",
        alarm_error_rate: float | str = 0.5,
        data_capture_s3_uri: str | None = None,
        capture_percent: int | str = 100,
        allow_backfill: bool | str = False,
        allow_older: bool | str = False,
        keep_configurations: int | str | None = None,
        on_kill: str = "rollback",
        timeout: float | timedelta | None = None,
        poll_interval: float = 30,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint_name, self.model_package_arn, self.role_arn = endpoint_name, model_package_arn, role_arn
        self.instance_type, self.initial_instance_count = instance_type, initial_instance_count
        self.state_s3_uri, self.variant_name = state_s3_uri, variant_name
        self.strategy, self.canary_percent, self.linear_step_percent = strategy, canary_percent, linear_step_percent
        self.wait_seconds, self.termination_wait_seconds = wait_seconds, termination_wait_seconds
        self.maximum_execution_seconds = maximum_execution_seconds
        self.smallest_harm, self.alpha, self.min_requests = smallest_harm, alpha, min_requests
        self.judge_latency, self.smallest_slowdown = judge_latency, smallest_slowdown
        self.latency_warm_up_seconds = latency_warm_up_seconds
        self.on_no_traffic, self.alarm_error_rate = on_no_traffic, alarm_error_rate
        self.data_capture_s3_uri, self.capture_percent = data_capture_s3_uri, capture_percent
        self.allow_backfill, self.kill_policy = allow_backfill, on_kill
        self.allow_older, self.keep_configurations = allow_older, keep_configurations
        self.timeout, self.poll_interval, self.deferrable = timeout, poll_interval, deferrable
        self._under_way: tuple[RolloutOrder, RolloutNames] | None = None
        self._refuse_early()

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin the rollout, or take up the one that an earlier try began."""
        with airflow_errors():
            self._refuse_backfill(context)
            conductor = self._conductor(context)
            self._link(context, conductor)
            conductor.prepare()
        return self._guarded(context, conductor, lambda: self._go_on(conductor))

    def resume(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Act where the trigger found that a worker must; the endpoint is looked at again first."""
        with airflow_errors():
            conductor = self._conductor(context)

        def go_on() -> dict[str, Any]:
            if "error" in event:
                raise ServiceRefused(f"the rollout on {self.endpoint_name} cannot be watched: {event['error']}")
            return self._go_on(conductor)

        return self._guarded(context, conductor, go_on)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; a deferral that Airflow itself ended (timeout, broken trigger) does not leave a rollout alone."""
        if next_method != FAILED_TRIGGER_METHOD:
            return super().resume_execution(next_method, next_kwargs, context)
        return self._guarded(
            context,
            self._conductor(context),
            lambda: super(BlueGreenRolloutOperator, self).resume_execution(next_method, next_kwargs, context),
        )

    def on_kill(self) -> None:
        """Go back, or leave AWS in charge, because this process is being killed."""
        if self._under_way is None:
            return
        from airflow_dlaws.launchers.rollout import RolloutConductor

        # Clients of its own: the interrupted call may hold locks of the usual ones.
        RolloutConductor(AwsClients(self.connection).client, *self._under_way).abandon(
            Cause.KILLED,
            "the task was killed while the rollout was under way",
            wait_seconds=_KILL_WAIT_SECONDS,
            on_kill=OnKill(self.kill_policy),
        )

    def _go_on(self, conductor: RolloutConductor) -> dict[str, Any]:
        """Look and act until the rollout is over, or (deferrable) until there is nothing to do but wait."""
        while True:
            decision = conductor.look()
            if decision.action is Action.FINISH:
                conductor.perform(decision)
                return self._end(conductor)
            conductor.perform(decision)
            if self.deferrable:
                from airflow_dlaws.triggers.rollout import trigger_for

                self.defer(
                    trigger=trigger_for(self.connection, conductor, OnKill(self.kill_policy)),
                    method_name="resume",
                    # The trigger has deadlines of its own; this one is for a triggerer that is gone.
                    timeout=timedelta(seconds=max(0.0, conductor.gives_up_at - time.time())) + _TRIGGER_GRACE,
                )
            time.sleep(conductor.order.plan.look_seconds)

    def _end(self, conductor: RolloutConductor) -> dict[str, Any]:
        result = conductor.finish()
        if result.outcome is RolloutOutcome.PROMOTED:
            self.log.info("%s: %s", result.outcome.value, result.reason)
            return to_json(result)  # type: ignore[no-any-return]
        message = explain(conductor.state, report_uri=result.report_uri)
        raise _error(result, message + self._last_words(conductor))

    def _last_words(self, conductor: RolloutConductor) -> str:
        """Return what the new containers printed last, where it was they that did not come up."""
        state = conductor.state
        if state.step is not Step.FAILED and state.cause is not Cause.BY_AWS:
            return ""
        group, since = ENDPOINT_LOG_GROUPS + self.endpoint_name, int(state.started_at * 1000)
        try:
            lines = read_tail(self.aws.client("logs"), group=group, count=_LINES_IN_MESSAGE, since_ms=since)
        except DlawsError as error:
            return f"\n(the log of the new containers cannot be read: {error})"
        return "\n".join(["\nThe new containers printed last:", *lines]) if lines else ""

    def _guarded(
        self, context: Context, conductor: RolloutConductor, work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Do a part of the rollout; if the task fails for good in it, go back before failing."""
        self._under_way = (conductor.order, conductor.names)
        try:
            with airflow_errors():
                return work()
        except Exception as error:
            is_last = isinstance(error, AirflowFailException) or context["ti"].try_number > context["ti"].max_tries
            if is_last:
                self._go_back(conductor, error)
            raise

    def _go_back(self, conductor: RolloutConductor, error: Exception) -> None:
        try:
            conductor.abandon(Cause.ERROR, str(error), wait_seconds=_FAILURE_WAIT_SECONDS)
        except Exception:
            # The first error is what the task must show; AWS's alarm on green's errors stays in charge.
            self.log.exception("The rollout on %s could not be taken back", self.endpoint_name)

    def _conductor(self, context: Context) -> RolloutConductor:
        # Here, so that parsing a DAG does not pay for what only a run needs.
        from airflow_dlaws.launchers.rollout import RolloutConductor

        order = self._order()
        names = names_for(identity_of(context), order)
        return RolloutConductor(self.aws.client, order, names)

    def _order(self) -> RolloutOrder:
        plan = self._plan()
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
            allow_older=_boolean("allow_older", self.allow_older),
            keep_configurations=_count("keep_configurations", self.keep_configurations),
            plan=plan,
            timeout_seconds=self._timeout_seconds(plan),
        )

    def _plan(self) -> RolloutPlan:
        values = {name: getattr(self, name) for name in _PLAN_FIELDS}
        return plan_from_text({**values, "look_seconds": self.poll_interval})

    def _timeout_seconds(self, plan: RolloutPlan) -> float:
        if self.timeout is None:
            return float(plan.execution_seconds + _DEFAULT_MARGIN_SECONDS)
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else float(self.timeout)

    def _refuse_early(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        if self.kill_policy not in list(OnKill):
            raise SpecificationError(f"on_kill={self.kill_policy!r}: give {' or '.join(OnKill)}")
        if not any(limits.is_template(getattr(self, name)) for name in _PLAN_FIELDS):
            self._plan()
        if not any(limits.is_template(getattr(self, name)) for name in self.template_fields):
            self._order()

    def _refuse_backfill(self, context: Context) -> None:
        if held_back(context, self.allow_backfill):
            raise AirflowSkipException(
                f"endpoint {self.endpoint_name} is left alone: a backfill, or an old run of the calendar, deploys "
                "nothing unless allow_backfill=True"
            )

    def _link(self, context: Context, conductor: RolloutConductor) -> None:
        ConsoleLink.store(context, sagemaker_console_url(self.aws.region, f"endpoints/{self.endpoint_name}"))
        ReportLink.store(context, report_url(self.aws.client("s3"), conductor.report_uri))


def names_for(identity: TaskIdentity, order: RolloutOrder) -> RolloutNames:
    """Return the names of what this task makes. The plan is no part of them: a retry may follow an edited one."""
    document = to_json(order)
    for field in ("plan", "timeout_seconds", "state_s3_uri", "allow_older", "keep_configurations"):
        del document[field]
    digest = digest_of(document)
    index = f"[{identity.map_index}]" if identity.map_index >= 0 else ""
    return RolloutNames(
        model_name=identity.name(digest, role="model"),
        config_name=identity.name(digest, role="config"),
        owner=f"{identity.deployment}/{identity.dag_id}/{identity.run_id}/{identity.task_id}{index}".strip("/"),
        digest=digest,
    )


def _error(result: RolloutResult, message: str) -> DlawsError:
    if result.outcome is RolloutOutcome.INCONCLUSIVE:
        return Inconclusive(message)
    return OutcomeUnacceptable(message)


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


def _boolean(name: str, value: Any) -> bool:
    words = {"true": True, "false": False}
    if (text := str(value).strip().lower()) not in words:
        raise SpecificationError(f"{name}={value!r} must be true or false")
    return words[text]
