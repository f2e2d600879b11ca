"""Does a sweep find as good a model as random search, for less? In a real Airflow, with its triggerer killed.

    make bench-sweep [SEED=0] [TRIALS=16]

Runs `dags/sweep_hyperparameters.py` twice against the local AWS, on the 5,000 images of MNIST: as it is (Optuna, and
successive halving), killing the triggerer once a third of the trials have ended; and as the peer, random search with
every trial run to its end, with the same seed. What it prints is read from the service, the journals and the tasks.
Exits 1 where the sweep loses or repeats a trial, does worse, or costs 60 % of the peer's billable seconds or more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

from airflow_dlaws.jobs.wire import from_json  # noqa: E402
from airflow_dlaws.local.airflow_api import wait_until  # noqa: E402
from airflow_dlaws.local.airflow_stack import LocalAirflow  # noqa: E402
from airflow_dlaws.local.demo import mnist  # noqa: E402
from airflow_dlaws.local.process import LocalAws  # noqa: E402
from airflow_dlaws.sweeps.journal import SweepJournal, TrialState  # noqa: E402
from airflow_dlaws.sweeps.leaderboard import SweepResult  # noqa: E402

DAG, BUCKET, PARALLEL = "sweep_hyperparameters", "bench-sweep", 4
#: The issue's bar: a sweep must cost less than this share of the peer's billable seconds.
COST_BAR = 0.6
RESULT = ROOT / "benchmarks" / "results" / "sweep.json"


@dataclass(frozen=True)
class Run:
    """One run of the DAG, as the services tell it."""

    name: str
    journal: SweepJournal
    result: SweepResult
    #: State of each training job, by trial; a trial with two jobs was paid for twice.
    jobs: dict[int, list[str]]
    wall_s: float

    def row(self) -> dict[str, Any]:
        """Return what the table and the file say."""
        states = [trial.state for trial in self.journal.trials]
        return {
            "run": self.name,
            "trials": len(states),
            "jobs": sum(map(len, self.jobs.values())),
            "completed": states.count(TrialState.COMPLETED),
            "stopped early": states.count(TrialState.STOPPED),
            "best validation error": round(self.result.best_value, 6),
            "billable seconds": round(self.result.billable_seconds),
            "wall seconds": round(self.wall_s),
            "best parameters": dict(self.result.best_parameters),
        }


class Stage:
    """A local AWS with the images, and an Airflow with the templates."""

    def __init__(self, aws: LocalAws, airflow: LocalAirflow) -> None:
        self.aws, self.airflow = aws, airflow

    def run(self, name: str, conf: dict[str, Any], *, kill_after: int | None = None) -> Run:
        """Run the DAG; kill the triggerer once `kill_after` trials have ended."""
        began = time.monotonic()
        before = set(self.journals())
        run_id = self.airflow.api.trigger(DAG, conf)
        wait_until(lambda: set(self.journals()) - before != set(), limit_s=120, what="the sweep has begun")
        (key,) = set(self.journals()) - before
        if kill_after is not None:
            ended = lambda: sum(trial.ended for trial in self.journal(key).trials)  # noqa: E731
            wait_until(lambda: ended() >= kill_after, limit_s=900, what=f"{kill_after} trials have ended")
            self.airflow.kill_component("triggerer")
            print(f"{name}: triggerer killed after {ended()} trials", flush=True)
            self.airflow.start_component("triggerer")
        state = self.airflow.api.wait_for_run(DAG, run_id, limit_s=1800)
        if state != "success":
            raise SystemExit(f"{name}: the run ended {state}: {self.airflow.api.log(DAG, run_id, 'sweep', 1)[-3000:]}")
        result = from_json(SweepResult, self.airflow.api.xcom(DAG, run_id, "sweep"))
        return Run(name, self.journal(key), result, self.jobs(run_id), time.monotonic() - began)

    def journals(self) -> list[str]:
        """Return the keys of all journals."""
        pages = self.aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="sweeps/sweeps/")
        return [key for key in pages.search("Contents[].Key") if key and key.endswith("/journal.json")]

    def journal(self, key: str) -> SweepJournal:
        """Return one journal."""
        body = self.aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return from_json(SweepJournal, json.loads(body))

    def jobs(self, run_id: str) -> dict[int, list[str]]:
        """Return the states of the training jobs of a run, by trial."""
        sagemaker, found = self.aws.client("sagemaker"), dict[int, list[str]]()
        for row in sagemaker.get_paginator("list_training_jobs").paginate().search("TrainingJobSummaries[]"):
            answer = sagemaker.list_tags(ResourceArn=row["TrainingJobArn"])["Tags"]
            tags = {tag["Key"]: tag["Value"] for tag in answer}
            if tags.get("dlaws:run") == run_id:
                found.setdefault(int(tags["dlaws:trial"]), []).append(row["TrainingJobStatus"])
        return found


@contextmanager
def stage(home: Path) -> Iterator[Stage]:
    """Start everything; end it whatever happens."""
    # Four trials share the machine: one thread each.
    threads = {"OMP_NUM_THREADS": "1"}
    with LocalAws(home / f"aws-{os.getpid()}", time_scale=0.05, environment=threads) as aws:
        aws.client("s3").create_bucket(Bucket=BUCKET)
        mnist.upload(aws.client("s3"), BUCKET, mnist.split_files(ROOT / ".dlaws" / "cache"))
        environment = {
            **aws.environment(),
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
            "DLAWS_BUCKET": BUCKET,
            "DLAWS_ROLE_ARN": "arn:aws:iam::123456789012:role/dlaws-sagemaker",
            "DLAWS_POLL_SECONDS": "1",
        }
        airflow = LocalAirflow(home / f"airflow-{os.getpid()}", {"templates": ROOT / "dags"}, environment)
        try:
            airflow.start()
            airflow.api.wait_for_dags({DAG}, limit_s=120)
            airflow.api.unpause(DAG)
            yield Stage(aws, airflow)
        finally:
            airflow.stop()


def misses(ours: Run, peer: Run, trials: int) -> list[str]:
    """Return what falls short, with the figures."""
    found = []
    if [trial.number for trial in ours.journal.trials] != list(range(trials)):
        found.append(f"{len(ours.journal.trials)} trials are journalled, not {trials}")
    if {number: len(states) for number, states in ours.jobs.items()} != dict.fromkeys(range(trials), 1):
        found.append(f"trials and their jobs: {ours.jobs}")
    for trial in ours.journal.trials:
        if trial.state is TrialState.STOPPED and ours.jobs.get(trial.number) != ["Stopped"]:
            found.append(f"trial {trial.number} was stopped, its jobs are {ours.jobs.get(trial.number)}")
    if ours.result.best_value > peer.result.best_value:
        found.append(f"best error {ours.result.best_value} is above random search's {peer.result.best_value}")
    share = ours.result.billable_seconds / peer.result.billable_seconds
    if share >= COST_BAR:
        found.append(f"{share:.0%} of random search's billable seconds, the bar is below {COST_BAR:.0%}")
    return found


def save(name: str, document: dict[str, Any]) -> None:
    """Put this run beside those of other seeds."""
    RESULT.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**kept, name: document}, indent=1, sort_keys=True) + "\n")


def main() -> int:
    """Run both, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=16)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    conf = {"seed": chosen.seed, "max_trials": chosen.trials, "parallel_trials": PARALLEL}
    with stage(ROOT / ".dlaws" / "bench-sweep") as here:
        ours = here.run("sweep: TPE + halving", conf, kill_after=chosen.trials // 3)
        peer = here.run("random, full trials", {**conf, "search": "random", "early_stopping": "none"})
    rows = [ours.row(), peer.row()]
    columns = [name for name in rows[0] if name != "best parameters"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(str(row[name]) for name in columns) + " |")
    found = misses(ours, peer, chosen.trials)
    share = round(ours.result.billable_seconds / peer.result.billable_seconds, 3)
    document = {"date": datetime.now(UTC).date().isoformat(), "share_of_cost": share, "runs": rows, "misses": found}
    save(f"seed {chosen.seed}, {chosen.trials} trials", document)
    print(f"{share:.0%} of the peer's billable seconds" + "".join(f"\nMISSED: {miss}" for miss in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
