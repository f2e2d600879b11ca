"""Programs run as hosts, in every mode this machine has; each mode keeps the same promises."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.local import isolation as isolation_module
from airflow_dlaws.local.isolation import HostProgram, Isolation, available, translate
from airflow_dlaws.local.sandbox import Sandbox

SECONDS = 20.0


@pytest.fixture(params=list(Isolation), ids=lambda mode: mode.name.lower())
def mode(request: pytest.FixtureRequest) -> Isolation:
    """Each mode that works here."""
    wanted: Isolation = request.param
    if wanted is Isolation.NAMESPACES and os.geteuid() != 0:
        pytest.skip("only root has namespaces without a user namespace")
    if wanted.isolates and not isolation_module._works(wanted):
        pytest.skip(f"this kernel gives no {wanted.name.lower()}")
    return wanted


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., HostProgram]:
    """Make a host that runs a shell script."""

    def make(script: str, name: str = "algo-1", **environment: str) -> HostProgram:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        variables = {"PATH": os.environ["PATH"], **environment}
        argv = ("sh", "-c", script, "/opt/ml/input")
        return HostProgram(name=name, folder=folder, argv=argv, environment=variables, log=tmp_path / f"{name}.log")

    return make


def run(folder: Path, programs: list[HostProgram], mode: Isolation) -> list[tuple[str, int]]:
    """Run hosts to their end; return how each ended, by name."""
    sandbox = Sandbox(folder, programs, isolation=mode, own_network=True)
    assert sandbox.wait(SECONDS)
    return sorted((ended.host, ended.code) for ended in sandbox.exits)


def wait_for(text: str, log: Path) -> None:
    """Wait until a log holds `text`."""
    deadline = time.monotonic() + SECONDS
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_host_finds_its_folder_and_ends_with_its_code(
    tmp_path: Path, host: Callable[..., HostProgram], mode: Isolation
) -> None:
    program = host('echo made > "$0"; echo "$FOLDER" > out; exit 7', FOLDER="/opt/ml/model")
    assert run(tmp_path, [program], mode) == [("algo-1", 7)]
    assert (program.folder / "input").read_text() == "made\n"
    expected = "/opt/ml/model" if mode.isolates else f"{program.folder}/model"
    assert (program.folder / "out").read_text().strip() == expected


def test_each_host_knows_its_name(tmp_path: Path, host: Callable[..., HostProgram], mode: Isolation) -> None:
    programs = [host('echo "$(uname -n) $SM_CURRENT_HOST"', name) for name in ("algo-1", "algo-2")]
    run(tmp_path, programs, mode)
    for program in programs:
        assert program.name in program.log.read_text()


def test_what_the_machine_has_in_opt_stays_where_it_is(
    tmp_path: Path, host: Callable[..., HostProgram], mode: Isolation
) -> None:
    before = {path.name for path in Path("/opt").iterdir()}
    program = host("ls /opt")
    run(tmp_path, [program], mode)
    seen = set(program.log.read_text().split())
    assert seen == before | ({"ml"} if mode.isolates else set())
    assert {path.name for path in Path("/opt").iterdir()} == before


def test_sigterm_reaches_the_script(tmp_path: Path, host: Callable[..., HostProgram], mode: Isolation) -> None:
    program = host("trap 'echo bye; exit 3' TERM; echo ready; sleep 60 & wait")
    sandbox = Sandbox(tmp_path, [program], isolation=mode, own_network=True)
    wait_for("ready", program.log)
    sandbox.terminate()
    assert sandbox.wait(SECONDS)
    assert [ended.code for ended in sandbox.exits] == [3]
    assert "bye" in program.log.read_text()


@pytest.mark.parametrize("end", ["kill", "close", "exit"])
def test_nothing_a_host_has_started_outlives_it(
    tmp_path: Path, host: Callable[..., HostProgram], mode: Isolation, end: str
) -> None:
    # In a session of its own and orphaned: the hardest one to find again.
    survivor = '(setsid sh -c \'while true; do date +%s%N > "$0/tick"; sleep 0.05; done\' "$PWD" &)'
    last = "true" if end == "exit" else "sleep 60"
    program = host(f"{survivor}; while [ ! -e tick ]; do sleep 0.02; done; echo ready; {last}")
    sandbox = Sandbox(tmp_path, [program], isolation=mode, own_network=True)
    wait_for("ready", program.log)
    if end != "exit":
        getattr(sandbox, end)()
    assert sandbox.wait(SECONDS)
    ticked = (program.folder / "tick").read_text()
    time.sleep(0.3)  # six ticks of the survivor, had it survived
    assert (program.folder / "tick").read_text() == ticked


def test_a_program_that_does_not_exist_is_told_from_one_that_fails(
    tmp_path: Path, host: Callable[..., HostProgram], mode: Isolation
) -> None:
    sandbox = Sandbox(tmp_path, [replace(host(""), argv=("no-such-program",))], isolation=mode, own_network=True)
    assert sandbox.wait(SECONDS)
    assert "no-such-program" in sandbox.exits[0].cannot_start


def test_hosts_reach_each_other_by_name_and_nobody_else(
    tmp_path: Path, host: Callable[..., HostProgram], mode: Isolation
) -> None:
    if not mode.isolates:
        pytest.skip("without namespaces the hosts share the machine's network")
    with socket.socket() as outside:
        outside.bind(("127.0.0.1", 0))
        outside.listen()
        code = (
            "import socket, sys\n"
            "first = socket.create_server(('algo-1', 7777)); second = socket.create_server(('algo-2', 7777))\n"
            "socket.create_connection(('algo-2', 7777))\n"
            f"sys.exit(socket.socket().connect_ex(('127.0.0.1', {outside.getsockname()[1]})) != 111)\n"
        )
        programs = [host(f'python3 -c "{code}"'), host("true", "algo-2")]
        assert run(tmp_path, programs, mode) == [("algo-1", 0), ("algo-2", 0)], programs[0].log.read_text()


def test_without_namespaces_the_rendezvous_is_handed_through_the_environment(
    tmp_path: Path, host: Callable[..., HostProgram]
) -> None:
    programs = [host('echo "$DLAWS_MASTER_ADDR:$DLAWS_MASTER_PORT"', name) for name in ("algo-1", "algo-2")]
    run(tmp_path, programs, Isolation.ENVIRONMENT)
    shown = {program.log.read_text().strip() for program in programs}
    assert len(shown) == 1
    assert shown.pop().startswith("127.0.0.1:")


def test_only_paths_under_opt_ml_are_rewritten(host: Callable[..., HostProgram]) -> None:
    program = replace(host(""), argv=("x", "/opt/ml", "/opt/ml/a", "/opt/mlx", "a/opt/ml"))
    folder = str(program.folder)
    assert translate(program, Isolation.ENVIRONMENT, {}).argv == ("x", folder, f"{folder}/a", "/opt/mlx", "a/opt/ml")
    assert translate(program, Isolation.NAMESPACES, {}) == program


def test_a_mode_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLAWS_LOCAL_ISOLATION", "docker")
    with pytest.raises(SpecificationError, match="it can be auto, env or namespaces"):
        available.__wrapped__()
