"""The report of a rollout as data: what was asked, what was seen, and how it ended. Its page: `report_page`."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.result import RolloutResult
from airflow_dlaws.rollout.state import Look, RolloutState
from airflow_dlaws.rollout.timeline import TimelineRow


@dataclass(frozen=True, kw_only=True)
class RolloutRecord:
    """The state file: all that another process needs to go on and to draw the report. Times are epoch seconds."""

    plan: RolloutPlan
    state: RolloutState
    #: Thinned: what changed something, and fewer and fewer of what is long past.
    looks: tuple[Look, ...] = ()
    #: What both fleets did, by the minute or coarser.
    timeline: tuple[TimelineRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RolloutReport:
    """The report as data."""

    result: RolloutResult
    record: RolloutRecord
