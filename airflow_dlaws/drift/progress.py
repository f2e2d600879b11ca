"""Which captured files are unread, and whether they are worth a worker: what a trigger decides, without the evidence.

Capture keys start with their hour: yyyy/mm/dd/hh/NAME. Files may arrive late, so the keys of the last hours are kept
one by one; hours before `open_from` are closed and their keys forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_dlaws.drift.readiness import lost_rows
from airflow_dlaws.errors import SpecificationError

FORMAT = "dlaws-drift-state/2"

_PREFIX = "dlaws-drift-state/"
_HOUR_FORMAT = "%Y/%m/%d/%H"
_HOUR_LENGTH = len("yyyy/mm/dd/hh")
#: Of all that a datetime can say.
LAST_HOUR = "9999/12/31/23"

#: A file may wait so long for company before a worker is started for it.
PATIENCE = timedelta(minutes=15)

#: The guess of rows errs: a worker woken a little early reads and waits on, one not woken keeps a verdict waiting.
_NEARLY = 0.8


@dataclass(frozen=True)
class CaptureFile:
    """A row of a listing: the key relative to the capture prefix, its size in bytes, when it was written."""

    key: str
    size: int
    written: datetime


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the reading has got."""

    open_from: str = ""
    seen: tuple[str, ...] = ()
    #: Of the files that `rows` stood in.
    bytes: int = 0
    #: Rows read so far, those that were lost included.
    rows: int = 0
    #: Rows that wait for the next look.
    waiting: int = 0


def document_of(text: bytes, where: str) -> dict[str, object]:
    """Return a state document, its evidence still unread.

    :raises SpecificationError: it is none, or one of another version.
    """
    try:
        document = json.loads(text)
        found = document["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise SpecificationError(f"{where} holds no drift state: {error!r}; move it away to start anew") from error
    if found != FORMAT:
        raise SpecificationError(f"{where} is of format {found!r}, this version reads {FORMAT!r}; {_way_out(found)}")
    return dict(document)


def _way_out(found: object) -> str:
    if str(found).startswith(_PREFIX):
        return (
            "evidence of another version was gathered under another rule and cannot be carried over: move the file "
            "away, and the captured files of the open hours are read anew"
        )
    return "use another place"


def parse_progress(text: bytes, where: str) -> Progress:
    """Read of a state document what a trigger needs.

    :raises SpecificationError: it is none, or one of another version.
    """
    document = document_of(text, where)
    window, total = _counts(document, "window"), _counts(document, "total")
    seen, size = document.get("seen"), document.get("bytes")
    return Progress(
        open_from=str(document.get("open_from", "")),
        seen=tuple(map(str, seen)) if isinstance(seen, list) else (),
        bytes=size if isinstance(size, int) else 0,
        rows=total["rows"] + total["lost"],
        waiting=window["rows"],
    )


def _counts(document: dict[str, object], name: str) -> dict[str, int]:
    counts = document.get(name)
    known = counts if isinstance(counts, dict) else {}
    return {"rows": int(known.get("rows", 0)), "lost": lost_rows(known.get("faults", {}))}


def hour_text(time: datetime) -> str:
    """Return the hour of a UTC time as capture keys have it."""
    return f"{time.year:04d}/{time:%m/%d/%H}"


def hour_key(key: str) -> str:
    """Return the text of the hour that a capture key starts with."""
    return key[:_HOUR_LENGTH]


def hour_of(key: str) -> datetime | None:
    """Return the hour a capture key starts with, or None where it starts with none."""
    if key[_HOUR_LENGTH : _HOUR_LENGTH + 1] != "/":
        return None
    try:
        return datetime.strptime(hour_key(key), _HOUR_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def unread(progress: Progress, listing: Iterable[CaptureFile]) -> list[CaptureFile]:
    """Return the files of a listing that are not read yet, each once, in key order."""
    seen = set(progress.seen)
    files = {
        file.key: file
        for file in listing
        if hour_of(file.key) is not None and hour_key(file.key) >= progress.open_from and file.key not in seen
    }
    return [files[key] for key in sorted(files)]


def of_one_hour(files: list[CaptureFile]) -> list[CaptureFile]:
    """Return those of the sorted files that have the hour of the first."""
    return [file for file in files if hour_key(file.key) == hour_key(files[0].key)]


def begins_an_hour(progress: Progress, files: list[CaptureFile]) -> bool:
    """Tell whether the sorted files begin an hour that is newer than all that was read."""
    return bool(files and progress.seen) and hour_key(files[0].key) > hour_key(progress.seen[-1])


def worth_reading(progress: Progress | None, files: list[CaptureFile], *, min_rows: int, now: datetime) -> bool:
    """Tell whether the unread files probably bring the rows for a look, or have waited long enough.

    Rows are guessed from bytes, at the rate of the files read so far; before the first file any is worth reading.
    """
    if not files:
        return False
    if progress is None or not progress.bytes or now - min(file.written for file in files) >= PATIENCE:
        return True
    guess = progress.waiting + progress.rows / progress.bytes * sum(file.size for file in files)
    return guess >= _NEARLY * min_rows
