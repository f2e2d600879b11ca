"""demo-report.html: the plots of what the demo measured. Reads the same document that demo-report.json holds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dlaws.page import Mark, Series, bar_chart, line_chart, page, paragraph, section, table

#: Requests are counted in slots of so many seconds for the error-rate plot.
_SLOT_S = 5.0


def as_html(document: Mapping[str, Any]) -> str:
    """Return the page; acts that were not reached are left out."""
    parts = [
        *([_drift(document["drift"])] if "drift" in document else []),
        *([_comparison(document["promotion"])] if "promotion" in document else []),
        *([_rollout("The canary that was promoted", document["promotion"])] if "promotion" in document else []),
        *([_rollout("The canary that was refused", document["refusal"])] if "refusal" in document else []),
        *([_jobs(document)] if "training_jobs" in document else []),
        section("Timeline", table(("s", "what"), [(row["seconds"], row["what"]) for row in document["timeline"]])),
    ]
    lead = (
        f"Train, drift, retrain, compare, promote, refuse: {document['loop_seconds']:.0f} s on this machine. "
        "Everything below was read back from Airflow, SageMaker and S3 of the local AWS."
    )
    if not document["passed"]:
        lead = f"The demo did not get through: {document['failure']}"
    return page("The loop, on the real flights of 2013", lead, *parts, tone="good" if document["passed"] else "bad")


def _drift(facts: Mapping[str, Any]) -> str:
    months = [row["month"] for row in facts["replayed"]]
    looks = [look for look in facts["looks"] if look["effects"]]
    names = sorted(looks[-1]["effects"], key=lambda name: -looks[-1]["effects"][name])[:5] if looks else []
    bars = [(name, [look["effects"].get(name, 0.0) for look in looks]) for name in names]
    header = ("feature", "what", "direction", "effect (PSI)", "adjusted p")
    rows = [
        (row["name"], row["aspect"], row["direction"], row["effect"], row["adjusted_p"]) for row in facts["features"]
    ]
    return section(
        "Drift by month",
        paragraph(facts["sentence"]),
        bar_chart(months[: len(looks)], bars, y_label="effect (PSI)"),
        paragraph(f"Captured requests from {facts['window_from']} to {facts['window_to']}, {facts['rows']} flights."),
        table(header, rows),
    )


def _comparison(facts: Mapping[str, Any]) -> str:
    result = facts["results"]["evaluate"]
    challenger, champion = result["challenger"], result["champion"]
    names = [name for name in ("log_loss", "brier") if champion and challenger.get(name) is not None]
    bars = [
        (who, [model[name] for name in names]) for who, model in (("champion", champion), ("challenger", challenger))
    ]
    keys = [name for name in challenger if champion and isinstance(challenger[name], float)]
    return section(
        "Champion against challenger, on the same flights",
        paragraph(f"{result['verdict']}: {result['reason']}"),
        bar_chart(names, bars, y_label="lower is better"),
        table(("", "champion", "challenger"), [(name, champion[name], challenger[name]) for name in keys]),
        paragraph(f"{result['rows']} rows scored by both."),
    )


def _rollout(heading: str, facts: Mapping[str, Any]) -> str:
    record = facts["rollout"]
    began = record["state"]["started_at"]
    looks = record["looks"]
    share = Series("green's share of the traffic", [(look["at"] - began, look["green_share"]) for look in looks])
    failed = Series("requests that failed, as the client saw it", _failure_rate(facts["traffic"]["answers"], began))
    marks = [
        Mark(after["at"] - began, after["step"].replace("_", " "))
        for before, after in itertools.pairwise(looks)
        if before["step"] != after["step"]
    ]
    rows = [
        ("configuration before", facts["before"]["endpoint_config"]),
        ("configuration asked for", record["state"]["requested_config"]),
        ("in service afterwards", f"{facts['live']['endpoint_config']} ({facts['live']['status']})"),
        ("requests during the rollout", facts["traffic"]["requests"]),
        ("of them failed", facts["traffic"]["failed"]),
        ("state of the task", facts["tasks"]["roll_out"]),
    ]
    return section(
        heading,
        paragraph(record["state"]["reason"]),
        line_chart([share, failed], x_label="seconds since the start", y_label="share", marks=marks, steps=True),
        table(("read back", ""), rows),
    )


def _failure_rate(answers: Sequence[Sequence[Any]], began: float) -> list[tuple[float, float | None]]:
    slots: dict[int, list[bool]] = {}
    for at, failed in answers:
        slots.setdefault(int((at - began) // _SLOT_S), []).append(failed)
    return [(slot * _SLOT_S, sum(rows) / len(rows)) for slot, rows in sorted(slots.items())]


def _jobs(document: Mapping[str, Any]) -> str:
    header = ("DAG", "task", "run", "job", "hosts", "status", "billable s")
    jobs = document["training_jobs"]
    rows = [
        (job["dag"], job["task"], job["run"], job["job"], job["hosts"], job["status"], job["billable_seconds"])
        for job in jobs
    ]
    most = max((row["jobs"] for row in document["jobs_per_task"]), default=0)
    return section("Jobs", paragraph(f"{len(jobs)} jobs; at most {most} for one task of one run."), table(header, rows))
