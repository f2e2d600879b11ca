"""One rollout on AWS: look, decide, act, remember. Any process may take it up; what it knows is in S3.

Acting comes before remembering. A process that dies in between finds, the next time, an endpoint that already does
what was asked for, and the table of transitions takes it from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.rollout_cleanup import clean_up
from airflow_dlaws.launchers.rollout_leftovers import has_leftovers
from airflow_dlaws.launchers.rollout_measures import RolloutMeasures
from airflow_dlaws.launchers.rollout_memory import RolloutMemory, as_asked
from airflow_dlaws.launchers.rollout_shadow import Shadow, end_shadow, only_shadowed
from airflow_dlaws.launchers.rollout_store import RolloutStore
from airflow_dlaws.launchers.rollout_takeover import Takeover, with_endpoints
from airflow_dlaws.launchers.rollout_upkeep import Upkeep
from airflow_dlaws.launchers.rollout_watch import alarms_of
from airflow_dlaws.rollout.looks import look_of
from airflow_dlaws.rollout.machine import Decision, decide, refused, with_noticed
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import OnKill
from airflow_dlaws.rollout.rehearsal import RehearsalVerdict
from airflow_dlaws.rollout.report import RolloutRecord
from airflow_dlaws.rollout.result import RolloutResult, result_of
from airflow_dlaws.rollout.rules import Action
from airflow_dlaws.rollout.scaling import ScalingRecord
from airflow_dlaws.rollout.state import (
    SHADOW_STEPS,
    Cause,
    EndpointView,
    Look,
    Observation,
    RolloutState,
    Step,
    is_final,
)
from airflow_dlaws.rollout.timeline import timeline_of
from airflow_dlaws.storage import ObjectStore

log = logging.getLogger(__name__)

#: Actions that change the endpoint: a worker does them, and not the triggerer.
ENDPOINT_ACTIONS = frozenset(set(Action) - {Action.WAIT, Action.TRIP})


class RolloutConductor:
    """One rollout, in one process.

    :param client: gives the boto3 client of a service ("sagemaker", "cloudwatch", "s3").
    :param known: the state to go on from, should the state file be gone.
    :param clock: epoch seconds.
    """

    def __init__(
        self,
        client: Callable[[str], Any],
        order: RolloutOrder,
        names: RolloutNames,
        *,
        known: RolloutState | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.order, self.names = order, names
        self._client, self._clock, self._sleep = client, clock, sleep
        self._endpoint = EndpointPort(client("sagemaker"))
        self._measures = RolloutMeasures(client, order, names)
        self._shadow = Shadow(client, order, names)
        self._alarms = alarms_of(client, order, names.config_name)
        self._store = RolloutStore(ObjectStore(client("s3")), order, names)
        self._memory = RolloutMemory(self._store, order, names, known=known, clock=clock)
        self._takeover = Takeover(client, order, self._store, clock=clock, sleep=sleep)
        self._upkeep = Upkeep(
            client, order, names, self._memory, report_uri=str(self._store.report_uri), clock=clock, sleep=sleep
        )

    @property
    def record(self) -> RolloutRecord:
        """What is known of this rollout, as the state file has it."""
        return self._memory.record

    @property
    def state(self) -> RolloutState:
        """Where the rollout is."""
        return self.record.state

    @property
    def result(self) -> RolloutResult:
        """The result so far."""
        return result_of(self.state, report_uri=str(self._store.report_uri))

    @property
    def report_uri(self) -> Any:
        """Where the report lies (an S3Uri)."""
        return self._store.report_uri

    def prepare(self) -> None:
        """Take the lock and make model, configuration and alarms; or take up a rollout that is under way.

        :raises EndpointBusy: another task is rolling out on the endpoint.
        :raises DlawsError: nothing was changed on the endpoint, and no lock or alarm stays behind.
        """
        if is_final(self.state.step):
            return
        self._measures.check()
        approval = self._endpoint.approval(self.order) if self.state.updated_at is None else self.state.approval
        former = self._store.acquire(now=self._clock(), expires_at=self.gives_up_at)
        if self.state.step is not Step.STARTING:
            return
        try:
            left = self._takeover.see_to(former)
            self._endpoint.ensure_model(self.order, self.names)
            self._endpoint.ensure_config(self.order, self.names)
            self._alarms.ensure(self.order.plan)
            if self.state.updated_at is None:
                self._alarms.check_quiet()
            asked = as_asked(self.state.but(approval=approval), self.order, self.names)
            self._save(with_endpoints(asked, left))
            if former:
                self._store.forget_former()
            self._store.write_report(self.record)
        except BaseException:
            if self.state.updated_at is None:
                self._clean_up()
            raise

    def supersede(self) -> None:
        """Ask the rollout that holds the endpoint to go back."""
        self._store.ask_holder_to_go_back(why=f"superseded by {self.order.model_package_arn}", now=self._clock())

    def look(self) -> Decision:
        """Look once and decide; trip the verdict alarm if that is the decision. Other actions are for `perform`."""
        self._upkeep.tell()
        now, before = self._clock(), self.state
        observation = self._observe(now)
        decision = decide(self.order.plan, before, observation, now)
        log.info("%s (%s): %s", decision.state.step.value, decision.action.value, decision.reason)
        look = look_of(self.record, observation, decision, now)
        if decision.action in ENDPOINT_ACTIONS and decision.action is not Action.RESTORE:
            # The step changes when the action is done; what was noticed is kept.
            self._save(with_noticed(before, decision.state), look)
        else:
            # Why green has to go must not die with us, or the next try would take our going back for AWS's.
            if decision.action is Action.TRIP:
                self._alarms.trip(decision.reason, now)
            self._save(decision.state, look)
            if decision.state.step is not before.step:
                self._store.write_report(self.record)
        return decision

    def perform(self, decision: Decision) -> None:
        """Do what `look` decided, then remember that it is done. What AWS refuses for good ends the rollout."""
        try:
            state, done = self._act(decision)
        except DlawsError as error:
            if not error.permanent:
                raise
            state, done = refused(self.state, decision, str(error)), True
        if done:
            self._save(state)
            self._upkeep.tell()
            self._store.write_report(self.record)

    def must_wait_after(self, decision: Decision) -> bool:
        """Tell whether AWS needs time after what was done; not after a rehearsal that is over, nor after a refusal."""
        rehearsal = self.state.rehearsal
        pending = rehearsal is not None and rehearsal.verdict is RehearsalVerdict.PENDING
        return not is_final(self.state.step) and (pending or decision.action is not Action.REHEARSE)

    def _act(self, decision: Decision) -> tuple[RolloutState, bool]:
        """Return the state after the action, and whether AWS took it (False: the endpoint is moving, look again)."""
        state, endpoint_name = decision.state, self.order.endpoint_name
        if decision.action is Action.CREATE:
            state = state.but(updated_at=self._clock())
            return state, self._endpoint.create(endpoint_name, state.requested_config)
        if decision.action is Action.REHEARSE:
            return self._rehearse(state), True
        if decision.action is Action.UPDATE:
            return self._update(state)
        if decision.action is Action.SHADOW:
            return self._begin_shadow(state)
        if decision.action is Action.UNSHADOW:
            return state, self._shadow.end(state)
        if decision.action is Action.RESTORE and self._shadow.is_there(state):
            return state, self._shadow.end(state)
        if decision.action is Action.RESTORE:
            state = self._upkeep.without_scaling(state)
            keep_size = state.scaling is not None or state.instances == self.order.initial_instance_count
            config = self.order.plan.restore_config()
            return state, self._endpoint.update(endpoint_name, state.previous_config, config, keep_size=keep_size)
        return state, True

    def finish(self) -> RolloutResult:
        """Undo what must not outlast a rollout, write the report, remove alarms and lock, and return the result.

        :raises DlawsError: something is left; the lock stays, so that the next try or rollout sees to it.
        """
        self._upkeep.leave_nothing()
        self._upkeep.tell()
        self._store.write_report(self.record)
        self._clean_up()
        keep = self.order.keep_configurations
        if self.state.step is Step.PROMOTED and keep is not None:
            clean_up(self._client("sagemaker"), self._store.folder, self.state, keep)
        return self.result

    @property
    def gives_up_at(self) -> float:
        """When all deadlines of this rollout have passed, epoch seconds: waiting on makes no sense then."""
        return self.state.deadline + 2 * self.order.plan.rollback_seconds

    def run_out_of_time(self) -> bool:
        """Tell whether all deadlines have passed."""
        return self._clock() > self.gives_up_at

    def abandon(self, cause: Cause, reason: str, *, wait_seconds: float, on_kill: OnKill = OnKill.ROLLBACK) -> None:
        """Go back because nobody will wait any more: trip the alarm, give AWS `wait_seconds`, clean up if it is done.

        What is not done by then AWS finishes by itself; the next rollout on this endpoint removes the alarms.
        """
        is_ours, until = self._store.is_ours(), self._clock() + wait_seconds
        if is_ours is False:  # who holds the endpoint now sees to what this rollout has left
            return
        if self._store.load() is None:
            if is_ours:  # killed while it was prepared
                self._clean_up()
            return
        if is_final(self.state.step):
            if is_ours:  # something is left, or may be
                self._finish_until(until)
            return
        if self.state.updated_at is None:
            self._save(self.state.but(step=Step.FAILED, cause=cause, reason=f"{reason}; the endpoint was not touched"))
            self._finish_until(until)
            return
        if not self.state.previous_config:
            reason = f"{reason} while the endpoint was being created; there is nothing to go back to"
            self._save(self.state.but(step=Step.FAILED, cause=cause, reason=reason))
            self._finish_until(until)
            return
        # A shadow is nobody's to leave, also where we died before we could remember it: AWS would never end it.
        with_shadow = self.state.step in SHADOW_STEPS or only_shadowed(self.state)
        if on_kill is OnKill.LEAVE and not with_shadow:
            self._save(self.state.but(abandoned=True, cause=cause, reason=f"{reason}; AWS goes on by itself"))
            self._finish_until(until)
            return
        self._go_back(cause, reason)
        while not is_final(self.state.step) and self._clock() < until:
            decision = self.look()
            if decision.action in ENDPOINT_ACTIONS:
                self.perform(decision)
            if not is_final(self.state.step):
                self._sleep(min(self.order.plan.look_seconds, wait_seconds / 10))
        self._finish_until(until)

    def _finish_until(self, until: float) -> None:
        """End what has ended, and leave nothing in any case; the next rollout sees to what is not undone by then."""
        while True:
            try:
                if is_final(self.state.step):
                    self.finish()
                else:
                    self._upkeep.leave_nothing()
                    self._upkeep.tell()
                return
            except DlawsError as error:
                if self._clock() >= until:
                    log.warning("%s", error)
                    return
                self._sleep(self.order.plan.look_seconds)

    def _go_back(self, cause: Cause, reason: str) -> None:
        now = self._clock()
        if self.state.step in SHADOW_STEPS:
            # First: AWS ends no shadow by itself, and a process that is killed may have seconds only.
            try:
                end_shadow(self._client("sagemaker"), self.state)
            except DlawsError as error:
                log.warning("%s", error)
        self._alarms.trip(reason, now)
        state = self.state.but(abandoned=True)
        if state.step in (Step.STARTING, Step.SHIFTING, *SHADOW_STEPS):
            deadline = now + self.order.plan.rollback_seconds
            state = state.but(step=Step.ROLLING_BACK, cause=cause, reason=reason, rollback_deadline=deadline)
        self._save(state)

    def _update(self, state: RolloutState) -> tuple[RolloutState, bool]:
        """Ask for the update."""
        state = self._upkeep.without_endpoints(state)
        way_back = self._way_back()
        if way_back is None:
            return state, False
        state = self._upkeep.without_scaling(state.but(**way_back))
        config = self.order.plan.deployment_config(self._alarms.names)
        asked = state.requested_config
        return state, self._endpoint.update(
            self.order.endpoint_name, asked, config, keep_size=state.scaling is not None
        )

    def _fit_for_update(self, live: EndpointView) -> ScalingRecord | None:
        """Refuse an update that cannot go well; return how the variant scales."""
        blue = self._endpoint.check_variants(live.config_name, self.order.variant_name)
        self._endpoint.refuse_older(self.order, live.config_name)
        scaling, asked = self._upkeep.scaling_now(blue), self.order.initial_instance_count
        if scaling is None and live.instances and live.instances > asked:
            log.warning("the fleet shrinks from %d instances to initial_instance_count=%d", live.instances, asked)
        return scaling

    def _rehearse(self, state: RolloutState) -> RolloutState:
        live = self._endpoint.describe(self.order.endpoint_name)
        if live and not self._upkeep.rehearsal_began:  # what is refused anyhow needs no instance
            self._fit_for_update(live)
        return self._upkeep.rehearse(state)

    def _begin_shadow(self, state: RolloutState) -> tuple[RolloutState, bool]:
        """Ask for the shadow; nothing of it is kept where there was one before."""
        state = self._upkeep.without_endpoints(state)
        way_back = self._way_back()
        if way_back is None:
            return state, False
        state = state.but(**way_back, shadow_since=None, shadow=None)
        return state, self._shadow.begin(state, self._alarms.names)

    def _way_back(self) -> dict[str, Any] | None:
        """Remember the way back before the endpoint moves, for it is lost then; return what was remembered of it."""
        live = self._endpoint.describe(self.order.endpoint_name)
        if live is None:
            return None
        scaling, now = self._fit_for_update(live), self._clock()
        # After a shadow the hour before is of another configuration: what was read before it counts.
        before = {} if self.state.shadow_passed_at else self._measures.before(live.config_name, now)
        way_back = {
            "previous_config": live.config_name,
            "updated_at": now,
            "instances": live.instances,
            "scaling": scaling,
            **before,
        }
        self._save(self.state.but(**way_back))
        return way_back

    def _observe(self, now: float) -> Observation:
        endpoint, wish = self._endpoint.describe(self.order.endpoint_name), self._store.wish()
        state = self.state
        if not state.previous_config or state.updated_at is None:
            return Observation(endpoint=endpoint, wish=wish, rehearsal_moves=self._upkeep.rehearsal_moves())
        try:
            alarms = self._alarms.views()
            if self._shadow.is_seen(state, endpoint):
                seen = self._shadow.evidence(state, now)
                return Observation(endpoint=endpoint, wish=wish, alarms=alarms, shadow=seen)
            if state.step in SHADOW_STEPS:
                return Observation(endpoint=endpoint, wish=wish, alarms=alarms)
            measured = self._measures.evidence(state, now)
        except DlawsError as error:
            return Observation(endpoint=endpoint, wish=wish, blind=str(error))
        self._memory.timeline = timeline_of(measured.minutes)
        return Observation(
            endpoint=endpoint, wish=wish, evidence=measured.evidence, alarms=alarms, blind=measured.problem
        )

    def _clean_up(self) -> None:
        is_tidy = False
        try:
            self._alarms.remove()
            is_tidy = self._shadow.clean_up(self.state)
        finally:
            # The lock of a rollout that is over keeps nobody out, and tells the next one what to see to.
            if not has_leftovers(self.state) and (is_tidy or not is_final(self.state.step)):
                self._store.release()

    def _save(self, state: RolloutState, *looks: Look) -> None:
        self._memory.save(state, *looks)
