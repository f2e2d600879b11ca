"""A shell on the other end of an Airflow SSH connection [extra: slurm]. Composes the SSH provider's `SSHHook`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.launchers.shell import COMMAND, DEFAULT_LIMIT_S, Answer, after_mark, marked

#: sshd takes ten sessions of one connection at once (MaxSessions), unless told otherwise.
_SESSIONS = 6
#: Seconds to try again where the server has no session to give.
_PATIENCE_S = 20.0
#: Seconds to wait for its answer, which costs it nothing: a connection without one leads nowhere any more. Airflow
#: gives a trigger 30 s to stop its job, in which there must be time for a new connection.
_ANSWER_S = 10.0
#: Those who want a connection in these seconds after one could not be made are told so: each of them would wait for the
#: same timeout after the other, in one of the few threads that a triggerer has for all its tasks.
_REST_S = 10.0
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
        self._hook: Any = None
        self._was_let_in = False
        self._failure: BaseException | None = None
        self._rest_until = 0.0

    def __del__(self) -> None:
        if self._client is not None:
            self._client.close()

    def prepare(self) -> None:
        """Ask Airflow for the connection now and for good, for where it cannot be asked later: in a signal handler.

        :raises ServiceRefused: there is none.
        """
        self._hook = _hook(self._conn_id)

    def run(self, script: str, *, limit_s: float = DEFAULT_LIMIT_S) -> Answer:
        """See the protocol."""
        with self._sessions, self._errors():
            client, session = self._session()
            try:
                return _run(session, marked(script), limit_s)
            except (EOFError, OSError):
                self._drop(client)
                raise
            finally:
                session.close()

    def _session(self) -> tuple[Any, Any]:
        """Open a session, over a new connection where the one that is kept does not answer."""
        import paramiko

        while True:
            client, transport, is_new = self._connected()
            try:
                return client, _open_session(transport)
            except paramiko.ChannelException:
                raise  # it has answered, and only had none to give
            except (paramiko.SSHException, EOFError, OSError):
                self._drop(client)
                if is_new:
                    raise

    def _connected(self) -> tuple[Any, Any, bool]:
        """Return the connection, its transport, and whether it was made just now, as it is where there was none."""
        with self._lock:
            transport = self._client.get_transport() if self._client is not None else None
            if transport is not None and transport.is_active():
                return self._client, transport, False
            if self._failure is not None and time.monotonic() < self._rest_until:
                raise self._failure
            try:
                self._client, self._failure, self._was_let_in = (
                    (self._hook or _hook(self._conn_id)).get_conn(),
                    None,
                    True,
                )
            except Exception as error:
                self._failure, self._rest_until = error, time.monotonic() + _REST_S
                raise
            return self._client, self._client.get_transport(), True

    def _drop(self, client: Any) -> None:
        """Give up a connection over which nothing came: a head node that has gone without a word leaves it open.

        The kernel would find that out after a quarter of an hour. Scripts that wait on it too are asked for again.
        """
        with self._lock:
            if self._client is client:
                self._client = None
        client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import paramiko

        where = f"the SSH connection {self._conn_id!r}"
        try:
            yield
        except (paramiko.AuthenticationException, paramiko.BadHostKeyException) as error:
            if self._was_let_in and not isinstance(error, paramiko.BadHostKeyException):
                # The head node's directory of users is away: no reason to give up jobs that run.
                raise ServiceUnavailable(f"{where} is refused, and was not before: {error}") from error
            raise ServiceRefused(f"{where} is refused: {error}. Correct its user, key or host key") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ServiceUnavailable(f"{where} does not work now: {type(error).__name__}: {error}") from error


def _open_session(transport: Any) -> Any:
    """Open a session; a server that has not yet noticed the end of the one before refuses it for a moment."""
    import paramiko

    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return transport.open_session(timeout=_ANSWER_S)
        except paramiko.ChannelException:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _hook(conn_id: str) -> Any:
    """Return what opens the connection.

    :raises ServiceRefused: the provider is not installed, or Airflow has no such connection.
    """
    from airflow_dlaws._compat import AirflowNotFoundException

    try:
        from airflow.providers.ssh.hooks.ssh import SSHHook
    except ImportError as error:
        raise ServiceRefused("ssh:// addresses need pip install 'airflow-dlaws[slurm]'") from error
    try:
        # One attempt: whoever asks tries again, and a triggerer must not wait here.
        return SSHHook(ssh_conn_id=conn_id, conn_retry_attempts=1)
    except AirflowNotFoundException as error:
        raise ServiceRefused(f"Airflow has no connection {conn_id!r}: create one of type SSH") from error


def _run(session: Any, script: str, limit_s: float) -> Answer:
    """Run a script in a session, and read both of its streams to their ends."""
    session.settimeout(limit_s)
    session.exec_command(COMMAND)
    errors = bytearray()
    reader = threading.Thread(target=_read_quietly, args=(session.recv_stderr, errors), daemon=True)
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


def _read_quietly(receive: Any, into: bytearray) -> None:
    """Read in a thread of its own; that nothing comes, whoever reads the other stream will say."""
    with suppress(OSError):
        _read(receive, into)
