"""The log of a job on a cluster: one file, to which srun writes the lines of all hosts, with their numbers in front."""

from __future__ import annotations

import re

from airflow_dlaws.launchers.protocol import LogCursor, LogPage

#: `srun --label` pads the numbers of large jobs.
_LABEL = re.compile(r"\s*(\d+): (.*)")


def read_piece(stdout: bytes, cursor: LogCursor, *, most: int) -> tuple[LogPage, bool]:
    """Read what `log_script` has printed; tell whether there may be more at once.

    A line that is not whole yet is left for the next time, unless the job has ended, or the line alone fills a piece.

    :param most: bytes that the script prints of the log.
    """
    state, _, piece = stdout.partition(b"\n")
    end = piece.rfind(b"\n") + 1
    full = len(piece) >= most
    if (state == b"ended" and not full) or (full and not end):
        end = len(piece)
    lines = tuple(shown(line) for line in piece[:end].splitlines())
    return LogPage(lines=lines, cursor=LogCursor(offset=cursor.offset + end)), full


def read_tail(stdout: bytes) -> tuple[str, ...]:
    """Read what `tail_script` has printed."""
    return tuple(shown(line) for line in stdout.splitlines())


def shown(line: bytes) -> str:
    """Return a line as other engines show it, with the name of its host in front."""
    text = line.decode(errors="replace").rstrip()
    match = _LABEL.fullmatch(text)
    return f"[algo-{int(match.group(1)) + 1}] {match.group(2)}" if match else text
