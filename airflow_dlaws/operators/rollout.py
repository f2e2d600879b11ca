"""Move an endpoint to a model, guarded: green means that the requested configuration is in service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dlaws._compat import FAILED_TRIGGER_METHOD, AirflowFailException, AirflowSkipException, Context, put_off
from airflow_dlaws.errors import (
    DlawsError,
    EndpointBusy,
    Inconclusive,
    OutcomeUnacceptable,
    ServiceRefused,
    SpecificationError,
)
from airflow_dlaws.hooks.aws import AwsClients
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.job_log import ENDPOINT_LOG_GROUPS, read_tail
from airflow_dlaws.links.aws import ConsoleLink, ReportLink, report_url, sagemaker_console_url
from airflow_dlaws.operators.base import airflow_errors, held_back, identity_of
from airflow_dlaws.operators.rollout_order import RolloutOrderOptions, names_for
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import OnKill
from airflow_dlaws.rollout.result import RolloutOutcome, RolloutResult, explain
from airflow_dlaws.rollout.rules import Action
from airflow_dlaws.rollout.state import Cause, Step
from airflow_dlaws.triggers.pause import PauseTrigger

if TYPE_CHECKING:
    from airflow_dlaws.launchers.rollout import RolloutConductor
    from airflow_dlaws.triggers.rollout import RolloutTrigger

_TRIGGER_GRACE = timedelta(minutes=10)
#: How long a worker stays to see a failed task's rollout back where it was; AWS goes on without it.
_FAILURE_WAIT_SECONDS = 900.0
#: A killed process has little time. Airflow follows SIGTERM with SIGKILL after 5 seconds where the task was marked or
#: cleared, so what matters most is done first; who ends a worker gives it more.
_KILL_WAIT_SECONDS = 20.0
#: Enough for a traceback, short enough for an e-mail.
_LINES_IN_MESSAGE = 20

_T = TypeVar("_T")
_ON_BUSY = ("wait", "fail", "supersede")


class BlueGreenRolloutOperator(RolloutOrderOptions):
    """Roll a model package out on an endpoint by SageMaker's blue/green guardrails, and check that it is in service.

    The first deployment creates the endpoint. Every other one moves traffic as planned, compares green's 5xx rate with
    blue's at every look (an always-valid sequential test), and trips an alarm that makes AWS roll back as soon as harm
    is proven. The task succeeds only if the endpoint is read back InService on the requested configuration with nothing
    pending; it returns a :class:`~airflow_dlaws.rollout.result.RolloutResult` as JSON. A rollback, too few requests for
    a verdict, or an endpoint that needs a person fail the task at once, with the numbers and a report.

    In a backfill run the task is skipped, unless `allow_backfill`: failing would stop a backfill of many months, and
    succeeding would say that a model was deployed. So it is in a run of the calendar that a later one has overtaken.

    :param allow_backfill: deploy from backfills and overtaken runs too.
    :param on_busy: while another task is rolling out on this endpoint, "wait" for its end (for `timeout` at most),
        "fail" at once, or "supersede": ask it to go back, and wait for that.
    :param deferrable: wait in the triggerer, without a worker.

    The other parameters are those of :class:`RolloutOrderOptions` and :class:`RolloutPlanOptions`.
    """

    template_fields: Sequence[str] = (*RolloutOrderOptions.template_fields, "allow_backfill", "on_busy")
    operator_extra_links = (ConsoleLink(), ReportLink())
    ui_color = "#dcefe4"

    def __init__(
        self, *, allow_backfill: bool | str = False, on_busy: str = "wait", deferrable: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.on_busy = on_busy
        if not is_template(on_busy):
            self._check_on_busy()
        self.allow_backfill, self.deferrable = allow_backfill, deferrable
        self._under_way: tuple[RolloutOrder, RolloutNames] | None = None
        #: When this try took the endpoint's lock: by that it knows whether a later one has taken the rollout up.
        self._taken_at: float | None = None
        #: The thread in which a part of the rollout is being done.
        self._at_work: int | None = None
        self._refuse_early()

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin the rollout, or take up the one that an earlier try began."""
        with airflow_errors():
            self._check_on_busy()
            self._refuse_backfill(context)
            self._link(context, self._conductor(context))
        return self.take_turn(context)

    def take_turn(self, context: Context, event: Any = None, wait_until: float | None = None) -> dict[str, Any]:
        """Begin once no other task is rolling out on the endpoint; see `on_busy`."""
        while True:
            with airflow_errors():
                conductor = self._conductor(context)  # a new one: its deadlines count from now
                wait_until = wait_until or time.time() + conductor.order.timeout_seconds
            if self._guarded(context, conductor, partial(self._has_turn, conductor, wait_until)):
                break
            if self.deferrable:
                self.defer(
                    trigger=PauseTrigger(until=time.time() + self.poll_interval),
                    method_name="take_turn",
                    kwargs=self.for_this_life(context, wait_until=wait_until),
                )
            # Who is killed while waiting must not take the turn after all.
            self._guarded(context, conductor, partial(time.sleep, self.poll_interval))
        return self._guarded(context, conductor, lambda: self._tend(context, conductor))

    def resume(
        self, context: Context, event: Mapping[str, Any], begun: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Act where the trigger found that a worker must; the endpoint is looked at again first.

        :param begun: order and names of the rollout that is under way; `dag.test()` drops the arguments of a deferral.
        """
        with airflow_errors():
            conductor = self._conductor(context) if begun is None else self._conductor_of(context, begun)

        def go_on() -> dict[str, Any]:
            if "error" in event:
                raise ServiceRefused(f"the rollout on {self.endpoint_name} cannot be watched: {event['error']}")
            return self._tend(context, conductor)

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
        """Go back, or leave AWS in charge, because this process is being killed.

        :raises SystemExit: to end what the signal has interrupted. Airflow would let it go on until SIGKILL, and it
            would make again what was just taken away.
        """
        if self._under_way is None or put_off():
            return
        from airflow_dlaws.launchers.rollout import RolloutConductor

        try:
            # Clients of its own: the interrupted call may hold locks of the usual ones.
            client = AwsClients(self.connection).client
            if self._taken_at is not None and self._lock_time(client) not in (None, self._taken_at):
                self.log.warning("A later try has taken up the rollout on %s: it is left to it", self.endpoint_name)
            else:
                RolloutConductor(client, *self._under_way).abandon(
                    Cause.KILLED,
                    "the task was killed while the rollout was under way",
                    wait_seconds=_KILL_WAIT_SECONDS,
                    on_kill=OnKill(self.kill_policy),
                )
        except DlawsError:
            self.log.exception("The rollout on %s could not be taken back", self.endpoint_name)
        if self._at_work == threading.get_ident():
            raise SystemExit(f"killed while the rollout on {self.endpoint_name} was under way")

    def _has_turn(self, conductor: RolloutConductor, wait_until: float) -> bool:
        """Take the endpoint's lock, and make what the rollout needs; tell whether it was to be had."""
        try:
            conductor.prepare()
        except EndpointBusy as busy:
            if self.on_busy == "fail" or time.time() >= wait_until:
                raise ServiceRefused(str(busy)) from busy
            if self.on_busy == "supersede":
                conductor.supersede()
            self.log.info("Waiting: %s", busy)
            return False
        return True

    def _tend(self, context: Context, conductor: RolloutConductor) -> dict[str, Any]:
        """Go on with a rollout whose lock this try has."""
        self._taken_at = self._lock_time(self.aws.client)
        self.keep_on_kill(context, self._trigger(conductor))
        return self._go_on(context, conductor)

    def _trigger(self, conductor: RolloutConductor) -> RolloutTrigger:
        from airflow_dlaws.triggers.rollout import trigger_for

        return trigger_for(self.connection, conductor, OnKill(self.kill_policy))

    def _lock_time(self, client: Callable[[str], Any]) -> float | None:
        from airflow_dlaws.launchers.rollout_store import RolloutStore
        from airflow_dlaws.storage import ObjectStore

        assert self._under_way is not None
        return RolloutStore(ObjectStore(client("s3")), *self._under_way).taken_at()

    def _go_on(self, context: Context, conductor: RolloutConductor) -> dict[str, Any]:
        """Look and act until the rollout is over, or (deferrable) until there is nothing to do but wait."""
        while True:
            decision = conductor.look()
            if decision.action is Action.FINISH:
                conductor.perform(decision)
                return self._end(conductor)
            conductor.perform(decision)
            if not conductor.must_wait_after(decision):
                continue
            if self.deferrable:
                begun = {"order": to_json(conductor.order), "names": to_json(conductor.names)}
                kwargs = self.for_this_life(context, begun=begun)
                # The triggerer's from now on: a worker that is shut down while it leaves takes nothing back.
                self._under_way = None
                self.defer(
                    trigger=self._trigger(conductor),
                    method_name="resume",
                    kwargs=kwargs,
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
        silence = f"\n(SNS topic {conductor.state.topic}: {result.not_told})" if result.not_told else ""
        raise _error(result, message + silence + self._last_words(conductor))

    def _last_words(self, conductor: RolloutConductor) -> str:
        """Return what the new containers printed last, where it was they that did not come up."""
        state = conductor.state
        if state.step is not Step.FAILED and state.cause is not Cause.BY_AWS:
            return ""
        name = conductor.names.rehearsal_name if state.cause is Cause.REHEARSAL else self.endpoint_name
        group, since = ENDPOINT_LOG_GROUPS + name, int(state.started_at * 1000)
        try:
            lines = read_tail(self.aws.client("logs"), group=group, count=_LINES_IN_MESSAGE, since_ms=since)
        except DlawsError as error:
            return f"\n(the log of the new containers cannot be read: {error})"
        return "\n".join(["\nThe new containers printed last:", *lines]) if lines else ""

    def _guarded(self, context: Context, conductor: RolloutConductor, work: Callable[[], _T]) -> _T:
        """Do a part of the rollout; if the task fails for good in it, go back before failing."""
        self._under_way, self._at_work = (conductor.order, conductor.names), threading.get_ident()
        try:
            with airflow_errors():
                return work()
        except Exception as error:
            is_last = isinstance(error, AirflowFailException) or context["ti"].try_number > context["ti"].max_tries
            if is_last:
                self._go_back(conductor, error)
            raise
        finally:
            self._at_work = None

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

    def _conductor_of(self, context: Context, begun: Mapping[str, Any]) -> RolloutConductor:
        """Return who goes on with a rollout, also where the DAG file, or what its templates read, was edited since.

        An edited plan counts from now on; another model, endpoint or configuration is a retry's or the next run's.
        """
        from airflow_dlaws.launchers.rollout import RolloutConductor

        order, names = from_json(RolloutOrder, begun["order"]), from_json(RolloutNames, begun["names"])
        try:
            edited = self._order()
            if names_for(identity_of(context), edited) == names:
                order = edited
            else:
                self.log.warning("This task was edited since its rollout began: it goes on to %s", names.config_name)
        except SpecificationError as error:
            self.log.warning("This task was edited since its rollout began, which goes on as ordered: %s", error)
        return RolloutConductor(self.aws.client, order, names)

    def _refuse_backfill(self, context: Context) -> None:
        if held_back(context, self.allow_backfill):
            raise AirflowSkipException(
                f"endpoint {self.endpoint_name} is left alone: a backfill, or an old run of the calendar, deploys "
                "nothing unless allow_backfill=True"
            )

    def _check_on_busy(self) -> None:
        if self.on_busy not in _ON_BUSY:
            raise SpecificationError(f"on_busy={self.on_busy!r} is none of {list(_ON_BUSY)}")

    def _link(self, context: Context, conductor: RolloutConductor) -> None:
        ConsoleLink.store(context, sagemaker_console_url(self.aws.region, f"endpoints/{self.endpoint_name}"))
        ReportLink.store(context, report_url(self.aws.client("s3"), conductor.report_uri))


def _error(result: RolloutResult, message: str) -> DlawsError:
    if result.outcome is RolloutOutcome.INCONCLUSIVE:
        return Inconclusive(message)
    return OutcomeUnacceptable(message)
