"""What a drift sensor knows between two looks, and remembers across tasks, runs and crashes: one JSON document.

The keys that were read and the counts of what stood in them are in the same document, which is replaced as a whole and
only if nobody else has replaced it. So writing it is the commit point: a file counts exactly once, however often a
reader is killed, and however many read at the same time.

Capture keys start with their hour: yyyy/mm/dd/hh/NAME. Files may arrive late, so the keys of the last hours are kept
one by one; hours before `open_from` are closed and their keys forgotten.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from airflow_dlaws.drift.body import Fault
from airflow_dlaws.drift.counts import TrafficCounts, no_traffic
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.readiness import lost_rows
from airflow_dlaws.drift.sequence import Evidence
from airflow_dlaws.drift.verdict import DriftOutcome, DriftVerdict
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json

FORMAT = "dlaws-drift-state/2"

_PREFIX = "dlaws-drift-state/"

#: SageMaker delivers captured data within minutes; hours cover an outage, and keep the list of keys short.
LATE_HOURS = 6

#: Looks kept for the report's picture of the evidence over time.
MAX_HISTORY = 200

_HOUR_FORMAT = "%Y/%m/%d/%H"
_HOUR_LENGTH = len("yyyy/mm/dd/hh")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the traffic."""

    number: int
    at: datetime
    outcome: DriftOutcome
    rows: int
    first: datetime | None = None
    last: datetime | None = None
    #: The largest effect of each watched feature.
    effects: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    #: How many windows the verdict is about, and what the look spent of alpha.
    windows: int = 1
    alpha_spent: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Drift that was found: who found it, when, and where the report is."""

    #: Which task instance; a retry of it must end the same way.
    owner: str
    at: datetime
    #: The summary that the task returns, as JSON.
    summary: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class DriftState:
    """The document. One for each endpoint variant, model in service and reference: their evidence is never mixed."""

    format: str = FORMAT
    #: Requests answered before belong to another model.
    since: datetime | None = None
    #: "yyyy/mm/dd/hh": the first hour that may still get files.
    open_from: str = ""
    #: Keys read in the hours that are open, relative to the capture prefix.
    seen: tuple[str, ...] = ()
    files: int = 0
    #: Of files with this model's requests alone: what rows are guessed from.
    bytes: int = 0
    #: What earlier looks leave for the next: their number, what they spent of alpha, blocks of their counts.
    evidence: Evidence = field(default_factory=Evidence)
    #: Traffic after the last look: the next look's window.
    window: TrafficCounts
    #: All traffic, for the record.
    total: TrafficCounts
    history: tuple[Look, ...] = ()
    #: Why the latest assessment gave no verdict; empty once one does.
    doubt: str = ""
    alarm: Alarm | None = None

    @property
    def looks(self) -> int:
        """How many looks were taken; inconclusive ones that were not possible are not counted."""
        return self.evidence.looks


@dataclass(frozen=True)
class CaptureFile:
    """A row of a listing: the key relative to the capture prefix, its size in bytes, when it was written."""

    key: str
    size: int
    written: datetime


def new_state(profile: ReferenceProfile, since: datetime | None) -> DriftState:
    """Return the state before anything was read."""
    nothing = no_traffic(profile)
    open_from = since.astimezone(UTC).strftime(_HOUR_FORMAT) if since else ""
    return DriftState(since=since, open_from=open_from, window=nothing, total=nothing)


def parse_state(text: bytes, where: str) -> DriftState:
    """Read a state document.

    :raises SpecificationError: it is none, or one of another version.
    """
    try:
        document = json.loads(text)
        found = document["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise SpecificationError(f"{where} holds no drift state: {error!r}; move it away to start anew") from error
    if found != FORMAT:
        raise SpecificationError(f"{where} is of format {found!r}, this version reads {FORMAT!r}; {_way_out(found)}")
    return from_json(DriftState, document)


def _way_out(found: object) -> str:
    if str(found).startswith(_PREFIX):
        return (
            "evidence of another version was gathered under another rule and cannot be carried over: move the file "
            "away, and the captured files of the open hours are read anew"
        )
    return "use another place"


def told_so_far(state: DriftState) -> str:
    """Return what was seen, in a sentence."""
    seen = f"{state.total.rows} rows in {state.files} files, {state.looks} looks"
    waiting = f"; {state.window.rows} rows wait for the next look" if state.window.rows else ""
    effects = [(effect, name, look.number) for look in state.history for name, effect in look.effects.items()]
    if not effects:
        return f"{seen}{waiting}"
    effect, name, number = max(effects)
    return f"{seen}; the largest effect was {effect:.3f}, of {name} at look {number}{waiting}"


def without_new_drift(state: DriftState) -> str:
    """Return how things stand where a sensor ends with nothing new to tell."""
    if state.alarm is None:
        return f"no drift: {told_so_far(state)}"
    told, last = f"drift was told at {state.alarm.at:%Y-%m-%d %H:%M}", state.history[-1]
    if last.at <= state.alarm.at:
        return f"{told}, and no look was taken since: {told_so_far(state)}"
    still = "has drifted still, within the cooldown" if last.outcome is DriftOutcome.DRIFT else "shows no drift"
    return f"{told}, and the latest look {still}: {told_so_far(state)}"


def hour_of(key: str) -> datetime | None:
    """Return the hour a capture key starts with, or None where it starts with none."""
    if key[_HOUR_LENGTH : _HOUR_LENGTH + 1] != "/":
        return None
    try:
        return datetime.strptime(key[:_HOUR_LENGTH], _HOUR_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def unread(state: DriftState, listing: Iterable[CaptureFile]) -> list[CaptureFile]:
    """Return the files of a listing that are not read yet, each once, in key order."""
    seen = set(state.seen)
    files = {
        file.key: file
        for file in listing
        if hour_of(file.key) is not None and file.key[:_HOUR_LENGTH] >= state.open_from and file.key not in seen
    }
    return [files[key] for key in sorted(files)]


def absorb(
    state: DriftState,
    files: Iterable[CaptureFile],
    counts: TrafficCounts,
    *,
    now: datetime,
    late_hours: int = LATE_HOURS,
) -> DriftState:
    """Return the state after these unread files were counted, with hours closed that are too old to get files."""
    files = list(files)
    keys = {*state.seen, *(file.key for file in files)}
    # A key of the future (a wrong clock) must not close the hours of now.
    newest = min(now, max((hour for hour in map(hour_of, keys) if hour), default=now))
    open_from = max(state.open_from, (newest - timedelta(hours=late_hours)).strftime(_HOUR_FORMAT))
    return dataclasses.replace(
        state,
        open_from=open_from,
        seen=tuple(sorted(key for key in keys if key[:_HOUR_LENGTH] >= open_from)),
        files=state.files + len(files),
        # Files shared with the model before would make rows look rare, and the next files not worth reading.
        bytes=state.bytes + (0 if counts.faults.get(Fault.BEFORE_MODEL) else sum(file.size for file in files)),
        window=state.window + counts,
        total=state.total + counts,
    )


def after_look(
    state: DriftState,
    verdict: DriftVerdict,
    evidence: Evidence,
    *,
    now: datetime,
    nothing: TrafficCounts,
    alarm: Alarm | None = None,
) -> DriftState:
    """Return the state after a verdict on `state.window`: the window starts anew, whatever the verdict.

    :param evidence: what `sequence.advance` gave with the verdict.
    :param nothing: counts of no traffic.
    :param alarm: what is now to be told; None keeps the one before.
    """
    look = Look(
        number=verdict.look,
        at=now,
        outcome=verdict.outcome,
        rows=state.window.rows,
        first=state.window.first,
        last=state.window.last,
        effects=verdict.effects,
        reason=verdict.reason,
        windows=verdict.windows,
        alpha_spent=verdict.alpha_spent,
    )
    return dataclasses.replace(
        state,
        evidence=evidence,
        window=nothing,
        history=(*state.history, look)[-MAX_HISTORY:],
        # A look that was taken and has seen too little is no fault; one that could not be taken is.
        doubt=verdict.reason if evidence.looks == state.looks else "",
        alarm=alarm or state.alarm,
    )


def cooling_down(state: DriftState, now: datetime, cooldown: timedelta) -> bool:
    """Tell whether drift was told so recently that it must not be told again."""
    return state.alarm is not None and now < state.alarm.at + cooldown


#: A file may wait so long for company before a worker is started for it.
PATIENCE = timedelta(minutes=15)

#: The guess of rows errs: a worker woken a little early reads and waits on, one not woken keeps a verdict waiting.
_NEARLY = 0.8


def worth_reading(state: DriftState | None, files: list[CaptureFile], *, min_rows: int, now: datetime) -> bool:
    """Tell whether the unread files probably bring the rows for a look, or have waited long enough.

    Rows are guessed from bytes, at the rate of the files read so far; before the first file any is worth reading.
    """
    if not files:
        return False
    if state is None or not state.bytes or now - min(file.written for file in files) >= PATIENCE:
        return True
    rows_per_byte = (state.total.rows + lost_rows(state.total.faults)) / state.bytes
    guess = state.window.rows + rows_per_byte * sum(file.size for file in files)
    return guess >= _NEARLY * min_rows
