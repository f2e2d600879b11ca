"""Which objects in S3 are the current data of a check, each pinned to the bytes that are read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any

from airflow_dlaws.data.snapshot import read_snapshot
from airflow_dlaws.errors import OutcomeUnacceptable, ServiceUnavailable, SpecificationError
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri
from airflow_dlaws.validation.source import DataSource, find_objects

#: SageMaker names a file after the hour of its first request and delivers it within minutes: a request of the last
#: moments of an interval may stand in a file of the next hour.
_NEXT_HOUR = timedelta(hours=1)
_HOUR = "%Y/%m/%d/%H"
#: Up to here the file is kept in memory; the rest goes to disk.
_IN_MEMORY = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the current data are. Exactly one of the ways is given.

    :param locations: objects and prefixes in S3.
    :param manifest: a ManifestFile in S3.
    :param snapshot: what ChooseDataOperator has noted, with versions; `part` says which of its sets.
    :param athena_query_id: a query that has ended; its result, or what it has unloaded.
    :param capture: s3://bucket/prefix/ENDPOINT/VARIANT/ of data capture; the hours from `start` to `end`.
    """

    locations: tuple[str, ...] = ()
    manifest: str | None = None
    snapshot: str | None = None
    part: str = "evaluation"
    athena_query_id: str | None = None
    capture: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        ways = {
            "data": self.locations,
            "data_manifest": self.manifest,
            "data_snapshot": self.snapshot,
            "athena_query_id": self.athena_query_id,
            "capture_s3_uri": self.capture,
        }
        given = sorted(name for name, value in ways.items() if value)
        if len(given) > 1:
            raise SpecificationError(f"{given} say in {len(given)} ways where the current data are: give one of them")
        if self.part not in ("evaluation", "training"):
            raise SpecificationError(f"data_snapshot: the part {self.part!r} must be 'evaluation' or 'training'")

    @property
    def is_given(self) -> bool:
        """Whether there are data of one's own at all, or others' evidence alone."""
        return bool(self.locations or self.manifest or self.snapshot or self.athena_query_id or self.capture)


def find_current(store: ObjectStore, source: Source, athena: Any) -> tuple[ObjectVersion, ...]:
    """Return the objects of `source`, in order; there may be none.

    :param athena: gives a boto3 Athena client, where one is needed.
    :raises NoData: a location or manifest holds nothing.
    :raises ServiceRefused: a bucket does not exist, or may not be listed.
    """
    if source.snapshot:
        snapshot = read_snapshot(store, source.snapshot)
        return snapshot.evaluation if source.part == "evaluation" else snapshot.training
    if source.capture:
        return tuple(_captured(store, source))
    locations = _athena_result(store, athena(), source.athena_query_id) if source.athena_query_id else source.locations
    found = find_objects(store, DataSource(locations=tuple(locations), manifest=source.manifest))
    # Athena describes each result in a file beside it.
    return tuple(_pinned(store, [uri for uri in found if not uri.key.endswith(".csv.metadata")]))


@contextmanager
def opened(store: ObjectStore, version: ObjectVersion) -> Iterator[IO[bytes]]:
    """Open the very bytes that were pinned, as a file that can be read from any place; large ones lie on disk.

    :raises ServiceUnavailable: the object holds others by now and its bucket keeps no versions; a retry pins anew.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        if not store.download_version(version, file):
            raise ServiceUnavailable(
                f"{version.uri} was replaced while it was read (etag {version.etag} is gone), and no version was "
                "noted: a retry reads it anew. Versions in the bucket, and ChooseDataOperator's snapshot, prevent this"
            )
        file.seek(0)
        yield file


def _pinned(store: ObjectStore, found: Sequence[S3Uri]) -> Iterator[ObjectVersion]:
    """Note the present bytes of each object, with one listing for each folder."""
    listed: dict[str, ObjectVersion] = {}
    for uri in found:
        if str(uri) not in listed:
            folder = S3Uri(uri.bucket, uri.key.rpartition("/")[0])
            listed |= {
                str(row.uri): ObjectVersion(uri=str(row.uri), etag=row.etag.strip('"'), size=row.size)
                for row in store.list(folder)
            }
        if str(uri) not in listed:
            raise OutcomeUnacceptable(f"{uri} has gone since it was listed: clear the task once the data are complete")
        yield listed[str(uri)]


def _captured(store: ObjectStore, source: Source) -> Iterable[ObjectVersion]:
    """Return the captured files whose hour may hold requests of the interval."""
    if source.start is None or source.end is None:
        raise SpecificationError("captured data need the interval that is meant: start and end")
    first = source.start.astimezone(UTC).strftime(_HOUR)
    last = (source.end.astimezone(UTC) + _NEXT_HOUR).strftime(_HOUR)
    for prefix in _capture_prefixes(store, S3Uri.parse(str(source.capture).rstrip("/"))):
        for row in store.list(prefix, start_after=prefix.key + first):
            hour = row.uri.key.removeprefix(prefix.key)[: len("yyyy/mm/dd/hh")]
            if hour > last:
                break
            yield ObjectVersion(uri=str(row.uri), etag=row.etag.strip('"'), size=row.size)


def _capture_prefixes(store: ObjectStore, variant: S3Uri) -> Iterator[S3Uri]:
    """Yield where ROOT/ENDPOINT/VARIANT may be captured: there, and in ROOT's folders, one of each configuration."""
    yield S3Uri(variant.bucket, f"{variant.key}/")
    root, endpoint, name = variant.key.rpartition("/")[0].rpartition("/")[0], *variant.key.split("/")[-2:]
    for folder in store.folders(S3Uri(variant.bucket, f"{root}/" if root else "")):
        if folder.key != f"{root}/{endpoint}/".lstrip("/"):
            yield S3Uri(folder.bucket, f"{folder.key}{endpoint}/{name}/")


def _athena_result(store: ObjectStore, athena: Any, query_id: str) -> list[str]:
    """Return where a query has left its result: one CSV file, or the files of an UNLOAD.

    :raises OutcomeUnacceptable: it has not succeeded.
    """
    with service_errors(f"look at Athena query {query_id}"):
        query = athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
    state = query["Status"]["State"]
    if state != "SUCCEEDED":
        reason = query["Status"].get("StateChangeReason", "")
        raise OutcomeUnacceptable(
            f"Athena query {query_id} is {state}, not SUCCEEDED: there is no result to check. {reason}".strip()
        )
    files = query.get("Statistics", {}).get("DataManifestLocation")
    if not files:
        return [query["ResultConfiguration"]["OutputLocation"]]
    return [line for line in store.read(S3Uri.parse(files)).decode().split() if line]
