"""Template DAGs: what parsing them costs and imports, measured in a fresh process."""

from __future__ import annotations

import compileall
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
#: Seconds of CPU that a DAG file may add to `import airflow.sdk`.
PARSE_BUDGET_S = 0.3
HEAVY = {
    "torch", "great_expectations", "pandas", "numpy", "scipy", "pyarrow", "polars", "duckdb", "optuna", "moto", "boto3",
}  # fmt: skip

MEASURE = """
import json, runpy, sys, time
from airflow.sdk import DAG
before = time.process_time()
names = runpy.run_path(sys.argv[1])
cost = time.process_time() - before
dags = [value for value in names.values() if isinstance(value, DAG)]
print(json.dumps({"cost": cost, "modules": sorted({name.split(".")[0] for name in sys.modules}), "top": len(names)}))
"""


def measure(path: Path) -> dict[str, object]:
    """Run a DAG file in a fresh process; return its CPU seconds and the modules it leaves imported."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", autouse=True)
def bytecode() -> None:
    """Compile the package, as pip does where it is installed: an editable install may run without bytecode."""
    compileall.compile_dir(ROOT / "airflow_dlaws", quiet=2)


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
def test_parsing_a_template_is_cheap_and_imports_no_heavy_library(path: Path) -> None:
    rounds = [measure(path) for _ in range(5)]
    assert HEAVY & set(rounds[0]["modules"]) == set()
    cheapest = min(one["cost"] for one in rounds)  # the others measure what else the machine is doing
    assert cheapest <= PARSE_BUDGET_S, f"{path.name} adds {cheapest:.2f} s of CPU"
