"""The shell over SSH where the way to the head node is bad: a relay in between goes silent, or refuses."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from slurm_cluster import SlurmCluster

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.hooks import ssh
from airflow_dlaws.hooks.ssh import SshShell


class Relay:
    """Forwards connections to a port; `silent` ones are left open, and nothing passes through them any more."""

    def __init__(self, port: int) -> None:
        self._target, self.accepted, self.closing = port, 0, False
        self._gates: list[threading.Event] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def silence(self) -> None:
        """Let nothing more pass through the connections there are; new ones are good."""
        for gate in self._gates:
            gate.clear()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            if self.closing:
                time.sleep(0.3)
                near.close()
                continue
            far, gate = socket.create_connection(("127.0.0.1", self._target)), threading.Event()
            gate.set()
            self._gates.append(gate)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(*pair, gate), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, gate: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                gate.wait()
                target.sendall(data)
        except OSError:
            pass
        target.close()


@pytest.fixture
def relay(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay in front of the cluster's sshd, which the connection `relayed` leads to."""
    fields = json.loads(cluster.airflow_connection())
    made = Relay(fields["port"])
    extra = {**fields["extra"], "host_key": fields["extra"]["host_key"]}
    monkeypatch.setenv("AIRFLOW_CONN_RELAYED", json.dumps({**fields, "port": made.port, "extra": extra}))
    yield made
    made.close()


def test_a_connection_that_has_gone_silent_is_made_anew_at_once(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_ANSWER_S", 1.0)
    shell = SshShell("relayed")
    assert shell.run("echo one").stdout == b"one\n"
    relay.silence()
    assert shell.run("echo two").stdout == b"two\n"
    assert relay.accepted == 2


def test_a_script_whose_answer_never_comes_takes_the_connection_with_it(relay: Relay) -> None:
    shell = SshShell("relayed")
    threading.Timer(0.5, relay.silence).start()
    with pytest.raises(ServiceUnavailable, match="relayed"):
        shell.run("sleep 2", limit_s=3)
    began = time.monotonic()
    assert shell.run("echo again").stdout == b"again\n"
    assert time.monotonic() - began < 5


def test_those_who_want_a_connection_that_could_just_not_be_made_do_not_queue_up_for_it(relay: Relay) -> None:
    relay.closing = True
    shell = SshShell("relayed")

    def attempt(_: int) -> str:
        with pytest.raises(ServiceUnavailable) as refused:
            shell.run("true")
        return str(refused.value)

    with ThreadPoolExecutor(5) as crowd:
        words = list(crowd.map(attempt, range(5)))
    assert relay.accepted == 1
    assert len(set(words)) == 1


def test_a_user_who_was_let_in_before_is_not_given_up_for_a_refusal(cluster: SlurmCluster, relay: Relay) -> None:
    keys = cluster.folder / "ssh/user.pub"
    known, new = SshShell("relayed"), SshShell("relayed")
    known.run("true")
    keys.rename(keys.with_suffix(".away"))
    try:
        known._drop(known._client)
        with pytest.raises(ServiceUnavailable, match="was not before"):
            known.run("true")
        with pytest.raises(ServiceRefused, match="Correct its user, key or host key"):
            new.run("true")
    finally:
        keys.with_suffix(".away").rename(keys)


def test_a_prepared_shell_asks_airflow_no_more(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SshShell("relayed")
    shell.prepare()
    monkeypatch.delenv("AIRFLOW_CONN_RELAYED")
    assert shell.run("echo yes").stdout == b"yes\n"
