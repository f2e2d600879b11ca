"""What a rollout is asked to do, checked against AWS's limits when the DAG is parsed.

The limits stand in UpdateEndpoint's API reference and, where botocore's model does not carry them (the percentages, the
timeout that must exceed the waits), in the developer guide's pages on deployment guardrails.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.rollout.business import BusinessMetric, read_metric

#: TrafficRoutingConfig: "canary size must be less than or equal to 50% of the variant's total instance count".
LARGEST_CANARY_PERCENT = 50
#: TrafficRoutingConfig: "linear step size must be 10-50% of the variant's total instance count".
LINEAR_STEP_PERCENT = range(10, 51)
#: RollingUpdatePolicy: "value must be between 5% to 50% of the variant's total instance count".
BATCH_PERCENT = range(5, 51)
#: WaitIntervalInSeconds and TerminationWaitInSeconds.
LONGEST_WAIT_SECONDS = 3600
#: MaximumExecutionTimeoutInSeconds.
SHORTEST_EXECUTION_SECONDS = 600
LONGEST_EXECUTION_SECONDS = 28800
#: What starting green's instances may take on top of the waits; loading a large image and model takes 10 to 20 minutes.
PROVISIONING_SECONDS = 1800
#: What each further batch of a rolling update may take on top: the image is cached by then, mostly.
BATCH_SECONDS = 600
#: A shadow test of AWS's own may last 30 days; a rollout holds its endpoint's lock all the while.
LONGEST_SHADOW_SECONDS = 7 * 86400
#: Pairs of answers that are read of a shadow: enough for any verdict.
MOST_SHADOW_PAIRS = 50_000
#: The period of the verdict alarm: how long CloudWatch may take to see that we said no.
_ALARM_SECONDS = 10


#: A DeploymentConfig that moves everything at once and waits for nothing.
AT_ONCE: dict[str, Any] = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
        "TerminationWaitInSeconds": 0,
    }
}


class Strategy(enum.StrEnum):
    """How SageMaker moves the traffic from blue to green."""

    ALL_AT_ONCE = "all_at_once"
    CANARY = "canary"
    LINEAR = "linear"
    #: Batches of blue's instances are replaced by green's, without a second fleet.
    ROLLING = "rolling"


class OnNoTraffic(enum.StrEnum):
    """What to do with a model that too few requests have tried."""

    ROLLBACK = "rollback"
    PROMOTE = "promote"


class OnKill(enum.StrEnum):
    """What to do when the task is killed in the middle of a rollout."""

    ROLLBACK = "rollback"
    #: Leave AWS's own guardrails in charge: the 5xx alarm still rolls back, nobody reads the outcome.
    LEAVE = "leave"


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """One rollout: how traffic moves, how long each step is watched, and what counts as harm. Times are in seconds."""

    strategy: Strategy = Strategy.CANARY
    #: Share of the fleet that serves first (canary), in per cent.
    canary_percent: int = 10
    #: Share of the fleet that each step adds (linear), in per cent.
    linear_step_percent: int = 25
    #: Share of the instances that each batch replaces (rolling), in per cent; taken in whole instances, at least one.
    maximum_batch_percent: int = 25
    #: Share of the instances that go back at a time (rolling), in per cent.
    rollback_maximum_batch_percent: int = 100
    #: How many instances green will have: what batches of a rolling update are counted in.
    instance_count: int = 1
    #: How long each partial step is watched before the next (canary, linear, rolling).
    wait_seconds: int = 600
    #: How long blue is kept after green has all traffic; all_at_once is watched only then, rolling never.
    termination_wait_seconds: int = 300
    #: AWS rolls back by itself when the update takes longer; None gives the waits plus 30 minutes.
    maximum_execution_seconds: int | None = None
    #: The smallest ratio of green's error rate to blue's that is worth catching.
    smallest_harm: float = 1.5
    #: Judge latency beside errors. It needs an hour of blue's answers to cut by; without them errors are judged alone.
    judge_latency: bool = True
    #: The smallest factor by which green may be slower than blue that is worth catching.
    smallest_slowdown: float = 1.2
    #: Latency is not judged so soon after green's first request: caches are cold and code is compiled then.
    latency_warm_up_seconds: float = 60.0
    #: Judge the distribution of green's predictions beside errors. It needs data capture on both fleets.
    judge_predictions: bool = True
    #: The largest total variation distance between green's predictions and blue's that is no harm: a retrained model
    #: may answer one request in five otherwise.
    largest_prediction_shift: float = 0.2
    #: A number of the business to judge beside errors.
    business_metric: BusinessMetric | None = None
    #: Chance that a model exactly as good as the one in service is rolled back, over all looks together.
    alpha: float = 0.05
    #: Below this number of compared requests on green there is no verdict.
    min_requests: int = 50
    on_no_traffic: OnNoTraffic = OnNoTraffic.ROLLBACK
    #: CloudWatch itself rolls back at this 5xx rate of green in two successive minutes, with or without Airflow.
    alarm_error_rate: float = 0.5
    #: For how long green gets copies of the requests as a shadow before any user sees it; 0 is not at all.
    shadow_seconds: int = 0
    #: Share of the requests that are copied to it, in per cent.
    shadow_percent: int = 100
    #: The share of the shadow's answers that must agree with production's.
    smallest_agreement: float = 0.9
    #: Two numbers agree within this share of the larger one; labels and whole numbers agree only if they are equal.
    agreement_tolerance: float = 0.05
    #: How long after the shadow's time captured answers may still come: SageMaker delivers them within minutes.
    capture_lag_seconds: float = 600.0
    #: Time between two looks.
    look_seconds: float = 30.0
    #: How long metrics may be unreadable in a row before the rollout goes back.
    blind_seconds: float = 300.0
    #: How long going back may take before a person is called.
    rollback_seconds: float = 3600.0

    def __post_init__(self) -> None:
        checks: Sequence[tuple[str, float, float, float]] = (
            ("canary_percent", self.canary_percent, 1, LARGEST_CANARY_PERCENT),
            ("linear_step_percent", self.linear_step_percent, LINEAR_STEP_PERCENT[0], LINEAR_STEP_PERCENT[-1]),
            ("maximum_batch_percent", self.maximum_batch_percent, BATCH_PERCENT[0], BATCH_PERCENT[-1]),
            ("rollback_maximum_batch_percent", self.rollback_maximum_batch_percent, 1, 100),
            ("shadow_seconds", self.shadow_seconds, 0, LONGEST_SHADOW_SECONDS),
            ("shadow_percent", self.shadow_percent, 1, 100),
            ("smallest_agreement", self.smallest_agreement, 0.5, 0.999),
            ("agreement_tolerance", self.agreement_tolerance, 0, 1),
            ("capture_lag_seconds", self.capture_lag_seconds, 0, 86400),
            ("wait_seconds", self.wait_seconds, 0, LONGEST_WAIT_SECONDS),
            ("termination_wait_seconds", self.termination_wait_seconds, 0, LONGEST_WAIT_SECONDS),
            ("smallest_harm", self.smallest_harm, 1.05, 20),
            ("smallest_slowdown", self.smallest_slowdown, 1.05, 20),
            ("latency_warm_up_seconds", self.latency_warm_up_seconds, 0, LONGEST_WAIT_SECONDS),
            ("largest_prediction_shift", self.largest_prediction_shift, 0.02, 0.9),
            # A shadow's errors are judged with half of it.
            ("alpha", self.alpha, 2e-6 if self.shadow_seconds else 1e-6, 0.5),
            ("min_requests", self.min_requests, 1, 10**9),
            ("alarm_error_rate", self.alarm_error_rate, 0.001, 1),
            ("look_seconds", self.look_seconds, 0.05, 3600),
            ("blind_seconds", self.blind_seconds, 1, 28800),
            ("rollback_seconds", self.rollback_seconds, 1, 28800),
        )
        for name, value, low, high in checks:
            if not low <= value <= high:
                raise SpecificationError(f"{name}={value} is outside what is allowed, {low} to {high}: change {name}")
        if self.strategy is Strategy.ROLLING and self.batch_instances * 2 > self.instance_count:
            raise SpecificationError(
                f"strategy rolling replaces {self.batch_instances} of {self.instance_count} instance(s) at a time, and "
                f"AWS allows at most {BATCH_PERCENT[-1]} %: raise initial_instance_count to 2 or more, or use another "
                "strategy"
            )
        if self.shadow_seconds and self.min_requests > MOST_SHADOW_PAIRS:
            raise SpecificationError(
                f"min_requests={self.min_requests}, and at most {MOST_SHADOW_PAIRS} requests of a shadow are compared: "
                f"lower min_requests to {MOST_SHADOW_PAIRS}, or set shadow_seconds=0"
            )
        if self.bake_seconds == 0:
            raise SpecificationError(
                f"strategy {self.strategy} with {self._bake_field}=0 leaves no time to look at the new model: "
                f"set {self._bake_field} to 1 to {LONGEST_WAIT_SECONDS} seconds"
            )
        if self.business_metric and self.strategy is Strategy.ALL_AT_ONCE:
            raise SpecificationError(
                "business_metric needs minutes in which both fleets serve, and strategy all_at_once leaves none: use "
                "canary or linear, or leave business_metric out"
            )
        self._check_execution_time()

    @property
    def bake_seconds(self) -> int:
        """How long green is watched before the decision that matters: before it gets all traffic, or loses blue."""
        if self.strategy is Strategy.ALL_AT_ONCE:
            return self.termination_wait_seconds
        return self.wait_seconds * (self.steps - 1)

    @property
    def first_share(self) -> float:
        """Green's share of the traffic while it matters: in the first step."""
        if self.strategy is Strategy.ROLLING:
            return self.batch_instances / self.instance_count
        shares = {Strategy.CANARY: self.canary_percent, Strategy.LINEAR: self.linear_step_percent}
        return shares.get(self.strategy, 100) / 100

    @property
    def shares(self) -> tuple[float, ...]:
        """Green's share of the traffic at each step; at the last it has everything."""
        return (*(self.first_share * step for step in range(1, self.steps)), 1.0)

    @property
    def batch_instances(self) -> int:
        """How many instances a rolling update replaces at a time."""
        return self.batch_of(self.instance_count)

    def batch_of(self, instances: int) -> int:
        """Return how many of so many instances a rolling update replaces at a time."""
        return max(1, instances * self.maximum_batch_percent // 100)

    @property
    def judged(self) -> dict[str, object]:
        """The kinds of harm that are judged, as far as they can be measured."""
        asked = {"latency": self.judge_latency, "predictions": self.judge_predictions, "business": self.business_metric}
        return {"errors": True, **{kind: value for kind, value in asked.items() if value}}

    @property
    def steps(self) -> int:
        """In how many steps green gets all the traffic."""
        if self.strategy is Strategy.LINEAR:
            return math.ceil(100 / self.linear_step_percent)
        if self.strategy is Strategy.ROLLING:
            return math.ceil(self.instance_count / self.batch_instances)
        return 2 if self.strategy is Strategy.CANARY else 1

    @property
    def gate_seconds(self) -> float:
        """After how long on traffic there must be a verdict, but for what starting a rolling update's batches takes."""
        return self.gate_of(self.bake_seconds)

    def gate_of(self, seconds: float) -> float:
        """Return after how much of a wait there must be a verdict, so that AWS hears an alarm before it ends."""
        return seconds - min(self.look_seconds + _ALARM_SECONDS, seconds / 2)

    @property
    def execution_seconds(self) -> int:
        """AWS's own limit on the whole update (MaximumExecutionTimeoutInSeconds)."""
        if self.maximum_execution_seconds is not None:
            return self.maximum_execution_seconds
        batches = BATCH_SECONDS * (self.steps - 1) if self.strategy is Strategy.ROLLING else 0
        return max(SHORTEST_EXECUTION_SECONDS, self._waits + PROVISIONING_SECONDS + batches)

    @property
    def shadow_execution_seconds(self) -> float:
        """How long all of the shadow may take: bringing it up, watching it, late captures, and taking it away."""
        if not self.shadow_seconds:
            return 0.0
        return self.shadow_seconds + self.capture_lag_seconds + 2 * PROVISIONING_SECONDS

    @property
    def _waits(self) -> int:
        if self.strategy is Strategy.ROLLING:
            return self.wait_seconds * self.steps
        return self.wait_seconds * (self.steps - 1) + self.termination_wait_seconds

    @property
    def _bake_field(self) -> str:
        return "termination_wait_seconds" if self.strategy is Strategy.ALL_AT_ONCE else "wait_seconds"

    def _check_execution_time(self) -> None:
        allowed, limit = self.execution_seconds, LONGEST_EXECUTION_SECONDS
        if not SHORTEST_EXECUTION_SECONDS <= allowed <= limit:
            raise SpecificationError(
                f"the update may take {allowed} s, but AWS allows {SHORTEST_EXECUTION_SECONDS} to {limit} s: "
                f"set maximum_execution_seconds, or shorten the {self._waits} s of waits"
            )
        if allowed <= self._waits:
            raise SpecificationError(
                f"maximum_execution_seconds={allowed} must exceed the waits, {self._waits} s in all "
                f"({self.steps} steps): raise it, or shorten wait_seconds or termination_wait_seconds"
            )

    def deployment_config(self, alarm_names: Sequence[str]) -> dict[str, Any]:
        """Return UpdateEndpoint's DeploymentConfig for this plan, watched by `alarm_names`."""
        rollback = {"Alarms": [{"AlarmName": name} for name in alarm_names]}
        if self.strategy is Strategy.ROLLING:
            policy = self._rolling_policy(self.wait_seconds)
            return {"RollingUpdatePolicy": policy, "AutoRollbackConfiguration": rollback}
        traffic: dict[str, Any] = {"Type": self.strategy.upper(), "WaitIntervalInSeconds": self.wait_seconds}
        if self.strategy is Strategy.CANARY:
            traffic["CanarySize"] = {"Type": "CAPACITY_PERCENT", "Value": self.canary_percent}
        if self.strategy is Strategy.LINEAR:
            traffic["LinearStepSize"] = {"Type": "CAPACITY_PERCENT", "Value": self.linear_step_percent}
        return {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": traffic,
                "TerminationWaitInSeconds": self.termination_wait_seconds,
                "MaximumExecutionTimeoutInSeconds": self.execution_seconds,
            },
            "AutoRollbackConfiguration": rollback,
        }

    def restore_config(self) -> dict[str, Any]:
        """Return the DeploymentConfig by which we go back to blue ourselves: no bake, for blue served well before."""
        if self.strategy is Strategy.ROLLING:
            # Who has no instances for a second fleet has none for the way back either.
            return {"RollingUpdatePolicy": self._rolling_policy(0)}
        return AT_ONCE

    def _rolling_policy(self, wait_seconds: int) -> dict[str, Any]:
        # In per cent, for autoscaling may have given blue another number of instances than the plan counts on.
        return {
            "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": self.maximum_batch_percent},
            "RollbackMaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": self.rollback_maximum_batch_percent},
            "WaitIntervalInSeconds": wait_seconds,
            "MaximumExecutionTimeoutInSeconds": self.execution_seconds,
        }


