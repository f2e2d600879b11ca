"""Runs inside an environment under test: `python inside.py modules|versions|parse FILE|loop FILE CONF`. Prints JSON.

Needs nothing but the standard library, Airflow and the installed wheel.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import runpy
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

#: Workers have neither torch nor moto: the local AWS is another extra, and runs elsewhere.
_NOT_INSTALLED = ("airflow_dlaws.local",)


def modules() -> dict[str, Any]:
    """Import every module of the package."""
    import airflow_dlaws

    names = [module.name for module in pkgutil.walk_packages(airflow_dlaws.__path__, "airflow_dlaws.")]
    failures = {}
    wanted = [name for name in names if not name.startswith(_NOT_INSTALLED)]
    for name in wanted:
        try:
            importlib.import_module(name)
        except Exception as error:
            failures[name] = repr(error)
    return {"imported": len(wanted) - len(failures), "failures": failures}


def parse(path: str) -> dict[str, Any]:
    """Run a DAG file in this fresh process; return the libraries that it imports, and its seconds of CPU."""
    from airflow.sdk import DAG  # noqa: F401  every DAG file pays for this

    before, started = set(sys.modules), time.process_time()
    runpy.run_path(path)
    cost = time.process_time() - started
    return {"cost": round(cost, 3), "libraries": sorted({name.partition(".")[0] for name in set(sys.modules) - before})}


def loop(path: str, conf: str) -> dict[str, Any]:
    """Run the DAG that a file is named after with `dag.test()`."""
    try:  # 3.2 and later
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

    dag = DagBag(path).dags[Path(path).stem]
    started = time.monotonic()
    run = dag.test(run_conf=json.loads(conf))
    tasks = {instance.task_id: str(instance.state) for instance in run.get_task_instances()}
    return {"state": str(run.state), "tasks": tasks, "seconds": round(time.monotonic() - started, 1)}


def versions() -> dict[str, Any]:
    """Say what is installed."""
    from airflow_dlaws.template_files import templates_folder

    names = (
        "apache-airflow",
        "apache-airflow-providers-amazon",
        "boto3",
        "great-expectations",
        "pandas",
        "airflow-dlaws",
    )
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: version(name) for name in names},
        "dags": str(templates_folder("dags")),
    }


if __name__ == "__main__":
    command = {"modules": modules, "parse": parse, "loop": loop, "versions": versions}[sys.argv[1]]
    print("\n" + json.dumps(command(*sys.argv[2:])), flush=True)
