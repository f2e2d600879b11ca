"""What Airflow is told about this package is true: it fits Airflow's schema, and everything it names is there."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.sdk import BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.triggers.base import BaseTrigger

import airflow_dlaws
from airflow_dlaws.get_provider_info import get_provider_info

PACKAGE = Path(airflow_dlaws.__file__).parent
INFO = get_provider_info()
#: Modules that hold what several operators share, and no operator of their own.
SHARED = {
    "operators.base",
    "operators.job",
    "operators.kept_job",
    "operators.rollout_order",
    "operators.rollout_plan",
    "operators.training_options",
    "sensors.base",
}


def named_modules() -> Iterator[str]:
    for kind in ("operators", "sensors", "hooks", "triggers", "bundles"):
        for entry in INFO[kind]:
            yield from entry["python-modules"]


def test_the_information_fits_airflows_schema() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)
    assert set(INFO) - {"versions"} <= set(schema["properties"])


def test_airflow_finds_it_by_its_entry_point() -> None:
    (point,) = entry_points(group="apache_airflow_provider", module="airflow_dlaws.get_provider_info")
    assert point.load()() == INFO


def test_the_version_is_the_packages() -> None:
    assert INFO["versions"] == [airflow_dlaws.__version__]


@pytest.mark.parametrize("module", list(named_modules()))
def test_every_module_named_imports_and_is_documented(module: str) -> None:
    assert inspect.getdoc(importlib.import_module(module))


@pytest.mark.parametrize("path", INFO["extra-links"])
def test_every_extra_link_named_is_a_link(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), name), BaseOperatorLink)


@pytest.mark.parametrize(
    ("kind", "base"), [("operators", BaseOperator), ("sensors", BaseSensorOperator), ("triggers", BaseTrigger)]
)
def test_every_module_with_something_to_use_is_named(kind: str, base: type[Any]) -> None:
    named = {module for entry in INFO[kind] for module in entry["python-modules"]}
    present = set()
    for path in (PACKAGE / kind).glob("[a-z]*.py"):
        module = importlib.import_module(f"airflow_dlaws.{kind}.{path.stem}")
        shared = f"{kind}.{path.stem}" in SHARED
        own = [item for item in vars(module).values() if inspect.isclass(item) and item.__module__ == module.__name__]
        if not shared and any(issubclass(item, base) for item in own):
            present.add(module.__name__)
    assert present == named
