"""A shell on the other end of an Airflow SSH connection [extra: slurm]. Composes the SSH provider's `SSHHook`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.launchers.shell import COMMAND, DEFAULT_LIMIT_S, Answer, after_mark, marked

#: sshd takes ten sessions of one connection at once (MaxSessions), unless told otherwise.
_SESSIONS = 6
#: Seconds to try again where the server has no session to give.
_PATIENCE_S = 20.0
_PIECE = 64 * 1024


class SshShell:
    """Keeps one connection, and runs each script in a session of its own. Threads may share it.

    :param conn_id: an Airflow connection of type SSH.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._sessions = threading.BoundedSemaphore(_SESSIONS)
        self._lock = threading.Lock()
        self._client: Any = None

    def __del__(self) -> None:
        if self._client is not None:
            self._client.close()

    def run(self, script: str, *, limit_s: float = DEFAULT_LIMIT_S) -> Answer:
        """See the protocol."""
        with self._sessions, self._errors():
            session = self._session(limit_s)
            try:
                return _run(session, marked(script), limit_s)
            finally:
                session.close()

    def _session(self, limit_s: float) -> Any:
        """Open a session; a server that has not yet noticed the end of the one before refuses it for a moment."""
        import paramiko

        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._transport().open_session(timeout=limit_s)
            except paramiko.ChannelException:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def _transport(self) -> Any:
        """Return the connection, made anew where it has broken."""
        with self._lock:
            transport = self._client.get_transport() if self._client is not None else None
            if transport is None or not transport.is_active():
                self._client = _connect(self._conn_id)
                transport = self._client.get_transport()
            return transport

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import paramiko

        where = f"the SSH connection {self._conn_id!r}"
        try:
            yield
        except (paramiko.AuthenticationException, paramiko.BadHostKeyException) as error:
            raise ServiceRefused(f"{where} is refused: {error}. Correct its user, key or host key") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ServiceUnavailable(f"{where} does not work now: {type(error).__name__}: {error}") from error


def _connect(conn_id: str) -> Any:
    """Open the connection.

    :raises ServiceRefused: the provider is not installed, or Airflow has no such connection.
    """
    from airflow_dlaws._compat import AirflowNotFoundException

    try:
        from airflow.providers.ssh.hooks.ssh import SSHHook
    except ImportError as error:
        raise ServiceRefused("ssh:// addresses need pip install 'airflow-dlaws[slurm]'") from error
    try:
        # One attempt: whoever asks tries again, and a triggerer must not wait here.
        return SSHHook(ssh_conn_id=conn_id, conn_retry_attempts=1).get_conn()
    except AirflowNotFoundException as error:
        raise ServiceRefused(f"Airflow has no connection {conn_id!r}: create one of type SSH") from error


def _run(session: Any, script: str, limit_s: float) -> Answer:
    """Run a script in a session, and read both of its streams to their ends."""
    session.settimeout(limit_s)
    session.exec_command(COMMAND)
    errors = bytearray()
    reader = threading.Thread(target=_read, args=(session.recv_stderr, errors), daemon=True)
    reader.start()
    session.sendall(script.encode())
    session.shutdown_write()
    output = bytearray()
    _read(session.recv, output)
    reader.join(limit_s)
    code = session.recv_exit_status()
    if code < 0:
        raise EOFError("the session ended without an exit code")
    return Answer(code=code, stdout=after_mark(bytes(output)), stderr=errors.decode(errors="replace"))


def _read(receive: Any, into: bytearray) -> None:
    while piece := receive(_PIECE):
        into += piece
