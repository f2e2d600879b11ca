"""What a drift sensor knows between two looks, and remembers across tasks, runs and crashes: one JSON document.

The keys that were read and the counts of what stood in them are in the same document, which is replaced as a whole and
only if nobody else has replaced it. So writing it is the commit point: a file counts exactly once, however often a
reader is killed, and however many read at the same time.

Which requests were counted stands in ledgers beside it (hooks/capture.py), which it names. How files are told apart
stands in progress.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from airflow_dlaws.drift.body import LOSING_ROWS, Fault
from airflow_dlaws.drift.counts import TrafficCounts, no_traffic
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.progress import FORMAT, CaptureFile, Progress, document_of, hour_key, hour_of, hour_text
from airflow_dlaws.drift.readiness import lost_rows
from airflow_dlaws.drift.sequence import Evidence
from airflow_dlaws.drift.verdict import DriftOutcome, DriftVerdict
from airflow_dlaws.jobs.wire import from_json

#: SageMaker delivers captured data within minutes; hours cover an outage, and keep the list of keys short.
LATE_HOURS = 6

#: Looks kept for the report's picture of the evidence over time.
MAX_HISTORY = 200


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
    #: By hour, the name of the ledger that says which of its requests were counted.
    ledgers: Mapping[str, str] = field(default_factory=dict)
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

    @property
    def progress(self) -> Progress:
        """How far the reading has got."""
        rows = self.total.rows + lost_rows(self.total.faults)
        return Progress(open_from=self.open_from, seen=self.seen, bytes=self.bytes, rows=rows, waiting=self.window.rows)


def new_state(profile: ReferenceProfile, since: datetime | None) -> DriftState:
    """Return the state before anything was read."""
    nothing = no_traffic(profile)
    open_from = hour_text(since.astimezone(UTC)) if since else ""
    return DriftState(since=since, open_from=open_from, window=nothing, total=nothing)


def parse_state(text: bytes, where: str) -> DriftState:
    """Read a state document.

    :raises SpecificationError: it is none, or one of another version.
    """
    return from_json(DriftState, document_of(text, where))


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


def absorb(
    state: DriftState,
    files: Iterable[CaptureFile],
    counts: TrafficCounts,
    *,
    now: datetime,
    late_hours: int = LATE_HOURS,
    ledgers: Mapping[str, str] | None = None,
) -> DriftState:
    """Return the state after these unread files were counted, with hours closed that are too old to get files.

    :param ledgers: those of all hours after the files; None keeps the ones before.
    """
    files = list(files)
    keys = {*state.seen, *(file.key for file in files)}
    # A key of the future (a wrong clock) must not close the hours of now.
    newest = min(now, max((hour for hour in map(hour_of, keys) if hour), default=now))
    open_from = max(state.open_from, hour_text(newest - timedelta(hours=late_hours)))
    return dataclasses.replace(
        state,
        open_from=open_from,
        seen=tuple(sorted(key for key in keys if hour_key(key) >= open_from)),
        ledgers={hour: name for hour, name in (ledgers or state.ledgers).items() if hour >= open_from},
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


def with_remarks(verdict: DriftVerdict, counts: TrafficCounts) -> DriftVerdict:
    """Return the verdict with what to know of its traffic in its reason: what could not be used, what was left out."""
    lost, sampled_out = lost_rows(counts.faults), counts.faults.get(Fault.SAMPLED_OUT, 0)
    remarks = []
    if lost and verdict.outcome is not DriftOutcome.INCONCLUSIVE:
        kinds = ", ".join(f"{kind} {count}" for kind, count in counts.faults.items() if kind in LOSING_ROWS and count)
        remarks.append(f"{lost} captured rows or requests could not be used ({kinds}).")
    if sampled_out:
        share = counts.requests / (counts.requests + sampled_out)
        remarks.append(f"Counted is a sample of {share:.0%} of the requests, as asked for.")
    return dataclasses.replace(verdict, reason=" ".join([verdict.reason, *remarks])) if remarks else verdict
