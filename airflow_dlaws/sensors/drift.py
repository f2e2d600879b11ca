"""Waits until the traffic of an endpoint has drifted from the reference of the model it serves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from airflow_dlaws._compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    Asset,
    Context,
    PokeReturnValue,
)
from airflow_dlaws.drift.readiness import unreadable
from airflow_dlaws.drift.report import event_extra
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import LATE_HOURS, DriftState, told_so_far, without_new_drift
from airflow_dlaws.errors import Inconclusive, OutcomeUnacceptable, SpecificationError
from airflow_dlaws.hooks.drift import DriftWatch, WatchedModel, found_by, watched_model
from airflow_dlaws.hooks.task import airflow_errors, identity_of
from airflow_dlaws.jobs.identity import digest_of
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.links.aws import ReportLink, report_url
from airflow_dlaws.sensors.base import DlawsSensor
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.triggers.drift import UnreadCaptureTrigger

#: Seconds after which a worker looks at the endpoint again: another model may be in service, captured elsewhere.
_LONGEST_WAIT = 3600.0
_DEADLINE_XCOM = "dlaws_deadline"


class DriftSensor(DlawsSensor):
    """Succeeds when captured traffic has drifted; the asset event of each outlet carries where the report is.

    Reads SageMaker's data capture, each file once, and keeps what it knows in S3, so the next run of the DAG goes on
    with the same evidence. Waits without a worker slot. A new model in service starts with no evidence. All sensors
    that share `state_s3_uri` and watch the same endpoint variant share their evidence too.

    Returns a `DriftSummary` (drift/report.py) as JSON.

    :param endpoint_name: the endpoint whose traffic is watched.
    :param state_s3_uri: a prefix for the state and the reports.
    :param capture_s3_uri: where requests are captured, DestinationS3Uri of DataCaptureConfig; None asks the endpoint.
    :param reference_s3_uri: the reference profile; None takes drift_reference.json beside the live model's artifact.
        With both places given SageMaker is not asked, and the evidence belongs to the reference alone.
    :param variant_name: the endpoint's variant.
    :param min_rows: rows in each look; fewer give no verdict.
    :param alpha: chance of ever raising an alarm about traffic that does not change, over all features and looks.
    :param min_effect: least population stability index that counts as drift.
    :param features: columns to watch, "prediction" among them; None watches all.
    :param poll_interval: seconds between two listings.
    :param timeout: seconds to wait for drift (inherited); counted anew by a retry.
    :param on_timeout: what happens without drift by then: "skip" (no asset event) or "fail". Traffic that could not be
        read fails the task in either case.
    :param cooldown: drift is told at most once in this time, as long as model and reference stay the same.
    :param persistence: (k, n): drift is told where at least k of the last n looks found it; (1, 1) tells each.
    :param sample: share of the requests to count, chosen by their event ids; the verdict says so where it is below 1.
    :param late_hours: a captured file is read if it comes within so many hours of its own.
    :param deferrable: wait in the triggerer; otherwise poke, in the sensor's `mode`.
    """

    template_fields: Sequence[str] = (
        "endpoint_name",
        "state_s3_uri",
        "capture_s3_uri",
        "reference_s3_uri",
        "variant_name",
        "min_rows",
        "alpha",
        "min_effect",
        "features",
        "sample",
    )
    operator_extra_links = (ReportLink(),)

    def __init__(
        self,
        *,
        endpoint_name: str,
        state_s3_uri: str,
        capture_s3_uri: str | None = None,
        reference_s3_uri: str | None = None,
        variant_name: str = "AllTraffic",
        min_rows: int | str = 1000,
        alpha: float | str = 0.05,
        min_effect: float | str = 0.2,
        features: Sequence[str] | None = None,
        poll_interval: float = 60,
        on_timeout: Literal["skip", "fail"] = "skip",
        cooldown: timedelta = timedelta(hours=1),
        persistence: tuple[int, int] = (1, 1),
        sample: float | str = 1.0,
        late_hours: int = LATE_HOURS,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poll_interval, **kwargs)
        self.endpoint_name = endpoint_name
        self.state_s3_uri = state_s3_uri
        self.capture_s3_uri = capture_s3_uri
        self.reference_s3_uri = reference_s3_uri
        self.variant_name = variant_name
        self.min_rows = min_rows
        self.alpha = alpha
        self.min_effect = min_effect
        self.features = features
        self.poll_interval = poll_interval
        self.on_timeout = on_timeout
        self.cooldown = cooldown
        self.persistence = persistence
        self.sample = sample
        self.late_hours = late_hours
        self.deferrable = deferrable
        self._check()

    def _check(self) -> None:
        """Refuse, when the DAG is parsed, what is wrong already; templates are checked when they are rendered."""
        if self.on_timeout not in {"skip", "fail"}:
            raise SpecificationError(f"on_timeout={self.on_timeout!r} must be 'skip' or 'fail'")
        if self.poll_interval <= 0 or self.cooldown < timedelta(0):
            raise SpecificationError(
                f"poll_interval={self.poll_interval} must be above 0, and cooldown={self.cooldown} not negative"
            )
        if self.late_hours < 1:
            raise SpecificationError(f"late_hours={self.late_hours} must be at least 1: files are delivered late")
        settings = (self.min_rows, self.alpha, self.min_effect, self.features, self.state_s3_uri, self.sample)
        if not any("{{" in str(value) or "{%" in str(value) for value in settings):
            _ = self._settings, self._share, S3Uri.parse(self.state_s3_uri)

    @property
    def _settings(self) -> DriftSettings:
        try:
            return DriftSettings(
                alpha=float(self.alpha),
                min_effect=float(self.min_effect),
                min_rows=int(self.min_rows),
                features=None if self.features is None else tuple(self.features),
                persistence=self.persistence[0],
                persistence_of=self.persistence[1],
            )
        except (TypeError, ValueError, IndexError) as error:
            raise SpecificationError(f"DriftSensor: {error}") from error

    @property
    def _share(self) -> float:
        try:
            share = float(self.sample)
        except (TypeError, ValueError) as error:
            raise SpecificationError(f"sample={self.sample!r} must be a number, such as 0.1") from error
        if not 0 < share <= 1:
            raise SpecificationError(f"sample={share} must be above 0 and at most 1, which counts every request")
        return share

    def execute(self, context: Context) -> Any:
        """Look at what is there, then wait for more; return the summary of the drift."""
        if self.deferrable:
            return self._advance_or_defer(context, time.time() + self.timeout)
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            with airflow_errors():
                self._end_without_drift(self._watch(context)[1].advance(_now))

    def resume(self, context: Context, event: Mapping[str, Any], deadline: float | None = None) -> Any:
        """Go on after the trigger has fired. `dag.test()` drops a deferral's arguments: an XCom has them too."""
        if event.get("status") == "trouble":
            self.log.warning("The triggerer could not list captured files: %s", event.get("message"))
        if deadline is None:
            identity = identity_of(context)
            deadline = float(
                context["ti"].xcom_pull(task_ids=identity.task_id, key=_DEADLINE_XCOM, map_indexes=identity.map_index)
            )
        return self._advance_or_defer(context, deadline)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at what is there; done where it has drifted."""
        with airflow_errors():
            state = self._watch(context)[1].advance(_now)
            found = found_by(state, self._owner(context))
            return PokeReturnValue(is_done=found, xcom_value=self._tell(context, state) if found else None)

    def _advance_or_defer(self, context: Context, deadline: float) -> Any:
        with airflow_errors():
            watched, watch = self._watch(context)
            state = watch.advance(_now)
            self.log.info("So far %s", told_so_far(state))
            if found_by(state, self._owner(context)):
                return self._tell(context, state)
            if time.time() >= deadline:
                self._end_without_drift(state)
        context["ti"].xcom_push(key=_DEADLINE_XCOM, value=deadline)
        trigger = UnreadCaptureTrigger(
            connection=to_json(self.connection),
            capture_s3_uri=str(watched.capture),
            state_s3_uri=str(watch.state_uri),
            min_rows=self._settings.min_rows,
            poll_interval=self.poll_interval,
            deadline=min(deadline, time.time() + _LONGEST_WAIT),
        )
        return self.defer(trigger=trigger, method_name="resume", kwargs=self.for_this_life(context, deadline=deadline))

    def _watch(self, context: Context) -> tuple[WatchedModel, DriftWatch]:
        watched = watched_model(
            lambda: self.aws.client("sagemaker"),
            endpoint_name=self.endpoint_name,
            variant_name=self.variant_name,
            capture_s3_uri=self.capture_s3_uri,
            reference_s3_uri=self.reference_s3_uri,
        )
        root = S3Uri.parse(self.state_s3_uri)
        watch = DriftWatch(
            self._store,
            watched,
            root,
            self._settings,
            owner=self._owner(context),
            cooldown=self.cooldown,
            late_hours=self.late_hours,
            sample=self._share,
        )
        return watched, watch

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore(self.aws.client("s3"))

    def _owner(self, context: Context) -> str:
        return digest_of(to_json(identity_of(context)))

    def _tell(self, context: Context, state: DriftState) -> dict[str, Any]:
        """Link the report, attach it to the asset events, and return the summary."""
        if state.alarm is None:
            raise SpecificationError("there is no drift to tell of")
        summary: dict[str, Any] = dict(state.alarm.summary)
        self.log.info("%s Report: %s", summary["sentence"], summary["report_html_uri"])
        ReportLink.store(context, report_url(self.aws.client("s3"), S3Uri.parse(summary["report_html_uri"])))
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = event_extra(summary)
        return summary

    def _end_without_drift(self, state: DriftState) -> None:
        doubt = state.doubt or unreadable(state.window, self._settings)
        if doubt:
            raise Inconclusive(
                f"Cannot tell whether {self.endpoint_name} has drifted: {doubt}. Seen: {told_so_far(state)}"
            )
        sentence = f"{self.endpoint_name}, after {self.timeout:.0f} s: {without_new_drift(state)}"
        if self.on_timeout == "fail":
            raise OutcomeUnacceptable(sentence)
        raise AirflowSkipException(sentence)


def _now() -> datetime:
    return datetime.now(UTC)
