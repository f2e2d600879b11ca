"""docker-compose.yaml obeys the Compose specification, holds no secret, and gives nothing away."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compose_file import (
    COMPOSE_FILE,
    ROOT,
    MissingVariable,
    interpolate,
    read_document,
    read_services,
    read_variables,
)
from native_stack import Translation

#: The specification's own schema, as the package check-jsonschema ships it.
SCHEMA_CHECK = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
#: What must come from outside. The connection may hold keys of AWS.
SECRETS = {
    "AIRFLOW_ADMIN_PASSWORD",
    "AIRFLOW_CONN_AWS_DEFAULT",
    "AIRFLOW_FERNET_KEY",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_SECRET_KEY",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `make compose-env` writes."""
    target = tmp_path_factory.mktemp("env") / ".env"
    assert _compose_env(target).returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    return read_variables(target.read_text())


def _compose_env(target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/compose_env.py"), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _schema_check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SCHEMA_CHECK, str(path)], capture_output=True, text=True, check=False)


def test_the_file_obeys_the_compose_specification() -> None:
    done = _schema_check(COMPOSE_FILE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("network_mode: service:loopback", "network_modus: service:loopback"),
        ("condition: service_completed_successfully", "condition: service_completed"),
        ("timeout: 20s", "timeout: [20]"),
    ],
)
def test_the_schema_refuses_what_compose_would(right: str, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "docker-compose.yaml"
    path.write_text(COMPOSE_FILE.read_text().replace(right, wrong))
    assert _schema_check(path).returncode == 1


def test_each_secret_is_required_and_its_error_says_what_to_do(variables: dict[str, str]) -> None:
    for name in SECRETS:
        for lacking in ({**variables, name: ""}, {key: value for key, value in variables.items() if key != name}):
            with pytest.raises(MissingVariable, match=f"{name} is missing a value: run `make compose-env` first"):
                read_services(lacking)


def test_no_value_that_sounds_like_a_secret_is_written_in_the_file(variables: dict[str, str]) -> None:
    given = {variables[name] for name in SECRETS}
    for service in read_services(variables).values():
        for name, value in service.environment.items():
            if re.search(r"KEY|SECRET|PASSWORD$|AUTH$|BROKER_URL|RESULT_BACKEND|SQL_ALCHEMY_CONN", name):
                assert any(secret in value for secret in given), name


def test_new_passwords_are_made_each_time_and_none_is_overwritten(variables: dict[str, str], tmp_path: Path) -> None:
    assert _compose_env(tmp_path / ".env").returncode == 0
    first = (tmp_path / ".env").read_text()
    other = read_variables(first)
    assert {name for name in SECRETS if other[name] == variables[name]} == {"AIRFLOW_CONN_AWS_DEFAULT"}
    again = _compose_env(tmp_path / ".env")
    assert again.returncode == 1
    assert "exists and was left as it is" in again.stderr
    assert (tmp_path / ".env").read_text() == first


def test_neither_git_nor_the_image_takes_the_env_file() -> None:
    assert subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT, check=False).returncode == 0
    assert "!.env" not in (ROOT / ".dockerignore").read_text()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_only_the_own_machine_reaches_a_published_port_and_no_service_is_privileged() -> None:
    services: dict[str, Any] = read_document()["services"]
    ports = [port for row in services.values() for port in row.get("ports", [])]
    assert ports == ["127.0.0.1:${AIRFLOW_PORT:-8080}:8080"]
    for name, row in services.items():
        assert not {"privileged", "cap_add", "pid", "ipc", "devices", "userns_mode"} & set(row), name
        assert name in {"postgres", "redis"} or row["cap_drop"] == ["ALL"], name
        assert "docker.sock" not in json.dumps(row)


def test_the_local_aws_shares_its_loopback_and_starts_only_with_its_profile(variables: dict[str, str]) -> None:
    with_aws = read_services(variables)
    assert with_aws["local-aws"].network_mode == "service:loopback"
    assert "--host" not in " ".join(with_aws["local-aws"].command)
    without = read_services({**variables, "COMPOSE_PROFILES": ""})
    assert set(with_aws) - set(without) == {"local-aws"}
    assert not [each.name for each in without.values() if "local-aws" in each.depends_on]


def test_the_templates_are_mounted_read_only(variables: dict[str, str]) -> None:
    for name in ("airflow-dag-processor", "airflow-worker", "airflow-triggerer", "airflow-scheduler"):
        mounts = {mount.source: mount for mount in read_services(variables)[name].mounts}
        assert {source for source, mount in mounts.items() if mount.read_only} == {"./dags", "./training_scripts"}
        assert all((ROOT / source).is_dir() for source, mount in mounts.items() if not mount.named)


def test_all_that_stays_up_has_a_health_check_but_the_holder_of_the_network(variables: dict[str, str]) -> None:
    services = read_services(variables)
    assert {name for name, service in services.items() if not service.health} == {"loopback", "airflow-init"}


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("a $$HOME b", "a $HOME b"),
        ("${SET}", "value"),
        ("${SET:-other}", "value"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY-other}", ""),
        ("${UNSET-other}", "other"),
        ("${UNSET}", ""),
        ("${SET:?message}", "value"),
    ],
)
def test_variables_are_replaced_as_compose_does(text: str, replaced: str) -> None:
    assert interpolate(text, {"SET": "value", "EMPTY": ""}) == replaced


def test_addresses_and_folders_are_translated_and_nothing_else(tmp_path: Path) -> None:
    translate = Translation(tmp_path)
    ports = translate.ports
    assert translate("redis://:a8080b@redis:6379/0") == f"redis://:a8080b@127.0.0.1:{ports[6379]}/0"
    assert translate("http%3A%2F%2F127.0.0.1%3A4566") == f"http%3A%2F%2F127.0.0.1%3A{ports[4566]}"
    assert translate("--state-dir=/var/lib/dlaws") == f"--state-dir={tmp_path}/var/lib/dlaws"
    assert translate("> /opt/airflow/auth/p.json") == f"> {tmp_path}/opt/airflow/auth/p.json"
    assert translate("0.0.0.0") == "127.0.0.1"
    assert translate("s3://bucket/data and -p 5432") == f"s3://bucket/data and -p {ports[5432]}"
