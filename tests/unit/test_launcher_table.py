"""Each engine's name finds the launcher that bears it."""

from __future__ import annotations

import importlib

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.hooks.launcher import ENGINES, launcher_for


class Nothing:
    """Connections that are never used."""

    def client(self, service: str) -> object:
        raise AssertionError(service)

    def shell(self, address: str) -> object:
        raise AssertionError(address)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_engine_is_run_by_the_launcher_of_its_module(engine: str) -> None:
    module, name = ENGINES[engine]
    assert engine == importlib.import_module(f"airflow_dlaws.launchers.{module}").ENGINE
    assert type(launcher_for(engine, Nothing())).__name__ == name


def test_an_engine_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(SpecificationError, match="'sagemaker-tuning'"):
        launcher_for("kubernetes", Nothing())