def plan_from_text(values: Mapping[str, Any]) -> RolloutPlan:
    """Build a plan from values that templates may have turned into text ("10", "canary", "None").

    :raises SpecificationError: a value cannot be read, or is outside the limits.
    """
    return RolloutPlan(**{name: _read(name, value) for name, value in values.items()})


_READERS: Mapping[str, Any] = {
    "strategy": Strategy,
    "on_no_traffic": OnNoTraffic,
    **dict.fromkeys(
        (
            "canary_percent",
            "linear_step_percent",
            "wait_seconds",
            "termination_wait_seconds",
            "maximum_batch_percent",
            "rollback_maximum_batch_percent",
            "instance_count",
            "maximum_execution_seconds",
            "min_requests",
            "shadow_seconds",
            "shadow_percent",
        ),
        int,
    ),
}


def _read(name: str, value: Any) -> Any:
    if name in ("judge_latency", "judge_predictions"):
        return _boolean(name, value)
    if name == "business_metric":
        return read_metric(value)
    if name == "maximum_execution_seconds" and value in (None, "", "None"):
        return None
    reader = _READERS.get(name, float)
    try:
        return reader(value)
    except (ValueError, TypeError) as error:
        allowed = " or ".join(reader) if isinstance(reader, enum.EnumMeta) else f"a {reader.__name__}"
        raise SpecificationError(f"{name}={value!r} cannot be read: give {allowed}") from error


def _boolean(name: str, value: Any) -> bool:
    words = {"true": True, "false": False}
    text = str(value).strip().lower()
    if text not in words:
        raise SpecificationError(f"{name}={value!r} cannot be read: give true or false")
    return words[text]
