"""What one look at a rollout measures: reads the metrics of both fleets and has them judged. Changes no endpoint.

What was read of captured requests and of the business is noted in S3 beside the state, each file and window once:

<state_s3_uri>/rollouts/<endpoint>/<config>.evidence
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.business_metric import BusinessReader, business_function
from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.rollout_metrics import RolloutMetrics
from airflow_dlaws.launchers.rollout_predictions import CapturedPredictions, CaptureProgress
from airflow_dlaws.launchers.rollout_store import RolloutFolder
from airflow_dlaws.rollout.analysis import Evidence, Minute, Verdict, judge
from airflow_dlaws.rollout.business import BusinessEvidence, BusinessWindow, judge_business
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import Strategy
from airflow_dlaws.rollout.power import forecast
from airflow_dlaws.rollout.predictions import FEWEST_ANSWERS, PredictionEvidence, PredictionJudge, PredictionReference
from airflow_dlaws.rollout.shadow import shadow_forecast
from airflow_dlaws.rollout.stakes import stakes_of
from airflow_dlaws.rollout.state import RolloutState
from airflow_dlaws.storage import ObjectStore

log = logging.getLogger(__name__)

#: How much of blue's past is read where nothing of blue is left to compare with.
_PAST_SECONDS = 3600
#: Below this chance to see twice the errors a warning says how long the bake should be.
_WORTHWHILE_POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What was read so far."""

    capture: CaptureProgress = field(default_factory=CaptureProgress)
    business: tuple[BusinessWindow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one look gave. `problem` says what could not be measured; the evidence is then what is known without it."""

    evidence: Evidence
    minutes: tuple[Minute, ...]
    problem: str = ""


class RolloutMeasures:
    """What is measured for one rollout. `client` gives the boto3 client of a service."""

    def __init__(self, client: Callable[[str], Any], order: RolloutOrder, names: RolloutNames) -> None:
        self._order, self._config = order, names.config_name
        self._cloudwatch = client("cloudwatch")
        self._metrics = RolloutMetrics(
            self._cloudwatch, endpoint_name=order.endpoint_name, variant_name=order.variant_name
        )
        self._endpoint = EndpointPort(client("sagemaker"))
        self._store = ObjectStore(client("s3"))
        folder = RolloutFolder(self._store, order.state_s3_uri, order.endpoint_name)
        self._notes_uri = folder.uri(names.config_name, ".evidence")
        self._captured = CapturedPredictions(
            self._store, endpoint_name=order.endpoint_name, variant_name=order.variant_name
        )
        self._notes: Notes | None = None

    def check(self) -> None:
        """Refuse what could not be measured, before anything is changed.

        :raises SpecificationError: the function of the business metric cannot be imported.
        """
        metric = self._order.plan.business_metric
        if metric and metric.function:
            business_function(metric)

    def before(self, blue: str, now: float) -> dict[str, Any]:
        """Return what the past tells, as fields of the state: what is judged by what, and what the bake sees."""
        plan = self._order.plan
        past = self._metrics.past(blue, now=now)
        told = forecast(plan, past.traffic) if past.traffic else None
        if told and told.power < _WORTHWHILE_POWER:
            log.warning("This bake is short for this traffic: %s", told.sentence)
        elif told:
            log.info("This bake: %s", told.sentence)
        place, reference, unjudged = self._before_predictions(blue, now) if plan.judge_predictions else ("", None, "")
        if unjudged:
            log.warning("Predictions are not judged: %s", unjudged)
        doubt = shadow_forecast(plan, past.traffic) if past.traffic and plan.shadow_seconds else ""
        if doubt:
            log.warning("This shadow is short for this traffic: %s", doubt)
        return {
            "latency": past.latency if plan.judge_latency else None,
            "forecast": "; ".join(text for text in (told.sentence if told else "", doubt) if text),
            "stakes": stakes_of(plan, past.traffic),
            "predictions": reference,
            "blue_capture": place,
            "unjudged": unjudged,
        }

    def _before_predictions(self, blue: str, now: float) -> tuple[str, PredictionReference | None, str]:
        """Return where blue captures, the cells its answers make, and why there are none."""
        if self._order.plan.strategy is Strategy.ALL_AT_ONCE:
            return "", None, "strategy all_at_once leaves no minute in which both fleets answer"
        try:
            here, there = self._endpoint.capture_of(self._config), self._endpoint.capture_of(blue)
            if not (here and there):
                what = "data_capture_s3_uri is not set" if not here else f"{blue}, in service, captures no answers"
                return "", None, what
            if here.rstrip("/") == there.rstrip("/"):
                return "", None, f"both fleets capture to {here}, and records do not say which model answered"
            reference = self._captured.reference(there, now)
        except DlawsError as error:
            return "", None, str(error)
        few = f"fewer than {FEWEST_ANSWERS} answers of {blue} that can be read were captured under {there}"
        return there, reference, "" if reference else few

    def evidence(self, state: RolloutState, now: float) -> Measured:
        """Return the verdict on what both fleets have served up to `now` (epoch seconds).

        :raises DlawsError: CloudWatch cannot be read: nothing is known.
        """
        began = state.updated_at or now
        past = 0.0
        if self._order.plan.strategy is Strategy.ALL_AT_ONCE:
            # While it had a shadow, blue was counted under another configuration.
            past = _PAST_SECONDS + (began - state.shadow_since if state.shadow_since else 0.0)
        minutes = self._metrics.minutes(
            green=state.requested_config,
            blue=state.previous_config,
            since=began - past,
            until=now,
            latency=state.latency,
        )
        business, problem = self._business(state, began, now)
        evidence = judge(
            self._order.plan,
            minutes,
            began=began,
            latency=state.latency,
            predictions=self._predictions(state, began, now),
            business=business,
            stakes=state.stakes,
            now=now,
        )
        # Harm that is proven without what is missing is proven.
        problem = "" if evidence.verdict is Verdict.HARM else problem
        during = tuple(minute for minute in minutes if minute.start + 60 > began)
        return Measured(evidence=evidence, minutes=during, problem=problem)

    def _predictions(self, state: RolloutState, began: float, now: float) -> PredictionEvidence | None:
        """Return the evidence on predictions, the last that was known where captured files cannot be read."""
        if state.predictions is None:
            return None
        judge_of = PredictionJudge(state.predictions, self._order.plan.largest_prediction_shift)
        notes = self._known()
        try:
            places = {"green": self._endpoint.capture_of(state.requested_config), "blue": state.blue_capture}
            since = state.traffic_since or began  # what blue answered before stands beside nothing
            capture = self._captured.read(notes.capture, state.predictions, places, since=since, until=now)
        except DlawsError as error:
            log.warning("captured requests cannot be read: %s", error)
            return judge_of.evidence(notes.capture.tally)
        tally = judge_of.settle(capture.tally, now)
        self._note(Notes(capture=replace(capture, tally=tally), business=notes.business))
        return judge_of.evidence(tally)

    def _business(self, state: RolloutState, began: float, now: float) -> tuple[BusinessEvidence | None, str]:
        """Return the evidence of the business metric, and why it is not that of this look."""
        metric, notes = self._order.plan.business_metric, self._known()
        if metric is None:
            return None, ""
        reader = BusinessReader(metric, self._cloudwatch, endpoint_name=self._order.endpoint_name)
        since = state.traffic_since or began
        try:
            windows = reader.read(
                notes.business, green=state.requested_config, blue=state.previous_config, since=since, until=now
            )
        except DlawsError as error:
            return judge_business(metric, notes.business), str(error)
        self._note(Notes(capture=notes.capture, business=windows))
        return judge_business(metric, windows), ""

    def _known(self) -> Notes:
        if self._notes is None:
            with service_errors(f"read {self._notes_uri}"):
                there = self._store.exists(self._notes_uri)
                self._notes = from_json(Notes, self._store.read_json(self._notes_uri)) if there else Notes()
        return self._notes

    def _note(self, notes: Notes) -> None:
        if notes != self._notes:
            with service_errors(f"write {self._notes_uri}"):
                self._store.write_json(self._notes_uri, to_json(notes))
        self._notes = notes
