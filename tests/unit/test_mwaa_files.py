"""The files for MWAA say what MWAA must be told, in the way it reads them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import airflow_dlaws

ROOT = Path(__file__).parent.parent.parent
MWAA = ROOT / "mwaa"


def test_the_requirements_ask_for_this_version() -> None:
    wanted = [line for line in (MWAA / "requirements.txt").read_text().splitlines() if not line.startswith(("#", "-"))]
    assert wanted == [f"airflow-dlaws[validation]=={airflow_dlaws.__version__}"]


def test_mwaa_sees_no_constraints_in_the_requirements_and_so_applies_its_own() -> None:
    # The expression of mwaa/utils/user_requirements.py in aws/amazon-mwaa-docker-images; it looks at comments too.
    assert not re.search(r"-c |--constraint ", (MWAA / "requirements.txt").read_text())


def test_the_startup_script_sets_every_variable_that_has_no_default_for_everybody() -> None:
    printed = subprocess.run(
        ["sh", "-c", f". {MWAA / 'startup.sh'} && env"], capture_output=True, text=True, check=True, env={}
    ).stdout
    exported = set(re.findall(r"^(DLAWS_\w+)=", printed, re.MULTILINE))
    read = {name for path in (ROOT / "dags").glob("*.py") for name in re.findall(r"\"(DLAWS_\w+)\"", path.read_text())}
    assert exported <= read
    assert {"DLAWS_BUCKET", "DLAWS_ROLE_ARN", "DLAWS_IMAGE", "DLAWS_ENDPOINT"} <= exported


def test_every_constraints_file_is_for_the_airflow_it_is_named_after() -> None:
    versions = {path.name.partition("-")[0].removesuffix(".txt") for path in (MWAA / "constraints").iterdir()}
    assert versions == {"3.0.6", "3.2.1", "3.3.1"}
    for version in versions:
        essential = (MWAA / "constraints" / f"{version}-essential.txt").read_text()
        assert f"\napache-airflow=={version}\n" in essential
        assert "\napache-airflow-providers-amazon==" in (MWAA / "constraints" / f"{version}.txt").read_text()
