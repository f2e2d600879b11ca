"""The data that `dlaws drift` is given: files here, or in S3 and copied here first; references, tables, captures."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dlaws.errors import SpecificationError

if TYPE_CHECKING:
    from airflow_dlaws.drift.counts import TrafficCounts
    from airflow_dlaws.drift.events import EventLedger
    from airflow_dlaws.drift.profile import ReferenceProfile

_CAPTURED = ".jsonl"
_S3 = "s3://"

#: Bytes of a captured file in memory at once.
_PIECE = 1024 * 1024


#: What this process wants of libraries that it has not loaded yet: Arrow's own allocators hold 20 MB more than malloc,
#: and threads that wait for one another burn CPU on matrices as small as ours.
_LEAN = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Files:
    """Opens what the command line names; use it as a context, after which copies from S3 are gone."""

    def __init__(self, client: Any = None) -> None:
        for name, value in _LEAN.items():
            os.environ.setdefault(name, value)
        self._client = client
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            self._folder.cleanup()

    def local(self, name: str) -> Path:
        """Return the path of a file; one in S3 is copied.

        :raises ServiceRefused: it is not in S3, or may not be read.
        """
        if not name.startswith(_S3):
            return Path(name)
        from airflow_dlaws.storage import S3Uri

        uri = S3Uri.parse(name)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="dlaws-drift-")
        path = Path(self._folder.name) / Path(uri.key).name
        with path.open("wb") as file:
            self._store().download(uri, file)
        return path

    def _store(self) -> Any:
        from airflow_dlaws.storage import ObjectStore

        if self._client is None:
            import boto3

            self._client = boto3.client("s3")
        return ObjectStore(self._client)

    def reference(self, name: str, **profiling: Any) -> ReferenceProfile:
        """Return the reference of a file: its own, that of a Model Monitor baseline, or one made of data.

        :raises SpecificationError: it is none of these.
        """
        path = self.local(name)
        if path.suffix != ".json":
            return self.profile_data(path, **profiling)
        text = _text(path)
        if _is_baseline(text):
            from airflow_dlaws.drift.model_monitor import read_baseline

            written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            return read_baseline(text, created=written).profile
        from airflow_dlaws.drift.profile import parse_profile

        return parse_profile(text)

    def profile_data(
        self,
        path: Path,
        *,
        categorical: Collection[str] = (),
        ignored: Collection[str] = (),
        outputs: Sequence[str] = (),
        components: int | None = None,
    ) -> ReferenceProfile:
        """Return a reference of data.

        :raises SpecificationError: the file is no data, or a named column is not in it.
        """
        from airflow_dlaws.data.tables import open_table
        from airflow_dlaws.drift.whole_table import profile_table

        return profile_table(
            open_table(path), created=datetime.now(UTC), categorical=categorical, ignored=ignored, outputs=outputs,
            components=components,
        )  # fmt: skip

    def count(self, profile: ReferenceProfile, name: str) -> TrafficCounts:
        """Count data, or captured requests: a file, or all of a folder or prefix, one after another.

        :raises SpecificationError: there is nothing that can be read.
        """
        from airflow_dlaws.drift.counts import no_traffic
        from airflow_dlaws.drift.events import EventLedger

        counts, read, ledger = no_traffic(profile), 0, EventLedger()
        for each in self._named(name):
            counts += self._count_file(profile, self.local(each), ledger)
            read += 1
        if not read:
            raise SpecificationError(f"{name} has no files that end in {', '.join(_suffixes())}")
        return counts

    def _named(self, name: str) -> Iterator[str]:
        if name.startswith(_S3):
            from airflow_dlaws.storage import S3Uri

            uri = S3Uri.parse(name)
            found = [str(row.uri) for row in self._store().list(uri)] if not _is_file(name) else [name]
        else:
            path = Path(name)
            found = [str(each) for each in sorted(path.rglob("*"))] if path.is_dir() else [name]
        yield from (each for each in found if _is_file(each) or len(found) == 1)

    def _count_file(self, profile: ReferenceProfile, path: Path, ledger: EventLedger) -> TrafficCounts:
        if path.suffix == _CAPTURED:
            from airflow_dlaws.drift.capture import read_capture

            # One ledger for all files: a request that was delivered twice counts once.
            return read_capture(profile, _pieces(path), ledger=ledger)
        from airflow_dlaws.data.tables import open_table
        from airflow_dlaws.drift.whole_table import count_table

        return count_table(profile, open_table(path))


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from iter(lambda: file.read(_PIECE), b"")
    except OSError as error:
        raise SpecificationError(f"{path} cannot be read: {error}") from error


def _suffixes() -> tuple[str, ...]:
    from airflow_dlaws.data.tables import SUFFIXES

    return (*SUFFIXES, _CAPTURED)


def _is_file(name: str) -> bool:
    return name.lower().endswith(_suffixes())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecificationError(f"{path} cannot be read: {error}") from error


def _is_baseline(text: str) -> bool:
    """Tell whether it is statistics.json of Model Monitor: the kind without a `format`."""
    try:
        document = json.loads(text)
    except ValueError:
        return False
    return isinstance(document, dict) and "format" not in document and "dataset" in document
