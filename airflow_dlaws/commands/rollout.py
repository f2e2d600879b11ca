"""`dlaws rollout`: what rollouts on an endpoint are doing or have done, and a person's word in them.

`abort` takes the endpoint back also where Airflow is gone: it puts the rollout's own alarm on, and AWS rolls back. Of a
rollout that is over it undoes what is left: a shadow that AWS has kept, autoscaling that is off, throw-away endpoints.
`promote` lets a rollout end well that has too little traffic for a verdict; proven harm goes back all the same.

Exit status: 0 done; 1 AWS could not be asked, or there is no such rollout; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.commands.clients import add_aws, clients_of
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.rollout_leftovers import has_leftovers, settle
from airflow_dlaws.launchers.rollout_shadow import end_shadow, has_shadow
from airflow_dlaws.launchers.rollout_store import RolloutFolder
from airflow_dlaws.launchers.rollout_watch import RolloutAlarms
from airflow_dlaws.rollout.report import RolloutRecord
from airflow_dlaws.rollout.result import result_of
from airflow_dlaws.rollout.state import RolloutState, Wish, WishKind, is_final
from airflow_dlaws.storage import ObjectStore


def add_arguments(commands: Any) -> None:
    """Add the actions to the group `dlaws rollout`."""
    for name, text, run in (
        ("status", "the rollout under way, or the last one", run_status),
        ("history", "all rollouts on an endpoint", run_history),
        ("abort", "go back to the model that served before", run_abort),
        ("promote", "end well without the verdict that traffic does not allow", run_promote),
    ):
        action = commands.add_parser(name, help=text, epilog=__doc__)
        action.add_argument("endpoint", help="its name")
        action.add_argument(
            "--state",
            metavar="S3_URI",
            default=os.environ.get("DLAWS_STATE_S3_URI"),
            help="state_s3_uri of the rollout's task (DLAWS_STATE_S3_URI)",
        )
        if run in (run_abort, run_promote):
            action.add_argument("--why", default="", help="for the record and the task's message")
        action.add_argument("--json", action="store_true", help="print JSON")
        add_aws(action)
        action.set_defaults(run=run)


def run_status(chosen: argparse.Namespace) -> int:
    """Print where the rollout is, what it has seen, and what the endpoint serves now."""
    client = clients_of(chosen)
    folder = _folder(chosen, client)
    record = _current(folder) or _last(folder, chosen.endpoint)
    live = EndpointPort(client("sagemaker")).describe(chosen.endpoint)
    document = {**_row(folder, record), "endpoint": to_json(live) if live else None}
    lines = [f"{key:>20}  {value}" for key, value in document.items() if key != "endpoint"]
    now = f"{live.status.value} on {live.config_name}" if live else "there is no such endpoint"
    _print(chosen, document, "\n".join([*lines, f"{'endpoint now':>20}  {now}"]))
    return 0


def run_history(chosen: argparse.Namespace) -> int:
    """Print all rollouts, the newest first."""
    folder = _folder(chosen, clients_of(chosen))
    rows = [_row(folder, record) for record in reversed(folder.records())]
    lines = [f"{row['started']}  {row['outcome']:<13} {row['configuration']}  {row['reason']}" for row in rows]
    _print(chosen, {"rollouts": rows}, "\n".join(lines) or f"no rollouts on {chosen.endpoint} under {chosen.state}")
    return 0


def run_abort(chosen: argparse.Namespace) -> int:
    """Leave the wish for the task, and put the alarm on for AWS; undo what a rollout that is over has left."""
    client = clients_of(chosen)
    folder = _folder(chosen, client)
    record = _current(folder) or _with_shadow_left(client, folder)
    record, wish = _ask(chosen, folder, record, WishKind.ABORT)
    state = record.state
    back = "" if is_final(state.step) else _gone_back(client, state, wish)
    told = [_without_shadow(client, state) or back]
    if has_leftovers(state):
        told.append(_settled(client, folder, record))
    done = "; ".join(filter(None, told))
    _print(chosen, {"asked": to_json(wish), "done": done}, f"{wish.sentence}; {done}")
    return 0


def _gone_back(client: Callable[[str], Any], state: RolloutState, wish: Wish) -> str:
    """Put the alarm of a rollout that is under way on, so that AWS goes back also where the task is gone."""
    alarms = RolloutAlarms(
        client("cloudwatch"),
        endpoint_name=state.endpoint_name,
        config_name=state.requested_config,
        variant_name=state.variant_name,
    )
    if state.updated_at is None or not any(view.name == alarms.verdict_alarm for view in alarms.views()):
        return "its task will not begin it"
    alarms.trip(wish.sentence, wish.at)
    return f"alarm {alarms.verdict_alarm} is on, AWS goes back to {state.previous_config}"


def _without_shadow(client: Callable[[str], Any], state: RolloutState) -> str:
    """Take away the shadow that the endpoint is on; return what was done, empty where there is none to take."""
    if end_shadow(client("sagemaker"), state):
        return f"the shadow {state.shadow_config} is taken away, AWS goes back to {state.previous_config}"
    if is_final(state.step) and has_shadow(client("sagemaker"), state):
        return (
            f"the shadow {state.shadow_config} cannot be taken away while the endpoint is moving or broken: abort "
            f"again once it is InService (`dlaws rollout status {state.endpoint_name}`)"
        )
    return ""


def _settled(client: Callable[[str], Any], folder: RolloutFolder, record: RolloutRecord) -> str:
    """Undo what is left; its task may be gone. One that is alive finds it undone."""
    state, problems = settle(client, record.state)
    if is_final(state.step):  # else a task that is alive writes this file
        folder.save(replace(record, state=state))
    if problems:
        return "; ".join(str(each) for each in problems)
    return "autoscaling is as it was, and no throw-away endpoint is left"


def run_promote(chosen: argparse.Namespace) -> int:
    """Leave the wish for the task."""
    folder = _folder(chosen, clients_of(chosen))
    record = _current(folder)
    _, wish = _ask(chosen, folder, None if record and is_final(record.state.step) else record, WishKind.PROMOTE)
    _print(chosen, {"asked": to_json(wish)}, f"{wish.sentence}; its task sees it at the next look")
    return 0


def _ask(
    chosen: argparse.Namespace, folder: RolloutFolder, record: RolloutRecord | None, kind: WishKind
) -> tuple[RolloutRecord, Wish]:
    if record is None:
        raise SpecificationError(
            f"no rollout is under way on {chosen.endpoint} under {chosen.state}; see `dlaws rollout history`"
        )
    wish = Wish(kind=kind, by=getpass.getuser(), at=time.time(), why=chosen.why)
    folder.ask(record.state.requested_config, wish)
    return record, wish


def _folder(chosen: argparse.Namespace, client: Callable[[str], Any]) -> RolloutFolder:
    if not chosen.state:
        raise SpecificationError("where rollouts are remembered is not known: give --state or set DLAWS_STATE_S3_URI")
    return RolloutFolder(ObjectStore(client("s3")), chosen.state, chosen.endpoint)


def _current(folder: RolloutFolder) -> RolloutRecord | None:
    """Return the rollout that holds the endpoint, if it is not over, or has left something."""
    holder = folder.holder()
    record = folder.record(holder.config_name) if holder else None
    if record is None or not is_final(record.state.step):
        return record
    return record if has_leftovers(record.state) else None


def _with_shadow_left(client: Callable[[str], Any], folder: RolloutFolder) -> RolloutRecord | None:
    """Return the rollout that holds the endpoint though it is over, if AWS has kept its shadow."""
    holder = folder.holder()
    record = folder.record(holder.config_name) if holder else None
    return record if record and has_shadow(client("sagemaker"), record.state) else None


def _last(folder: RolloutFolder, endpoint: str) -> RolloutRecord:
    records: Sequence[RolloutRecord] = folder.records()
    if not records:
        raise SpecificationError(f"no rollout is remembered for {endpoint} under {folder.lock_uri.parent}")
    return records[-1]


def _row(folder: RolloutFolder, record: RolloutRecord) -> dict[str, Any]:
    state = record.state
    result = result_of(state, report_uri=str(folder.uri(state.requested_config, ".html")))
    latest = record.looks[-1].reason if record.looks else ""
    return {
        "outcome": result.outcome.value,
        "step": state.step.value,
        "started": datetime.fromtimestamp(state.started_at, UTC).isoformat(timespec="seconds"),
        "configuration": state.requested_config,
        "previous": state.previous_config,
        "model_package": state.model_package_arn,
        "reason": state.reason or latest,
        "forecast": state.forecast,
        "autoscaling": state.scaling.sentence if state.scaling else "",
        "rehearsal": state.rehearsal.reason if state.rehearsal else "",
        "throw-away endpoints": ", ".join(state.rehearsal.endpoints) if state.rehearsal else "",
        "asked": state.wish.sentence if state.wish else "",
        "evidence": state.evidence.reason,
        "shadow": state.shadow.reason if state.shadow else "",
        "report": result.report_uri,
    }


def _print(chosen: argparse.Namespace, document: Mapping[str, Any], text: str) -> None:
    print(json.dumps(document) if chosen.json else text, flush=True)
