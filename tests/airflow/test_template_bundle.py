"""The template bundle and a copy of the templates, each parsed by a real dag processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_dlaws.template_copies import copy_templates

ROOT = Path(__file__).parent.parent.parent
TEMPLATES = {path.stem for path in (ROOT / "dags").glob("*.py")}

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def airflow(home: Path, *words: str) -> str:
    """Run one command of the Airflow in `home`; return what it printed."""
    bundles = [
        {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
        {"name": "dlaws-templates", "classpath": "airflow_dlaws.bundles.TemplateBundle", "kwargs": {}},
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "DLAWS_"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }
    command = [sys.executable, "-m", "airflow", *words]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def rows(home: Path, *words: str) -> list[dict[str, Any]]:
    """Return the table that a command prints."""
    text = airflow(home, *words, "--output", "json")
    tables = [line for line in text.splitlines() if line.startswith(("[{", "[]"))]  # warnings may come first
    assert tables, text
    return json.loads(tables[-1])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An Airflow with a fresh database and an empty DAGs folder."""
    (tmp_path / "dags").mkdir()
    airflow(tmp_path, "db", "migrate")
    return tmp_path


def test_the_bundle_gives_all_templates_without_a_copy(home: Path) -> None:
    airflow(home, "dag-processor", "--num-runs", "1", "--bundle-name", "dlaws-templates")
    assert {row["dag_id"]: row["bundle_name"] for row in rows(home, "dags", "list")} == dict.fromkeys(
        TEMPLATES, "dlaws-templates"
    )


def test_a_copy_in_the_dags_folder_gives_all_templates_and_tries_no_script(home: Path) -> None:
    copy_templates(home / "dags" / "dlaws")
    script = home / "dags/dlaws/training_scripts/flight_delays/mine.py"
    script.write_text("# To Airflow these words look like a DAG: airflow, dag\nraise RuntimeError('tried')\n")
    airflow(home, "dag-processor", "--num-runs", "1", "--bundle-name", "dags-folder")
    listed = rows(home, "dags", "list")
    assert {row["dag_id"] for row in listed} == TEMPLATES
    assert all("/dlaws/dags/" in f"/{row['fileloc']}" for row in listed)
    assert rows(home, "dags", "list-import-errors") == []
