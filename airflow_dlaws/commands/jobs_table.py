"""Jobs as rows: for JSON, and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow_dlaws.jobs.ownership import Ownership
from airflow_dlaws.launchers.found_job import FoundJob

#: Columns of the table and the members of a row that they show.
_COLUMNS = {
    "JOB": "name",
    "KIND": "kind",
    "TASK": "task",
    "RUN": "run_id",
    "STATE": "state",
    "AGE": "age",
    "MACHINES": "machines",
    "BILLABLE": "billable",
    "OWNER": "owner",
    "DONE": "done",
}


def job_row(job: FoundJob, now: datetime, ownership: Ownership | None = None, done: str = "") -> dict[str, Any]:
    """Return a job as a JSON document; `billable_seconds` are seconds times machines."""
    tags = job.tags
    age = round((now - job.status.created_at).total_seconds()) if job.status.created_at else None
    row = {
        "name": job.reference.name,
        "arn": job.reference.arn,
        "region": job.reference.region,
        "kind": job.kind,
        "dag_id": tags.get("dlaws:dag", ""),
        "run_id": tags.get("dlaws:run", ""),
        "task_id": tags.get("dlaws:task", ""),
        "map_index": int(tags.get("dlaws:map-index", "-1")),
        "clear_marker": job.claim.identity.clear_marker if job.claim else None,
        "attempt": int(tags.get("dlaws:attempt", "1")),
        "deployment": tags.get("dlaws:deployment", ""),
        "state": str(job.status.phase),
        "detail": job.status.detail,
        "age_seconds": age,
        "machines": job.machines,
        "billable_seconds": job.billable_seconds(now),
        "tuning_job_arn": job.tuner,
    }
    if ownership is not None:
        row |= {"verdict": str(ownership.verdict), "reason": ownership.reason}
    return {**row, "done": done} if done else row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table; columns that no row fills are left out."""
    if not rows:
        return "no jobs"
    texts = [_texts(row) for row in rows]
    columns = [head for head, member in _COLUMNS.items() if any(text[member] for text in texts)]
    lines = [columns, *([text[_COLUMNS[head]] for head in columns] for text in texts)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    index = f"[{row['map_index']}]" if row["map_index"] >= 0 else ""
    return {
        **{member: str(row.get(member, "")) for member in ("name", "kind", "run_id", "machines", "done")},
        "task": f"{row['dag_id']}.{row['task_id']}{index}",
        "state": f"{row['state']} ({row['detail']})" if row["detail"] else row["state"],
        "age": "" if row["age_seconds"] is None else str(timedelta(seconds=row["age_seconds"])),
        "billable": str(timedelta(seconds=row["billable_seconds"])),
        "owner": f"{row['verdict']}: {row['reason']}" if "verdict" in row else "",
    }
