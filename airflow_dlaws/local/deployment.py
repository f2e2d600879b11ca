"""An endpoint's update, carried out: green starts, traffic moves by the schedule, alarms are watched, one fleet ends.

One process stands for all instances of a variant, so a rolling update differs by who has how many instances when.

Runs in a thread of its own. Waits are scaled; starting and ending processes takes what it takes and is not counted in
MaximumExecutionTimeoutInSeconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dlaws.local import guardrails
from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.endpoint_state import Endpoint, EndpointStatus, variant_summary
from airflow_dlaws.local.fleet import Fleet
from airflow_dlaws.local.guardrails import DeploymentPlan, Routing, Stage
from airflow_dlaws.local.model_server import VariantSpec
from airflow_dlaws.local.serving_process import ServingFailed

#: How often the rollback alarms are looked at, in real seconds: well under one scaled wait.
ALARM_POLL_SECONDS = 0.25

#: A real machine needs a moment however short the scale: a timeout never strikes sooner than this.
SHORTEST_TIMEOUT = 10.0


class RolledBack(Exception):
    """The update does not go on; the message is the endpoint's FailureReason.

    AWS documents that an endpoint returns to its old configuration, and leaves FailureReason empty at times. Its
    sentence after an alarm could not be verified.
    """


class ServerClosing(Exception):
    """The local AWS goes down in the middle of the update."""


class Deployment:
    """One update of one endpoint."""

    def __init__(
        self,
        context: LocalContext,
        request: RequestContext,
        endpoint: Endpoint,
        green: Fleet,
        plan: DeploymentPlan,
    ) -> None:
        """:param green: the new fleet, not started yet."""
        self._context, self._request, self._endpoint = context, request, endpoint
        self._green, self._plan = green, plan
        self._config, self._specs = green.config, [server.spec for server in green.servers.values()]
        self._shadows = [server.spec for server in green.shadows.values()]
        self._started = context.now()
        self._deadline = float("inf")
        self._green_share: Mapping[str, float] = {}

    def run(self) -> None:
        """Carry the update out; leaves the endpoint InService on the new configuration, or on the old one."""
        blue = self._endpoint.fleet
        assert blue is not None
        green = self._green
        try:
            self._check_alarms()
            self._start(green)
            self._shift(blue, green)
        except RolledBack as reason:
            self._go_back(blue, green, str(reason))
        except ServerClosing:
            green.kill()
        except Exception as error:
            self._go_back(blue, green, f"InternalServerError: {error!r}")
        else:
            self._complete(blue, green)

    def _start(self, green: Fleet) -> None:
        self._report("Creating", lambda spec: f"Launching {spec.instance_count} instance(s).", {})
        self._provision()
        try:
            green.start()
        except ServingFailed as error:
            raise RolledBack(str(error)) from error
        if self._plan.timeout_seconds is not None:
            limit = max(SHORTEST_TIMEOUT, self._context.scaled(self._plan.timeout_seconds))
            self._deadline = time.monotonic() + limit

    def _provision(self) -> None:
        if self._context.faults.take("capacity", "UpdateEndpoint"):
            raise RolledBack(
                "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
            )

    def _shift(self, blue: Fleet, green: Fleet) -> None:
        for number, stage in enumerate(guardrails.schedule(self._plan, green.instance_counts)):
            if number and self._is_rolling:
                self._provision()  # each batch is launched when the one before has baked
            self._report_stage("ActivatingTraffic", guardrails.activating_message, stage)
            if stage.is_full:
                self._endpoint.traffic.serve_all(green)
            else:
                self._endpoint.traffic.share(blue, green, stage.green_share)
            self._green_share = stage.green_share
            self._bake(stage)
            if self._is_rolling:
                self._retire(blue, stage.green_share)

    @property
    def _is_rolling(self) -> bool:
        return self._plan.routing is Routing.ROLLING

    def _retire(self, blue: Fleet, green_share: Mapping[str, float]) -> None:
        """Let blue's description say how many of its instances are left."""
        ended = {name: round(green_share.get(name, 0.0) * count) for name, count in blue.instance_counts.items()}
        with self._endpoint.lock:
            self._endpoint.retired = ended

    def _bake(self, stage: Stage) -> None:
        if stage.wait_seconds:
            self._report_stage("Baking", guardrails.baking_message, stage)
        end = time.monotonic() + self._context.scaled(stage.wait_seconds)
        while True:
            self._check_alarms()
            if time.monotonic() > self._deadline:
                raise RolledBack(
                    f"The deployment exceeded MaximumExecutionTimeoutInSeconds ({self._plan.timeout_seconds}) and was "
                    "rolled back."
                )
            left = end - time.monotonic()
            if left <= 0:
                return
            if self._context.closing.wait(min(left, ALARM_POLL_SECONDS)):
                raise ServerClosing

    def _check_alarms(self) -> None:
        tripped = alarms_in_alarm(self._context, self._request.region, self._plan.alarms)
        if tripped:
            raise RolledBack(
                f"One or more configured rollback alarms are in ALARM state: {', '.join(tripped)}. The endpoint was "
                "rolled back."
            )

    def _complete(self, blue: Fleet, green: Fleet) -> None:
        with self._endpoint.lock:
            self._endpoint.fleet, self._endpoint.config = green, self._config
        self._report("Deleting", lambda spec: f"Terminating {spec.instance_count} instance(s).")
        blue.stop()
        self._end_leftover()
        self._endpoint.settle(EndpointStatus.IN_SERVICE, self._context.now())

    def _go_back(self, blue: Fleet, green: Fleet, reason: str) -> None:
        if self._context.faults.take("rollback", self._endpoint.name):
            # Traffic stays as it was at the moment of failure: both fleets serve, as after a failed rolling update.
            self._endpoint.leftover = green
            self._endpoint.settle(EndpointStatus.UPDATE_ROLLBACK_FAILED, self._context.now(), reason)
            return
        if self._is_rolling:
            for share in guardrails.way_back(self._plan, green.instance_counts, self._green_share):
                self._report("ActivatingTraffic", lambda spec: "Rolling back.", share)
                self._endpoint.traffic.share(blue, green, share)
                self._retire(blue, share)
        self._endpoint.traffic.serve_all(blue)
        green.stop()
        self._end_leftover()
        silent = self._context.faults.take("silent_rollback", self._endpoint.name)
        self._endpoint.settle(EndpointStatus.IN_SERVICE, self._context.now(), None if silent else reason)

    def _end_leftover(self) -> None:
        leftover, self._endpoint.leftover = self._endpoint.leftover, None
        if leftover is not None:
            leftover.stop()

    def _report_stage(self, status: str, message: Any, stage: Stage) -> None:
        running = stage.green_share if self._is_rolling else None
        self._report(status, lambda spec: message(stage, spec.name, spec.instance_count), running)

    def _report(self, status: str, message: Any, running: Mapping[str, float] | None = None) -> None:
        """:param running: the share of each variant's instances that run; None is all of them."""
        now = self._context.now()

        def pending(spec: VariantSpec) -> dict[str, Any]:
            current = spec.instance_count if running is None else round(running.get(spec.name, 0) * spec.instance_count)
            return {
                **variant_summary(spec, self._started, current),
                "InstanceType": spec.instance_type,
                "VariantStatus": [{"Status": status, "StatusMessage": message(spec), "StartTime": now}],
            }

        summary: dict[str, Any] = {
            "EndpointConfigName": self._config.name,
            "StartTime": self._started,
            "ProductionVariants": [pending(spec) for spec in self._specs],
        }
        if self._shadows:
            summary["ShadowProductionVariants"] = [pending(spec) for spec in self._shadows]
        with self._endpoint.lock:
            self._endpoint.pending = summary


def alarms_in_alarm(context: LocalContext, region: str, names: Sequence[str]) -> list[str]:
    """Return which of these alarms are in ALARM."""
    return [name for name, state in _alarm_states(context, region, names).items() if state == "ALARM"]


def missing_alarms(context: LocalContext, region: str, names: Sequence[str]) -> list[str]:
    """Return which of these alarms do not exist."""
    return sorted(set(names) - set(_alarm_states(context, region, names)))


def _alarm_states(context: LocalContext, region: str, names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    answer = context.client("cloudwatch", region).describe_alarms(AlarmNames=list(names), AlarmTypes=["MetricAlarm"])
    return {alarm["AlarmName"]: alarm["StateValue"] for alarm in answer["MetricAlarms"]}
