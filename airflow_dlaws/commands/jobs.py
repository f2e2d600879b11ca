"""`dlaws jobs list` and `dlaws jobs stop`: what this package pays for now, and ending what no task owns.

Exit status: 0 done; 1 AWS or Airflow could not be asked, and nothing was stopped on a guess; 2 wrong usage; 3 done, but
some jobs could not be judged or stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_dlaws.airflow_rest import AirflowDoor, AirflowTasks, MwaaDoor, RestDoor
from airflow_dlaws.commands.clients import add_aws, clients_of
from airflow_dlaws.commands.jobs_table import job_row, table
from airflow_dlaws.commands.orphans import Judge, JudgedJob, judge_jobs, stop_job, stop_orphans
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.ownership import Ownership, Verdict
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.launchers.found_job import FoundJob
from airflow_dlaws.launchers.found_jobs import RUNNING, JobFinder

INCOMPLETE = 3
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PHASES = (JobPhase.PENDING, JobPhase.RUNNING, JobPhase.STOPPING, JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.STOPPED)


def add_arguments(commands: Any) -> None:
    """Add the actions `list` and `stop` to the group `dlaws jobs`."""
    listing = commands.add_parser("list", help="the running jobs of all tasks", epilog=__doc__)
    listing.add_argument("--state", choices=[*map(str, _PHASES), "all"], help="in this state; default: not ended")
    listing.add_argument("--since", type=duration, default=timedelta(days=7), help="ended jobs: how far back (7d)")
    listing.add_argument("--orphans", action="store_true", help="only those that no live task owns: asks Airflow")
    listing.set_defaults(run=run_list)
    stop = commands.add_parser("stop", help="stop jobs by name, or all that no live task owns", epilog=__doc__)
    which = stop.add_mutually_exclusive_group(required=True)
    which.add_argument("names", nargs="*", default=[], metavar="NAME", help="of a job in `dlaws jobs list`")
    which.add_argument("--orphans", action="store_true", help="all that no live task owns: asks Airflow")
    stop.add_argument("--yes", action="store_true", help="do not ask")
    stop.set_defaults(run=run_stop)
    for action in (listing, stop):
        action.add_argument("--dag", help="only of this DAG")
        action.add_argument("--run", dest="run_id", help="only of this run")
        action.add_argument("--task", help="only of this task")
        add_aws(action)
        action.add_argument(
            "--cluster",
            action="append",
            default=[],
            metavar="ADDRESS/WORK_DIR",
            help="jobs on this Slurm cluster too: ssh://CONN_ID/fsx/dlaws, ssm://USER@INSTANCE/fsx/dlaws",
        )
        action.add_argument("--json", action="store_true", help="print JSON")
        _add_airflow(action)


def _add_airflow(parser: argparse.ArgumentParser) -> None:
    environ = os.environ.get
    group = parser.add_argument_group(
        "the Airflow to ask, for --orphans", "Secrets come from DLAWS_AIRFLOW_TOKEN or DLAWS_AIRFLOW_PASSWORD only."
    )
    group.add_argument("--airflow-url", default=environ("DLAWS_AIRFLOW_URL"), help="its API server (DLAWS_AIRFLOW_URL)")
    group.add_argument("--airflow-user", default=environ("DLAWS_AIRFLOW_USER"), help="where there is no token")
    group.add_argument("--mwaa", metavar="NAME", default=environ("DLAWS_MWAA"), help="an MWAA environment (DLAWS_MWAA)")
    group.add_argument(
        "--deployment",
        default=environ("DLAWS_DEPLOYMENT"),
        help="its [api] base_url, which its jobs carry as a tag; default: --airflow-url, unless that is localhost, as "
        "any Airflow's may be. Other jobs are not judged",
    )
    group.add_argument("--older-than", type=duration, default=timedelta(minutes=2), help="judge no younger jobs (2m)")


def duration(text: str) -> timedelta:
    """Read 90s, 10m, 2h, 7d."""
    found = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 90s, 10m, 2h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def run_list(chosen: argparse.Namespace) -> int:
    """Print the jobs asked for."""
    client, now = clients_of(chosen), datetime.now(UTC)
    finder = _finder(chosen, client)
    if chosen.orphans:
        if chosen.state not in (None, *map(str, RUNNING)):
            raise SpecificationError(f"--state {chosen.state} with --orphans: a job that has ended is nobody's orphan")
        return _show_judged(chosen, judge_jobs(finder, _judge(chosen, client), _wanted(chosen, finder), now), now)
    jobs = _wanted(chosen, finder)
    _print(chosen, {"jobs": [job_row(job, now) for job in jobs]}, table([job_row(job, now) for job in jobs]))
    return 0


def run_stop(chosen: argparse.Namespace) -> int:
    """Stop the jobs asked for, after a question."""
    client, now = clients_of(chosen), datetime.now(UTC)
    finder = _finder(chosen, client)
    judge = _judge(chosen, client) if chosen.orphans else None
    if judge:
        rows = judge_jobs(finder, judge, _wanted(chosen, finder), now)
        targets = [row for row in rows if row.ownership.verdict is Verdict.ORPHAN]
    else:
        rows = targets = _named(chosen, finder)
    if not targets or not _confirmed(chosen, targets, now):
        return _show_judged(chosen, rows, now)
    if judge:
        done = stop_orphans(finder, judge, targets, now)
    else:
        done = [JudgedJob(job=row.job, ownership=row.ownership, done=stop_job(finder, row.job)) for row in targets]
    others = [row for row in rows if row not in targets]
    return _show_judged(chosen, [*done, *others], now)


def _finder(chosen: argparse.Namespace, client: Callable[[str], Any]) -> JobFinder:
    if not chosen.cluster:
        return JobFinder(client)
    from airflow_dlaws.hooks.aws import AwsClients, AwsConnection

    connection = AwsConnection(aws_conn_id=chosen.conn, region_name=chosen.region)
    return JobFinder(client, clusters=chosen.cluster, shell=AwsClients(connection).shell)


def _wanted(chosen: argparse.Namespace, finder: JobFinder) -> list[FoundJob]:
    state = getattr(chosen, "state", None)
    phases = RUNNING if state is None else _PHASES if state == "all" else [JobPhase(state)]
    ended = bool(set(phases) - RUNNING)
    jobs = finder.find(phases, since=datetime.now(UTC) - chosen.since if ended else None)
    if finder.batch_refused:
        print(f"jobs that wait in queues of AWS Batch are left out: {finder.batch_refused}", file=sys.stderr)
    if finder.endpoints_refused:
        print(f"throw-away endpoints of rollouts are left out: {finder.endpoints_refused}", file=sys.stderr)
    asked = {"dlaws:dag": chosen.dag, "dlaws:run": chosen.run_id}
    return [
        job
        for job in jobs
        if all(value is None or job.tags.get(tag) == value for tag, value in asked.items())
        and (chosen.task is None or job.tags.get("dlaws:task", "").partition(":")[0] == chosen.task)
    ]


def _named(chosen: argparse.Namespace, finder: JobFinder) -> list[JudgedJob]:
    """Return the running jobs of these names.

    :raises SpecificationError: one of them is no running job of this package; nothing is stopped then.
    """
    running = {job.reference.name: job for job in _wanted(chosen, finder)}
    if unknown := [name for name in chosen.names if name not in running]:
        raise SpecificationError(f"no running jobs of this package: {', '.join(unknown)}; see `dlaws jobs list`")
    asked = Ownership(verdict=Verdict.UNKNOWN, reason="named")
    return [JudgedJob(job=running[name], ownership=asked) for name in chosen.names]


def _judge(chosen: argparse.Namespace, client: Callable[[str], Any]) -> Judge:
    """Return the judge that asks the chosen Airflow, once that is seen to be healthy."""
    deployment = chosen.deployment if chosen.deployment is not None else chosen.airflow_url
    if deployment is None:
        raise SpecificationError("--orphans with --mwaa needs --deployment: the tag dlaws:deployment of its jobs")
    tasks = AirflowTasks(_door(chosen, client))
    tasks.check()
    vouched = chosen.deployment is not None
    return Judge(tasks, deployment=deployment, grace=chosen.older_than, vouched=vouched)


def _door(chosen: argparse.Namespace, client: Callable[[str], Any]) -> AirflowDoor:
    if chosen.mwaa:
        return MwaaDoor(client("mwaa"), chosen.mwaa)
    if not chosen.airflow_url:
        raise SpecificationError("--orphans must ask an Airflow: give --airflow-url or --mwaa")
    secrets = {name: os.environ.get(f"DLAWS_AIRFLOW_{name.upper()}", "") for name in ("token", "password")}
    return RestDoor(chosen.airflow_url, user=chosen.airflow_user or "", **secrets)


def _confirmed(chosen: argparse.Namespace, targets: list[JudgedJob], now: datetime) -> bool:
    """Ask the person at the terminal; without one, and without --yes, refuse."""
    if chosen.yes:
        return True
    if chosen.json or not sys.stdin.isatty():
        raise SpecificationError(f"{len(targets)} jobs would be stopped, and nobody can be asked: give --yes")
    print(table([job_row(row.job, now, row.ownership) for row in targets]))
    return input(f"Stop these {len(targets)} jobs? [y/N] ").strip().lower() == "y"


def _show_judged(chosen: argparse.Namespace, rows: list[JudgedJob], now: datetime) -> int:
    """Print jobs and verdicts: of `list --orphans` the orphans, and whatever could not be judged."""
    named = bool(getattr(chosen, "names", None))
    unclear = [row for row in rows if row.ownership.verdict is Verdict.UNKNOWN and not named]
    shown = [row for row in rows if named or row.done or row.ownership.verdict in (Verdict.ORPHAN, Verdict.UNKNOWN)]
    counts = {str(verdict): sum(row.ownership.verdict is verdict for row in rows) for verdict in Verdict}
    documents = [job_row(row.job, now, None if named else row.ownership, row.done) for row in shown]
    document: Mapping[str, Any] = {"jobs": documents, **({} if named else {"verdicts": counts})}
    tally = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no jobs"
    _print(chosen, document, table(documents) + ("" if named else f"\n{tally}"))
    failed = any(row.done.startswith("error") for row in rows)
    return INCOMPLETE if unclear or failed else 0


def _print(chosen: argparse.Namespace, document: Mapping[str, Any], text: str) -> None:
    print(json.dumps(document) if chosen.json else text, flush=True)
