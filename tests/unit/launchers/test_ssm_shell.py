"""The shell through Systems Manager: scripts really run here, behind a stand-in for its two calls with AWS's limits."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.errors import ServiceUnavailable
from airflow_dlaws.launchers.ssm_shell import SsmShell


class StandIn:
    """An instance's agent: a command is not known at once, then in progress, then done; output is cut as by AWS."""

    def __init__(self, ending: str = "Success") -> None:
        self.ending, self.commands, self.looks = ending, [], 0

    def send_command(self, **request: Any) -> dict[str, Any]:
        self.commands.append(request["Parameters"]["commands"][0])
        self.looks = 0
        return {"Command": {"CommandId": "c"}}

    def get_command_invocation(self, **_: Any) -> dict[str, Any]:
        self.looks += 1
        if self.looks == 1:
            raise ClientError({"Error": {"Code": "InvocationDoesNotExist"}}, "GetCommandInvocation")
        if self.looks == 2:
            return {"Status": "InProgress"}
        done = subprocess.run(["sh", "-c", self.commands[-1]], capture_output=True, text=True, check=False)
        return {
            "Status": self.ending,
            "StatusDetails": self.ending,
            "StandardOutputContent": done.stdout[:24_000],
            "StandardErrorContent": done.stderr[:8_000],
        }


def shell(client: StandIn) -> SsmShell:
    return SsmShell(client, "i-0123456789abcdef0", sleep=lambda _: None)


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    answer = shell(StandIn()).run(f"printf %s {shlex.quote(text)}; exit 7")
    assert (answer.code, answer.stdout) == (7, text.encode())


def test_an_answer_longer_than_systems_manager_shows_comes_whole() -> None:
    client = StandIn()
    answer = shell(client).run("for i in $(seq 20000); do echo $i $((i * 7919 % 10007)); done; echo trouble >&2")
    lines = answer.stdout.decode().splitlines()
    assert (len(lines), lines[-1].split()[0]) == (20000, "20000")
    assert "trouble" in answer.stderr
    assert len(client.commands) > 2


def test_a_command_that_timed_out_may_be_tried_again() -> None:
    with pytest.raises(ServiceUnavailable, match="ended as TimedOut"):
        shell(StandIn("TimedOut")).run("true")


def test_a_login_shell_that_ends_at_once_is_no_empty_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".bash_profile").write_text("echo maintenance until noon\nexit 0\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ServiceUnavailable, match="maintenance until noon"):
        shell(StandIn()).run("true")
