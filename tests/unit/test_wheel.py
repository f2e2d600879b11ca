"""What a user who installs the wheel gets beside the package: every template, with what belongs to it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build the wheel; return the names of its files."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("folder", ["dags", "training_scripts"])
def test_the_wheel_has_all_templates(names: set[str], folder: str) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    prefix = "airflow_dlaws/templates/"
    assert {name.removeprefix(prefix) for name in names if name.startswith(f"{prefix}{folder}/")} == expected


def test_the_wheel_has_what_the_image_is_built_from(names: set[str]) -> None:
    scripts = "airflow_dlaws/templates/training_scripts"
    assert {f"{scripts}/Dockerfile", f"{scripts}/serve.py", f"{scripts}/flight_delays/README.md"} <= names


def test_the_wheel_has_no_compiled_code_and_no_tests(names: set[str]) -> None:
    assert [name for name in names if name.endswith(".pyc") or name.startswith("tests/")] == []
