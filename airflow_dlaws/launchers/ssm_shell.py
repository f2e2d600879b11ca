"""A shell on a machine that AWS Systems Manager reaches: no open port, no key; IAM says who may.

https://docs.aws.amazon.com/systems-manager/latest/userguide/run-command.html
"""

from __future__ import annotations

import base64
import gzip
import shlex
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.launchers.aws_errors import error_code, service_errors
from airflow_dlaws.launchers.shell import COMMAND, DEFAULT_LIMIT_S, Answer, after_mark, marked

_DOCUMENT = "AWS-RunShellScript"
#: GetCommandInvocation gives the first 24,000 characters; some are for the answer's head.
_PIECE = 23_000
#: AWS does not document how long a command's parameters may be, only that its documents have 64 KB.
_SCRIPT_LIMIT = 60_000
_WAITING = frozenset({"Pending", "InProgress", "Delayed", "Cancelling"})
#: AWS takes no less, however short the script: a machine that is not there must not keep us waiting.
_DELIVERY_LIMIT_S = 60
_PACES = (0.3, 0.5, 1.0, 2.0)


class SsmShell:
    """Runs each script as one command of Systems Manager, and fetches what it has printed in pieces.

    :param client: boto3 client of `ssm`.
    :param host: instance id, or USER@ID: the user that the scripts run as, else root.
    :param sleep: waits; a test passes its own.
    """

    def __init__(self, client: Any, host: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self._sleep = client, sleep
        user, _, self._instance = host.rpartition("@")
        self._as_user = f"runuser -u {shlex.quote(user)} -- " if user else ""

    def prepare(self) -> None:
        """See the protocol; the client is all there is to have."""

    def run(self, script: str, *, limit_s: float = DEFAULT_LIMIT_S) -> Answer:
        """See the protocol."""
        head, piece, errors = self._command(self._wrapped(script), limit_s)
        code, size, folder = int(head[0]), int(head[1]), head[2]
        while len(piece) < size:
            more = f"tail -c +{len(piece) + 1} {shlex.quote(folder)}/packed | head -c {_PIECE}\n"
            piece += self._more(more, limit_s)
        if size > _PIECE:
            self._more(f"rm -rf {shlex.quote(folder)}\n", limit_s)
        return Answer(code=code, stdout=after_mark(_unpacked(piece)), stderr=errors)

    def _wrapped(self, script: str) -> str:
        """Return a script for root that runs `script` as the user, and prints the first piece of the answer."""
        text = base64.b64encode(gzip.compress(marked(script).encode(), mtime=0)).decode()
        if len(text) > _SCRIPT_LIMIT:
            raise ServiceRefused(
                f"a script of {len(text)} characters is too long for Systems Manager ({_SCRIPT_LIMIT}): shorten "
                "hyperparameters and environment, or use an SSH connection"
            )
        return f"""\
umask 077
folder=$(mktemp -d /tmp/dlaws-XXXXXXXX) || exit 1
printf '%s' {text} | base64 -d | gunzip | {self._as_user}bash -c {shlex.quote(COMMAND)} >"$folder/out"
code=$?
gzip -c "$folder/out" | base64 -w 0 >"$folder/packed"
size=$(stat -c %s "$folder/packed")
echo "$code $size $folder"
head -c {_PIECE} "$folder/packed"
[ "$size" -gt {_PIECE} ] || rm -rf "$folder"
exit 0
"""

    def _more(self, script: str, limit_s: float) -> str:
        invocation = self._invoke(script, limit_s)
        return str(invocation["StandardOutputContent"])

    def _command(self, script: str, limit_s: float) -> tuple[list[str], str, str]:
        invocation = self._invoke(script, limit_s)
        head, _, piece = str(invocation["StandardOutputContent"]).partition("\n")
        return head.split(" ", 2), piece, str(invocation["StandardErrorContent"])

    def _invoke(self, script: str, limit_s: float) -> Mapping[str, Any]:
        """Run one command and wait for its end.

        :raises ServiceUnavailable: it did not end well in time.
        """
        with service_errors(f"run a command on {self._instance} through Systems Manager"):
            command = self._client.send_command(
                InstanceIds=[self._instance],
                DocumentName=_DOCUMENT,
                TimeoutSeconds=_DELIVERY_LIMIT_S,
                Parameters={"commands": [script], "executionTimeout": [str(int(limit_s) + 1)]},
            )["Command"]
            invocation = self._wait(command["CommandId"], limit_s + _DELIVERY_LIMIT_S)
        if invocation["Status"] != "Success":
            raise ServiceUnavailable(
                f"the command on {self._instance} ended as {invocation['Status']} ({invocation['StatusDetails']}): "
                f"{invocation['StandardErrorContent'].strip()[-500:]}"
            )
        return invocation

    def _wait(self, command_id: str, limit_s: float) -> Mapping[str, Any]:
        waited, pace = 0.0, 0
        while waited < limit_s:
            self._sleep(_PACES[pace])
            waited, pace = waited + _PACES[pace], min(pace + 1, len(_PACES) - 1)
            try:
                found = self._client.get_command_invocation(CommandId=command_id, InstanceId=self._instance)
            except ClientError as error:
                if error_code(error) == "InvocationDoesNotExist":  # not yet: the command was only just taken
                    continue
                raise
            if found["Status"] not in _WAITING:
                return dict(found)
        raise ServiceUnavailable(f"the command on {self._instance} had not ended after {limit_s:.0f} seconds")


def _unpacked(text: str) -> bytes:
    try:
        return gzip.decompress(base64.b64decode(text, validate=True))
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ServiceUnavailable(f"the answer through Systems Manager was cut off: {error}") from error
