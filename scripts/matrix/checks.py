"""What an environment must do: import, give its templates away, parse them, run the loop, stop what is killed."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_dlaws.local.demo import flights
from airflow_dlaws.local.process import LocalAws
from scripts.matrix.airflow_home import AirflowHome, CheckFailed
from scripts.matrix.environments import Environment
from scripts.matrix.killing import kill_checks
from scripts.matrix.targets import ROOT

BUCKET = "matrix"
#: Two months train, the third evaluates; the smallest job that still passes the template's own requirements.
MONTHS = ("2013-01", "2013-02", "2013-03")
CONF = '{"instance_count": 1, "epochs": 2}'
LOOP_DAG = "retrain_on_drift"
#: AWS takes minutes to find machines; a twentieth of that is enough here.
_TIME_SCALE = 0.05
#: Parsing a DAG must import none of these.
HEAVY = {
    "torch", "great_expectations", "pandas", "numpy", "scipy", "pyarrow", "polars", "duckdb", "optuna", "moto", "boto3",
}  # fmt: skip


def check(environment: Environment, work: Path, cache: Path) -> dict[str, Any]:
    """Run all checks in a fresh folder; return one row of the report. A failure ends the row and stands in it."""
    shutil.rmtree(work, ignore_errors=True)
    row: dict[str, Any] = {
        "airflow": environment.target.airflow,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "base_install_seconds": environment.base_seconds,
        "wheel_install_seconds": environment.wheel_seconds,
        "installed_in_this_run": not environment.cached,
    }
    started = time.monotonic()
    try:
        _steps(row, environment, work, cache)
        row["failure"] = ""
    except CheckFailed as error:
        row["failure"] = str(error)
    return {**row, "seconds": round(time.monotonic() - started, 1)}


def _steps(row: dict[str, Any], environment: Environment, work: Path, cache: Path) -> None:
    copy = AirflowHome(
        environment,
        work / "copy",
        {"dags-folder": ("airflow.dag_processing.bundles.local.LocalDagBundle", {"path": str(work / "copy" / "dags")})},
        {},
    )
    row["versions"] = {name: value for name, value in copy.inside("versions").items() if name != "dags"}
    row["modules"] = _modules(copy)
    row["templates"] = _copied_templates(copy)
    with LocalAws(work / "aws", time_scale=_TIME_SCALE) as aws:
        s3 = aws.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        files = flights.monthly_files(cache)
        flights.upload(s3, BUCKET, {month: files[month] for month in MONTHS})
        row["loop"] = _loop(environment, work / "bundle", aws)
        row["killed_jobs"] = kill_checks(environment, aws, work / "stack", BUCKET)


def _modules(home: AirflowHome) -> int:
    answer = home.inside("modules")
    if answer["failures"]:
        raise CheckFailed(f"modules that cannot be imported: {answer['failures']}")
    return int(answer["imported"])


def _copied_templates(home: AirflowHome) -> dict[str, float]:
    """Copy the templates as a user does and parse the copy; return the seconds of CPU that each DAG file adds."""
    target = home.folder / "dags" / "dlaws"
    home.run([str(Path(home.environment.python).parent / "dlaws"), "templates", "copy", str(target)])
    _expect_every_template(home.parsed(), target / "dags")
    costs = {}
    for path in sorted((target / "dags").glob("*.py")):
        answer = home.inside("parse", str(path))
        heavy = HEAVY.intersection(answer["libraries"])
        if heavy:
            raise CheckFailed(f"parsing {path.name} imports {sorted(heavy)}")
        costs[path.stem] = answer["cost"]
    return costs


def _loop(environment: Environment, folder: Path, aws: LocalAws) -> dict[str, Any]:
    """Run the loop's DAG from the bundle, as installed; every task must succeed and the endpoint be in service."""
    variables = {
        **aws.environment(),
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "DLAWS_BUCKET": BUCKET,
        "DLAWS_POLL_SECONDS": "1",
    }
    home = AirflowHome(environment, folder, {"templates": ("airflow_dlaws.bundles.TemplateBundle", {})}, variables)
    dags = Path(home.inside("versions")["dags"])
    _expect_every_template(home.parsed(), dags)
    answer = home.inside("loop", str(dags / f"{LOOP_DAG}.py"), CONF)
    if answer["state"] != "success" or set(answer["tasks"].values()) != {"success"}:
        raise CheckFailed(f"{LOOP_DAG}: {answer}; what it printed is in {folder / 'loop.out'}")
    status = aws.client("sagemaker").describe_endpoint(EndpointName="flight-delays")["EndpointStatus"]
    if status != "InService":
        raise CheckFailed(f"{LOOP_DAG} is green, but its endpoint is {status}")
    return answer


def _expect_every_template(parsed: dict[str, str], folder: Path) -> None:
    """Compare with the files of the checkout: the wheel must have them all, and Airflow must find a DAG in each."""
    found = {Path(file).name for file in parsed.values() if Path(file).parent == folder}
    expected = {path.name for path in (ROOT / "dags").glob("*.py")}
    if found != expected or len(parsed) < len(expected):
        raise CheckFailed(
            f"Airflow found DAGs in {sorted(found)} of {folder}, and not in all of {sorted(expected)}: {parsed}"
        )
