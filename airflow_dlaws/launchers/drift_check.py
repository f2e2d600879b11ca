"""A drift check of data in S3: on this machine, or as a processing job; and the report that either leaves.

Both ways run `drift.batch.check` on the same pinned objects; the job gets them as files, and needs no network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from airflow_dlaws.data.snapshot import changes, describe_changes
from airflow_dlaws.drift.accuracy import AccuracyEstimate, measured_accuracy
from airflow_dlaws.drift.batch import BatchFindings, BatchPlan, check
from airflow_dlaws.drift.container import ORDER, REFERENCE, VERDICT, findings_of, order_document
from airflow_dlaws.drift.counts import no_traffic
from airflow_dlaws.drift.outside import OutsideFinding, conclude
from airflow_dlaws.drift.profile import ReferenceProfile, parse_profile
from airflow_dlaws.drift.report import DriftReport, DriftSummary, reference_tables, summarise
from airflow_dlaws.drift.report_page import as_html
from airflow_dlaws.drift.verdict import inconclusive
from airflow_dlaws.errors import JobFailed, OutcomeUnacceptable, SpecificationError
from airflow_dlaws.jobs.channel import Channel, ChannelKind
from airflow_dlaws.jobs.processing import INPUTS, OUTPUTS
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.drift_data import Source, find_current, opened
from airflow_dlaws.launchers.drift_package import ZIP_NAME, publish_package
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri

_MESSAGE = "/opt/ml/output/message"
#: The report names so many of the places that were read.
_SOURCES = 100


@dataclass(frozen=True, kw_only=True)
class CheckOrder:
    """What is checked against what.

    :param folder: of this check alone: its order, its verdict and its report.
    :param subject: what the data belong to, such as an endpoint's name.
    :param reference: None where there are no data to compare, and the evidence of others decides alone.
    """

    subject: str
    model: str
    reference: S3Uri | None
    plan: BatchPlan
    source: Source
    labels: Source | None
    folder: S3Uri


@dataclass(frozen=True, kw_only=True)
class PinnedData:
    """Which bytes a check reads."""

    objects: tuple[ObjectVersion, ...]
    labels: tuple[ObjectVersion, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Findings, and what they were found with."""

    findings: BatchFindings
    profile: ReferenceProfile
    data: PinnedData


