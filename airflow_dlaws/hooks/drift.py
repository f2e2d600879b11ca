"""Reads captured requests into a drift state kept in S3, and looks at it: the I/O around airflow_dlaws.drift.

Under the state location lie

    state/ENDPOINT/VARIANT/MODEL-DIGEST.json             the state (drift/state.py); DIGEST is of the reference
    reports/ENDPOINT/VARIANT/MODEL-DIGEST/look-N-*.json  the report of a look that found drift, and its .html

Ledgers of the requests counted (hooks/capture.py) and verdicts (hooks/verdicts.py) lie beside them. Runs on a worker.
The trigger uses `read_progress` alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_dlaws.drift.counts import no_traffic
from airflow_dlaws.drift.profile import ReferenceProfile, parse_profile
from airflow_dlaws.drift.progress import CaptureFile, Progress, begins_an_hour, of_one_hour, parse_progress
from airflow_dlaws.drift.readiness import ready_to_look
from airflow_dlaws.drift.report import DriftReport, event_extra, reference_tables, summarise
from airflow_dlaws.drift.report_page import as_html
from airflow_dlaws.drift.sequence import advance, judged_together
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import (
    LATE_HOURS,
    Alarm,
    DriftState,
    absorb,
    after_look,
    cooling_down,
    new_state,
    parse_state,
    with_remarks,
)
from airflow_dlaws.drift.verdict import DriftVerdict
from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable, SpecificationError
from airflow_dlaws.hooks.capture import CapturedTraffic, list_unread
from airflow_dlaws.hooks.verdicts import publish, verdict_folder
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.registry.champion import live_model
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Files read between two commits: a killed worker reads at most so many again.
_BATCH = 100
#: Batches read before a look is taken all the same, so that traffic faster than the reader cannot put it off forever.
_MAX_BATCHES = 50
#: Each lost race means that another sensor has made progress; so many in a row mean that something is wrong.
_MAX_CONFLICTS = 20


@dataclass(frozen=True, kw_only=True)
class WatchedModel:
    """Whose traffic is watched, where it is captured, and what it is compared with."""

    endpoint_name: str
    variant_name: str
    #: The endpoint configuration in service.
    model: str
    #: When that model took over the traffic; None where SageMaker was not asked.
    since: datetime | None
    #: The prefix under which keys start with their hour.
    capture: S3Uri
    reference: S3Uri


def watched_model(
    sagemaker_client: Callable[[], Any],
    *,
    endpoint_name: str,
    variant_name: str,
    capture_s3_uri: str | None,
    reference_s3_uri: str | None,
) -> WatchedModel:
    """Find out what is in service, unless both places are given: then SageMaker is not asked.

    :raises SpecificationError: there is no such endpoint, or it captures nothing.
    """
    if capture_s3_uri and reference_s3_uri:
        model, since = "given", None
        capture, reference = S3Uri.parse(capture_s3_uri), S3Uri.parse(reference_s3_uri)
    else:
        client = sagemaker_client()
        live = live_model(client, endpoint_name, variant_name=variant_name)
        if live is None:
            raise SpecificationError(f"there is no endpoint {endpoint_name!r} to watch: deploy a model to it first")
        destination = capture_s3_uri or live.data_capture_s3_uri
        if not destination:
            raise SpecificationError(
                f"endpoint {endpoint_name!r} captures no data: set DataCaptureConfig in endpoint configuration "
                f"{live.endpoint_config_name!r}, or give capture_s3_uri"
            )
        model, since = live.endpoint_config_name, _took_over(client, endpoint_name)
        capture = S3Uri.parse(destination)
        given = reference_s3_uri and S3Uri.parse(reference_s3_uri)
        reference = given or S3Uri.parse(live.artifact_uri).parent / "drift_reference.json"
    prefix = capture / endpoint_name / variant_name
    return WatchedModel(
        endpoint_name=endpoint_name,
        variant_name=variant_name,
        model=model,
        since=since,
        capture=S3Uri(prefix.bucket, f"{prefix.key}/"),
        reference=reference,
    )


def _took_over(client: Any, endpoint_name: str) -> datetime:
    """Return when the endpoint last changed; inferenceTime has whole seconds, so this must have no more."""
    changed: datetime = client.describe_endpoint(EndpointName=endpoint_name)["LastModifiedTime"]
    return changed.replace(microsecond=0)


class DriftWatch:
    """The evidence about one model in service, and what to make of it.

    :param state_root: where state and reports go.
    :param owner: the task instance; drift that it has found before is found again by its retry.
    :param cooldown: drift is told at most once in this time for one model and reference.
    :param late_hours: how long after its hour a file may come and still be read.
    :param sample: the share of the requests to count.
    :raises ServiceRefused: the reference cannot be read.
    :raises SpecificationError: the reference is no profile, or lacks a feature that is to be watched.
    """

    def __init__(
        self,
        store: ObjectStore,
        watched: WatchedModel,
        state_root: S3Uri,
        settings: DriftSettings,
        *,
        owner: str,
        cooldown: timedelta,
        late_hours: int = LATE_HOURS,
        sample: float = 1.0,
    ) -> None:
        self._store, self._watched, self._root, self._settings = store, watched, state_root, settings
        self._owner, self._cooldown, self._late_hours, self._sample = owner, cooldown, late_hours, sample
        self._published: datetime | None = None
        document = store.read(watched.reference)
        self._profile: ReferenceProfile = parse_profile(document)
        settings.check_against(self._profile)
        self._key = f"{watched.model}-{hashlib.sha256(document).hexdigest()[:12]}"
        ledgers = state_root / "events" / watched.endpoint_name / watched.variant_name / self._key
        self._traffic = CapturedTraffic(store, watched.capture, ledgers)

    @property
    def state_uri(self) -> S3Uri:
        """The state document."""
        return self._root / "state" / self._watched.endpoint_name / self._watched.variant_name / f"{self._key}.json"

    def advance(self, clock: Callable[[], datetime]) -> DriftState:
        """Read what is unread, look where a look is due, and return the state then. Each step is committed.

        :raises ServiceUnavailable: other sensors keep changing the state.
        """
        batches = conflicts = 0
        while True:
            state, etag = self._load()
            self._publish(state)
            if found_by(state, self._owner):
                return state
            progress = state.progress
            files = list_unread(self._store, self._watched.capture, progress) if batches < _MAX_BATCHES else []
            ready = ready_to_look(state.window, self._settings)
            if files and not (ready and begins_an_hour(progress, files)):
                batches += 1
                after = self._read(state, etag, of_one_hour(files)[:_BATCH], clock())
            elif ready:
                after = self._look(state, clock())
            else:
                return state
            conflicts = 0 if after and self._save(state, after, etag) else conflicts + 1
            if conflicts > _MAX_CONFLICTS:
                raise ServiceUnavailable(f"{self.state_uri} was changed by others {conflicts} times in a row")

    def _load(self) -> tuple[DriftState, str | None]:
        stored = read_state(self._store, self.state_uri)
        return stored or (new_state(self._profile, self._watched.since), None)

    def _save(self, before: DriftState, after: DriftState, etag: str | None) -> bool:
        body = json.dumps(to_json(after)).encode()
        if etag is None:
            saved = self._store.create(self.state_uri, body)
        else:
            saved = self._store.replace(self.state_uri, body, etag=etag)
        if saved:
            self._traffic.sweep(before, after)
        return saved

    def _read(self, state: DriftState, etag: str | None, files: list[CaptureFile], now: datetime) -> DriftState | None:
        """Return the state after the files were counted; None where another sensor has got further meanwhile."""
        try:
            counts, ledgers = self._traffic.count(self._profile, state, files, now=now, sample=self._sample)
        except ServiceRefused:
            if self._load()[1] == etag:
                raise
            return None  # what is gone was swept away by whoever has read on
        return absorb(state, files, counts, now=now, late_hours=self._late_hours, ledgers=ledgers)

    def _publish(self, state: DriftState) -> None:
        """Write the verdict that the state tells of, where whoever found it had no time to."""
        if state.alarm is not None and state.alarm.at != self._published:
            folder = verdict_folder(self._root, self._watched.endpoint_name, self._watched.variant_name)
            publish(self._store, folder, state.alarm.at, event_extra(state.alarm.summary))
            self._published = state.alarm.at

    def _look(self, state: DriftState, now: datetime) -> DriftState:
        evidence, verdict = advance(self._profile, state.evidence, state.window, self._settings)
        verdict = with_remarks(verdict, state.window)
        nothing = no_traffic(self._profile)
        after = after_look(state, verdict, evidence, now=now, nothing=nothing)
        if not verdict.is_drift or cooling_down(state, now, self._cooldown):
            return after
        summary = self._write_report(state, after, verdict, now)
        # The report is there before the state names it; without the commit nobody ever hears of it.
        return after_look(
            state, verdict, evidence, now=now, nothing=nothing, alarm=Alarm(owner=self._owner, at=now, summary=summary)
        )

    def _write_report(
        self, state: DriftState, after: DriftState, verdict: DriftVerdict, now: datetime
    ) -> dict[str, object]:
        watched = self._watched
        reference, labels = reference_tables(self._profile)
        report = DriftReport(
            endpoint_name=watched.endpoint_name,
            variant_name=watched.variant_name,
            model=watched.model,
            reference_uri=str(watched.reference),
            written=now,
            settings=self._settings,
            verdict=verdict,
            # What the verdict is about, not the last window alone.
            window=judged_together(state.evidence, state.window, verdict.windows),
            reference=reference,
            labels=labels,
            total_rows=state.total.rows,
            history=after.history,
        )
        folder = self._root / "reports" / watched.endpoint_name / watched.variant_name / self._key
        # Two sensors may look at once, and only one of them commits: each writes a report of its own.
        name = f"look-{verdict.look:05d}-{hashlib.sha256(self._owner.encode()).hexdigest()[:8]}"
        as_json, as_page = folder / f"{name}.json", folder / f"{name}.html"
        self._store.write_json(as_json, to_json(report))
        self._store.write(as_page, as_html(report, self._profile).encode(), content_type="text/html; charset=utf-8")
        summary: dict[str, object] = to_json(summarise(report, report_uri=str(as_json), report_html_uri=str(as_page)))
        return summary


def found_by(state: DriftState, owner: str) -> bool:
    """Tell whether this task instance has found the drift that the state tells of."""
    return state.alarm is not None and state.alarm.owner == owner


def read_state(store: ObjectStore, uri: S3Uri) -> tuple[DriftState, str] | None:
    """Return the stored state and its entity tag, or None where there is none yet.

    :raises SpecificationError: what is stored there is no state of this version.
    """
    if not store.exists(uri):
        return None
    body, etag = store.read_versioned(uri)
    return parse_state(body, str(uri)), etag


def read_progress(
    store: ObjectStore, uri: S3Uri, known: tuple[str, Progress] | None = None
) -> tuple[str, Progress] | None:
    """Return the entity tag of the stored state and how far it has got, or None where there is none yet.

    :param known: what was returned before; a state that has not changed since is not read again.
    :raises SpecificationError: what is stored there is no state of this version.
    """
    row = next((row for row in store.list(uri) if row.uri == uri), None)
    if row is None:
        return None
    if known is not None and known[0] == row.etag:
        return known
    body, etag = store.read_versioned(uri)
    return etag, parse_progress(body, str(uri))
