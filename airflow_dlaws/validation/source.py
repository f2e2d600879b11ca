"""Which objects are the data, and reading them from S3 into one table, remembering which version of each was read."""

from __future__ import annotations

import enum
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri

if TYPE_CHECKING:
    import pandas as pd


_COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd"}


class NoData(OutcomeUnacceptable):
    """A location, or all of them together, holds nothing to validate."""


class DataFormat(enum.StrEnum):
    """How the objects are written."""

    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the data are, and how to read them.

    :param locations: objects or prefixes in S3.
    :param manifest: a SageMaker ManifestFile document in S3, in place of `locations`.
    :param read_options: more arguments of pandas' `read_csv` or `read_parquet`, such as {"header": None}.
    :param max_rows: read at most this many rows, spread evenly over the objects; None reads all.
    """

    locations: tuple[str, ...] = ()
    manifest: str | None = None
    format: str = DataFormat.CSV
    read_options: Mapping[str, Any] = field(default_factory=dict)
    max_rows: int | None = None

    def __post_init__(self) -> None:
        if bool(self.locations) == bool(self.manifest):
            raise SpecificationError("give the data's locations or a manifest_s3_uri: one of the two, not both")
        for location in [*self.locations, *([self.manifest] if self.manifest else [])]:
            S3Uri.parse(location)
        if self.format not in list(DataFormat):
            raise SpecificationError(f"format={str(self.format)!r} is none of {[str(each) for each in DataFormat]}")
        object.__setattr__(self, "format", DataFormat(self.format))
        if self.max_rows is not None and self.max_rows < 1:
            raise SpecificationError(f"max_rows={self.max_rows} must be at least 1; None reads all rows")


@dataclass(frozen=True, kw_only=True)
class ReadObject:
    """An object that was read, which version of it, and how many rows of it."""

    version: ObjectVersion
    rows: int


@dataclass(frozen=True)
class Batch:
    """The table that was read, and from what."""

    frame: pd.DataFrame
    objects: tuple[ReadObject, ...]
    #: Whether `max_rows` cut any object short.
    sampled: bool


def find_objects(store: ObjectStore, source: DataSource) -> list[S3Uri]:
    """Return the objects that `source` names, in order, each once.

    Names that start with `_` or `.` (markers such as `_SUCCESS`) and folder markers are left out.

    :raises ServiceRefused: a bucket or the manifest does not exist.
    :raises NoData: one of the locations holds nothing.
    """
    locations = _read_manifest(store, S3Uri.parse(source.manifest)) if source.manifest else source.locations
    found: dict[str, S3Uri] = {}
    for location in locations:
        matches = list(_matches(store, S3Uri.parse(location)))
        if not matches:
            raise NoData(
                f"there are no data at {location}: no object has this name or prefix. Has the job that writes them "
                "run for this interval?"
            )
        found.update({str(match): match for match in matches})
    return list(found.values())


def read_batch(store: ObjectStore, source: DataSource, objects: Sequence[S3Uri]) -> Batch:
    """Read the objects one after another into one table.

    :raises OutcomeUnacceptable: an object is empty, cannot be parsed, or has other columns than the first.
    :raises NoData: all objects together have no rows.
    """
    import pandas as pd

    limit = None if source.max_rows is None else math.ceil(source.max_rows / len(objects))
    frames: list[pd.DataFrame] = []
    read: list[ReadObject] = []
    sampled = False
    for uri in objects:
        with tempfile.TemporaryFile() as file:
            version = store.download(uri, file)
            file.seek(0)
            frame = _read_frame(file, uri, version, source, limit)
        if frames:
            _check_columns(frames[0], frame, objects[0], uri)
        if limit is not None and len(frame) > limit:
            frame, sampled = frame.iloc[:limit], True
        frames.append(frame)
        read.append(ReadObject(version=version, rows=len(frame)))
    if not any(each.rows for each in read):
        raise NoData(f"the {len(read)} objects have headers and no rows, the first is {objects[0]}")
    return Batch(pd.concat(frames, ignore_index=True), tuple(read), sampled)


def _matches(store: ObjectStore, location: S3Uri) -> Iterator[S3Uri]:
    for row in store.list(location):
        name = row.uri.key.rpartition("/")[2]
        if name and not name.startswith(("_", ".")):
            yield row.uri


def _read_manifest(store: ObjectStore, uri: S3Uri) -> list[str]:
    """Return the locations in a ManifestFile: [{"prefix": "s3://bucket/p/"}, "relative/key", ...].

    Source: S3DataSource in the SageMaker API reference.
    """
    try:
        document = json.loads(store.read(uri))
    except ValueError as error:
        raise SpecificationError(f"the manifest {uri} is no JSON: {error}") from error
    valid = isinstance(document, list) and document and isinstance(document[0], dict) and "prefix" in document[0]
    if not valid or not all(isinstance(each, str) for each in document[1:]):
        raise SpecificationError(f'the manifest {uri} must read [{{"prefix": "s3://bucket/p/"}}, "key", ...]')
    if not document[1:]:
        raise NoData(f"the manifest {uri} names no objects: there is nothing to validate")
    return [document[0]["prefix"] + name for name in document[1:]]


def _read_frame(
    file: IO[bytes], uri: S3Uri, version: ObjectVersion, source: DataSource, limit: int | None
) -> pd.DataFrame:
    import pandas as pd

    if version.size == 0:
        raise OutcomeUnacceptable(f"{uri} is empty (0 bytes): write the file again, or take it out of the data")
    options = dict(source.read_options)
    read = pd.read_parquet
    if source.format is DataFormat.CSV:
        read = pd.read_csv
        # pandas infers this from a path, and it is given an open file.
        options.setdefault("compression", _COMPRESSIONS.get(uri.key.rpartition(".")[2]))
        if limit is not None:
            # One more than is kept, to see that there are more.
            options.setdefault("nrows", limit + 1)
    try:
        frame: pd.DataFrame = read(file, **options)
    except TypeError as error:
        raise SpecificationError(f"read_options={dict(source.read_options)!r}: {error}") from error
    except ImportError as error:
        raise SpecificationError(f"reading {source.format} needs another package on the worker: {error}") from error
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise OutcomeUnacceptable(f"{uri} cannot be read as {source.format}: {str(error).strip()}") from error
    return frame


def _check_columns(first: pd.DataFrame, other: pd.DataFrame, first_uri: S3Uri, uri: S3Uri) -> None:
    expected, found = [str(name) for name in first.columns], [str(name) for name in other.columns]
    if expected == found:
        return
    missing, new = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    how = f"lacks {missing} and adds {new}" if missing or new else f"orders them {found}, not {expected}"
    raise OutcomeUnacceptable(f"{uri} has other columns than {first_uri}: it {how}. All objects must have the same.")
