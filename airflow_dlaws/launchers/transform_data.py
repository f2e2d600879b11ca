"""The two ends of a transform job in S3: which objects it reads, which it must have written, and how many records.

SageMaker stores `<object>.out` under the output location for every object that succeeded as a whole; that all of them
are there, are of this job, and have a record for each record, is for us to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError
from airflow_dlaws.jobs.rows import ROWS_IN_MESSAGE, BadRow, bad_rows
from airflow_dlaws.jobs.spec import Channel, ChannelKind
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.storage import ObjectStore, S3Uri, StoredObject

#: Objects whose records are counted at the same time: S3 answers many requests as fast as one.
_AT_ONCE = 8
#: Objects named in a message.
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class InputObject:
    """One object to score, and its name relative to the data."""

    stored: StoredObject
    name: str


@dataclass(frozen=True, kw_only=True)
class ScoredObject:
    """One output object; `records` is None where objects are not split into records."""

    uri: str
    records: int | None


def input_objects(store: ObjectStore, data: Channel) -> list[InputObject]:
    """Return the objects that a job over `data` reads.

    :raises SpecificationError: a prefix that is neither a folder nor an object, a manifest that is none.
    """
    with service_errors(f"list {data.uri}"):
        uri = S3Uri.parse(data.uri)
        if data.kind is ChannelKind.MANIFEST:
            return [InputObject(stored=store.row(one), name=name) for one, name in _manifest(store, uri)]
        rows = [row for row in store.list(uri) if not row.uri.key.endswith("/")]
    if not uri.key or uri.key.endswith("/"):
        return [InputObject(stored=row, name=row.uri.key[len(uri.key) :]) for row in rows]
    if [row.uri for row in rows] == [uri]:
        return [InputObject(stored=rows[0], name=uri.key.rpartition("/")[2])]
    raise SpecificationError(
        f"data={data.uri!r} is neither one object nor a folder, so what its output is called would be a guess: "
        'end the prefix with "/", name one object, or list objects in a manifest'
    )


def find_bad_rows(store: ObjectStore, objects: Sequence[InputObject], columns: Mapping[str, str]) -> list[BadRow]:
    """Read all rows, and return the first ones that cannot be scored."""
    found: Iterator[BadRow] = (
        row for one in objects for row in bad_rows(str(one.stored.uri), store.lines(one.stored.uri), columns)
    )
    with service_errors("read the rows of the data"):
        return list(islice(found, ROWS_IN_MESSAGE))


def scored_objects(
    store: ObjectStore,
    objects: Sequence[InputObject],
    output: S3Uri,
    *,
    created: datetime,
    by_line: bool,
) -> list[ScoredObject]:
    """Return what a completed job has written, once it is seen to be all that it should have.

    :param created: when the job was created; nothing that was written since belongs to its input, and all of its
        output was written since.
    :raises OutcomeUnacceptable: an output is missing, is older than the job, or has another number of records.
    """
    _refuse_changed(objects, created)
    with service_errors(f"list {output}"):
        prefix = S3Uri(output.bucket, f"{output.key.rstrip('/')}/" if output.key else "")
        written = {row.uri: row for row in store.list(prefix)}
    pairs = [(one, prefix / f"{one.name}.out") for one in objects]
    # S3 keeps whole seconds: an output may bear the second in which its job was created.
    fresh = created.replace(microsecond=0)
    missing = [target for _, target in pairs if target not in written or written[target].last_modified < fresh]
    if missing:
        raise OutcomeUnacceptable(
            f"the job completed, but {len(missing)} of {len(pairs)} outputs are missing or older than the job: "
            f"{_some(missing)}. Clear the task to score again"
        )
    with ThreadPoolExecutor(_AT_ONCE) as pool, service_errors("count the records"):
        counts = list(pool.map(lambda pair: _counts(store, *pair) if by_line else None, pairs))
    wrong = [
        f"{target} has {count[1]} records for the {count[0]} of {one.stored.uri}"
        for (one, target), count in zip(pairs, counts, strict=True)
        if count and count[0] != count[1]
    ]
    if wrong:
        raise OutcomeUnacceptable(
            f"the job completed, but {len(wrong)} of {len(pairs)} outputs do not have a record for each record: "
            f"{'; '.join(wrong[:_NAMED])}. The container must answer one line for each line"
        )
    return [
        ScoredObject(uri=str(target), records=count[1] if count else None)
        for (_, target), count in zip(pairs, counts, strict=True)
    ]


def _refuse_changed(objects: Sequence[InputObject], created: datetime) -> None:
    changed = [one.stored.uri for one in objects if one.stored.last_modified > created]
    if changed:
        raise OutcomeUnacceptable(
            f"{len(changed)} input objects were written after the job was created, so its output may be of other "
            f"data: {_some(changed)}. Clear the task to score what is there now"
        )


def _counts(store: ObjectStore, one: InputObject, target: S3Uri) -> tuple[int, int]:
    """Count the lines that are not empty: whether a line end is added at the seam of two answers is SageMaker's."""
    return tuple(sum(1 for line in store.lines(uri) if line.strip()) for uri in (one.stored.uri, target))  # type: ignore[return-value]


def _manifest(store: ObjectStore, uri: S3Uri) -> list[tuple[S3Uri, str]]:
    """Read [{"prefix": "s3://bucket/some/"}, "a.csv", "b.csv"]."""
    document: Any = None
    try:
        document = store.read_json(uri)
        prefix, names = str(document[0]["prefix"]), [str(name) for name in document[1:]]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise SpecificationError(
            f'the manifest {uri} is not a list of one {{"prefix": "s3://..."}} and object names: {str(document)[:80]}'
        ) from error
    return [(S3Uri.parse(prefix + name), name) for name in names]


def _some(uris: Sequence[S3Uri]) -> str:
    more = f" and {len(uris) - _NAMED} more" if len(uris) > _NAMED else ""
    return ", ".join(map(str, uris[:_NAMED])) + more