class DriftChecks:
    """Runs checks through injected clients.

    :param client: gives the boto3 client of a service by name ("s3", "athena").
    """

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client
        self._store = ObjectStore(client("s3"))

    def run_here(self, order: CheckOrder) -> Checked:
        """Read and judge on this machine, one file at a time."""
        if not order.source.is_given:
            return _nothing()
        profile, data = parse_profile(self._reference(order)), self._pin(order)
        findings = check(profile, order.plan, self._files(data.objects), self._files(data.labels))
        return Checked(findings=findings, profile=profile, data=data)

    def prepare_job(self, order: CheckOrder) -> tuple[Channel, ...]:
        """Write what the job is to do, once for all tries of the task; return the job's inputs.

        :raises SpecificationError: the data lie in several buckets, which one input of a job cannot.
        """
        folder = order.folder / "order"
        if not self._store.exists(folder / ORDER):
            self._write_order(order, folder)
        inputs = [
            Channel(name="package", uri=str(publish_package(self._store, order.folder.parent / "code"))),
            Channel(name="check", uri=f"{folder}/"),
        ]
        noted = from_json(PinnedData, self._store.read_json(order.folder / "data.json"))
        for name, objects in (("data", noted.objects), ("labels", noted.labels)):
            if objects:
                manifest = str(order.folder / f"{name}.manifest")
                inputs.append(Channel(name=name, uri=manifest, kind=ChannelKind.MANIFEST))
        return tuple(inputs)

    def job_findings(self, order: CheckOrder) -> Checked:
        """Return what the job has found.

        :raises JobFailed: it has left no verdict.
        :raises OutcomeUnacceptable: objects were replaced since they were chosen: the job may have read either.
        """
        verdict = findings_folder(order) / VERDICT
        if not self._store.exists(verdict):
            raise JobFailed(f"the check has ended well and has left no {verdict}")
        data = from_json(PinnedData, self._store.read_json(order.folder / "data.json"))
        if changed := changes(self._store, (*data.objects, *data.labels)):
            raise OutcomeUnacceptable(
                f"data have changed since the check began: {describe_changes(changed)}. The verdict would be on "
                "unknown rows: clear the task"
            )
        profile = parse_profile(self._store.read(order.folder / "order" / REFERENCE))
        return Checked(findings=findings_of(self._store.read_json(verdict)), profile=profile, data=data)

    def publish(self, order: CheckOrder, checked: Checked, evidence: tuple[OutsideFinding, ...]) -> DriftSummary:
        """Write the report, JSON and page; return its small form."""
        findings = checked.findings
        reference, labels = reference_tables(checked.profile)
        outcome, sentence = conclude(findings.verdict, evidence, has_data=order.source.is_given)
        report = DriftReport(
            endpoint_name=order.subject,
            variant_name="",
            model=order.model,
            reference_uri=str(order.reference or ""),
            written=datetime.now(UTC),
            settings=order.plan.settings,
            verdict=findings.verdict,
            window=findings.counts,
            reference=reference,
            labels=labels,
            total_rows=findings.counts.rows,
            outcome=outcome,
            sentence=sentence,
            measured_accuracy=_measured(checked),
            evidence=evidence,
            notes=findings.notes,
            sources=tuple(each.uri for each in checked.data.objects[:_SOURCES]),
            files=findings.files,
        )
        document, html = order.folder / "drift.json", order.folder / "drift.html"
        self._store.write_json(document, to_json(report))
        self._store.write(html, as_html(report, checked.profile).encode(), content_type="text/html; charset=utf-8")
        return summarise(report, report_uri=str(document), report_html_uri=str(html))

    def _pin(self, order: CheckOrder) -> PinnedData:
        def find(source: Source) -> tuple[ObjectVersion, ...]:
            return find_current(self._store, source, lambda: self._client("athena"))

        return PinnedData(objects=find(order.source), labels=find(order.labels) if order.labels else ())

    def _reference(self, order: CheckOrder) -> bytes:
        if order.reference is None:
            raise SpecificationError(
                "data need a reference to be compared with: give reference_s3_uri or endpoint_name"
            )
        return self._store.read(order.reference)

    def _files(self, objects: tuple[ObjectVersion, ...]) -> Iterator[tuple[str, IO[bytes]]]:
        for each in objects:
            with opened(self._store, each) as file:
                yield each.uri, file

    def _write_order(self, order: CheckOrder, folder: S3Uri) -> None:
        """Pin the data and write everything the job reads; the order itself last, for it is what a retry looks for."""
        data = self._pin(order)
        names: dict[str, list[str]] = {}
        for name, objects in (("data", data.objects), ("labels", data.labels)):
            names[name] = _keys(name, objects)
            if objects:
                bucket = S3Uri.parse(objects[0].uri).bucket
                self._store.write_json(order.folder / f"{name}.manifest", [{"prefix": f"s3://{bucket}/"}, *names[name]])
        self._store.write_json(order.folder / "data.json", to_json(data))
        self._store.write(folder / REFERENCE, self._reference(order), content_type="application/json")
        document = order_document(order.plan, names["data"], names["labels"])
        self._store.create(folder / ORDER, json.dumps(document).encode())


def _nothing() -> Checked:
    """Return the findings of a check without data of its own."""
    profile = ReferenceProfile(created=datetime.now(UTC), rows=1, feature_order=(), features=())
    counts = no_traffic(profile)
    verdict = inconclusive("there are no data of one's own to judge", counts, look=1)
    return Checked(
        findings=BatchFindings(verdict=verdict, counts=counts, files=0), profile=profile, data=PinnedData(objects=())
    )


def findings_folder(order: CheckOrder) -> S3Uri:
    """Return where the job leaves its verdict."""
    return order.folder / "verdict"


def job_command(python: str = "python3") -> tuple[str, ...]:
    """Return the program of the job, in the words of its container."""
    folders = (f"{INPUTS}/check", f"{INPUTS}/data", f"{INPUTS}/labels", f"{OUTPUTS}/verdict", _MESSAGE)
    return (python, f"{INPUTS}/package/{ZIP_NAME}", *folders)


def _keys(name: str, objects: tuple[ObjectVersion, ...]) -> list[str]:
    uris = [S3Uri.parse(each.uri) for each in objects]
    if len(buckets := {uri.bucket for uri in uris}) > 1:
        raise SpecificationError(
            f"the {name} lie in {len(buckets)} buckets ({sorted(buckets)}), and an input of a processing job has one: "
            "copy them together, or set execution='worker'"
        )
    return [uri.key for uri in uris]


def _measured(checked: Checked) -> AccuracyEstimate | None:
    labelled = checked.findings.labelled
    if labelled is None or not labelled.rows or checked.profile.calibration is None:
        return None
    return measured_accuracy(checked.profile, rows=labelled.rows, correct=labelled.right)
