"""What one look at a rollout measures: reads the metrics of both fleets and has them judged. Changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from airflow_dlaws.launchers.rollout_metrics import RolloutMetrics
from airflow_dlaws.rollout.analysis import Evidence, judge
from airflow_dlaws.rollout.order import RolloutOrder
from airflow_dlaws.rollout.plan import Strategy
from airflow_dlaws.rollout.power import forecast
from airflow_dlaws.rollout.state import RolloutState

log = logging.getLogger(__name__)

#: How much of blue's past is read where nothing of blue is left to compare with.
_PAST_SECONDS = 3600
#: Below this chance to see twice the errors a warning says how long the bake should be.
_WORTHWHILE_POWER = 0.8


class RolloutMeasures:
    """What is measured for one rollout. `client` gives the boto3 client of a service."""

    def __init__(self, client: Callable[[str], Any], order: RolloutOrder) -> None:
        self._order = order
        self._metrics = RolloutMetrics(
            client("cloudwatch"), endpoint_name=order.endpoint_name, variant_name=order.variant_name
        )

    def before(self, blue: str, now: float) -> dict[str, Any]:
        """Return what the hour before tells, as fields of the state: what latency is judged by, what the bake sees."""
        plan = self._order.plan
        past = self._metrics.past(blue, now=now)
        told = forecast(plan, past.traffic) if past.traffic else None
        if told and told.power < _WORTHWHILE_POWER:
            log.warning("This bake is short for this traffic: %s", told.sentence)
        elif told:
            log.info("This bake: %s", told.sentence)
        return {"latency": past.latency if plan.judge_latency else None, "forecast": told.sentence if told else ""}

    def evidence(self, state: RolloutState, now: float) -> Evidence:
        """Return the verdict on what both fleets have served up to `now` (epoch seconds)."""
        began = state.updated_at or now
        past = _PAST_SECONDS if self._order.plan.strategy is Strategy.ALL_AT_ONCE else 0
        minutes = self._metrics.minutes(
            green=state.requested_config,
            blue=state.previous_config,
            since=began - past,
            until=now,
            latency=state.latency,
        )
        return judge(self._order.plan, minutes, began=began, latency=state.latency)
