"""A shell on another machine, as small as what is asked of it. SSH and Systems Manager are its two implementations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from airflow_dlaws.errors import ServiceUnavailable

#: Everything a launcher asks takes a second or two; a head node that needs longer is in trouble.
DEFAULT_LIMIT_S = 120
#: What a login shell prints before (a message of the day) is not the script's.
_MARK = b"=== dlaws ===\n"
#: Reads the whole script first, so that no command in it can swallow the rest; works whatever the user's own shell is.
#: A login shell: Slurm's programs are on the path that /etc/profile.d makes.
COMMAND = "exec bash -lc 'eval \"$(cat)\"'"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a script has printed, and its exit code."""

    code: int
    stdout: bytes
    stderr: str


class Shell(Protocol):
    """Runs scripts for bash on one machine."""

    def prepare(self) -> None:
        """Ask now for what is needed from others than that machine, so that `run` need not."""

    def run(self, script: str, *, limit_s: float = DEFAULT_LIMIT_S) -> Answer:
        """Run a script and return what it has printed.

        :raises ServiceUnavailable: the machine cannot be reached now, or was not ready within `limit_s` seconds. The
            script may have run, wholly or in part.
        :raises ServiceRefused: it will not let us in.
        """


def marked(script: str) -> str:
    """Return the script with a mark where its own output begins."""
    return f"printf '%s\\n' '{_MARK.decode().strip()}'\n{script}"


def after_mark(stdout: bytes) -> bytes:
    """Return what a marked script has printed.

    :raises ServiceUnavailable: it never ran: the login shell has ended before, as a profile's `exit 0` during
        maintenance has it do. An empty answer would say that there is no such job.
    """
    before, mark, after = stdout.partition(_MARK)
    if not mark:
        words = before.decode(errors="replace").strip()[-300:]
        raise ServiceUnavailable(f"the login shell has ended before it ran anything; it said {words!r}")
    return after
