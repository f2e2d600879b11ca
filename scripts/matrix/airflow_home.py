"""Commands in an environment under test, and an Airflow home there: database, DAG bundles, dag processor."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.matrix.environments import Environment

INSIDE = Path(__file__).parent / "inside.py"
#: Nothing of this run's own environment may reach the one under test.
_FOREIGN = ("AIRFLOW_", "AWS_", "DLAWS_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class CheckFailed(Exception):
    """The package does not do in this environment what it must."""


class AirflowHome:
    """A folder with an Airflow of its own.

    :param bundles: DAG bundles by name: classpath and arguments.
    :param variables: more environment variables.
    """

    def __init__(
        self,
        environment: Environment,
        folder: Path,
        bundles: Mapping[str, tuple[str, Mapping[str, str]]],
        variables: Mapping[str, str],
    ) -> None:
        folder.mkdir(parents=True)
        self.environment, self.folder = environment, folder
        rows = [{"name": name, "classpath": path, "kwargs": dict(kwargs)} for name, (path, kwargs) in bundles.items()]
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(rows),
            **variables,
        }

    def inside(self, *words: str) -> dict[str, Any]:
        """Run `inside.py`; return what it answers. What it printed before is kept in the folder."""
        output = self.run([self.environment.python, str(INSIDE), *words])
        (self.folder / f"{words[0]}.out").write_text(output)
        return dict(json.loads(output.splitlines()[-1]))

    def parsed(self) -> dict[str, str]:
        """Let a dag processor read every bundle once; return {DAG id: file}.

        :raises CheckFailed: a file cannot be imported.
        """
        self._airflow("db", "migrate")
        self._airflow("dag-processor", "--num-runs", "1")
        errors = self._table("dags", "list-import-errors")
        if errors:
            raise CheckFailed(f"import errors: {json.dumps(errors)[:2000]}")
        return {row["dag_id"]: row["fileloc"] for row in self._table("dags", "list")}

    def run(self, command: Sequence[str]) -> str:
        """Run a command; return what it printed.

        :raises CheckFailed: it failed.
        """
        done = subprocess.run(command, env=self.variables, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise CheckFailed(f"{' '.join(command)[:300]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def _airflow(self, *words: str) -> str:
        return self.run([self.environment.python, "-m", "airflow", *words])

    def _table(self, *words: str) -> list[dict[str, Any]]:
        lines = self._airflow(*words, "--output", "json").splitlines()
        tables = [line for line in lines if line.startswith(("[{", "[]"))]  # warnings may come first
        if not tables:
            raise CheckFailed(f"airflow {' '.join(words)} printed no table: {lines[-5:]}")
        return list(json.loads(tables[-1]))
