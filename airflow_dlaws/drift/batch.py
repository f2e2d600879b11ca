"""One check of a data set against a reference: read its files, count them, judge once. No S3 and no Airflow in here.

The same code runs on a worker and, shipped as a zip, in a processing job (drift/container.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from airflow_dlaws.data.tables import TableFormat
from airflow_dlaws.drift.batch_readers import CAPTURE, CapturedFiles, File, TableFiles
from airflow_dlaws.drift.counts import TrafficCounts, no_traffic
from airflow_dlaws.drift.labels import Labelled, LabelPlan, Labels
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import DriftVerdict, assess
from airflow_dlaws.errors import SpecificationError


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What a check reads and how it judges. JSON, for it also travels to a processing job.

    :param format: "csv", "jsonlines", "parquet", or "capture".
    :param header: whether the first line of each CSV file names its columns; else they are the reference's, in order.
    :param columns: {the reference's name: the data's}, where they differ; outputs (`prediction`, ...) stand here too.
    :param start, end: of captured requests, those answered in between count.
    """

    format: str
    settings: DriftSettings
    header: bool = True
    columns: Mapping[str, str] = field(default_factory=dict)
    start: datetime | None = None
    end: datetime | None = None
    labels: LabelPlan | None = None

    def __post_init__(self) -> None:
        formats = [CAPTURE, *(each.value for each in TableFormat)]
        if self.format not in formats:
            raise SpecificationError(f"format={str(self.format)!r} is none of {formats}")


@dataclass(frozen=True, kw_only=True)
class BatchFindings:
    """What a check found; the document that a processing job leaves."""

    verdict: DriftVerdict
    counts: TrafficCounts
    files: int
    #: What is odd about the data as a whole: columns that are not there.
    notes: tuple[str, ...] = ()
    labelled: Labelled | None = None


def check(
    profile: ReferenceProfile, plan: BatchPlan, files: Iterable[File], labels: Iterable[File] = ()
) -> BatchFindings:
    """Read the files one after another and judge them together.

    :param files: names and open files; each is closed by whoever opened it, once the next is asked for.
    :raises OutcomeUnacceptable: a file cannot be read at all.
    """
    plan.settings.check_against(profile)
    known = Labels(plan.labels, labels) if plan.labels else None
    reader = _reader(profile, plan, known)
    counts, count = no_traffic(profile), 0
    for where, file in files:
        counts += reader.count(where, file)
        count += 1
    return BatchFindings(
        verdict=assess(profile, counts, plan.settings),
        counts=counts,
        files=count,
        notes=reader.notes,
        labelled=known.result if known else None,
    )


def _reader(profile: ReferenceProfile, plan: BatchPlan, labels: Labels | None) -> CapturedFiles | TableFiles:
    if plan.format == CAPTURE:
        return CapturedFiles(profile, labels, start=plan.start, end=plan.end)
    names = None
    if plan.format == TableFormat.CSV and not plan.header:
        names = tuple(plan.columns.get(name, name) for name in profile.feature_order)
    row_ids = plan.labels.row_id_column if plan.labels else None
    return TableFiles(profile, labels, plan.format, names=names, columns=plan.columns, row_ids=row_ids)
