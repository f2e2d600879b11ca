"""Lines of a file that comes in pieces, in bounded memory whatever stands in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: InvokeEndpoint takes 6 MiB (botocore's service model), in base64 8 MiB; the same again for the response and as much
#: for escapes. A line of JSON can take twenty times its length in memory, so this also bounds what one line may cost.
MAX_LINE_BYTES = 24 * 1024 * 1024


def capped_lines(pieces: Iterable[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[bytes | None]:
    """Yield the lines of `pieces` without their newlines; None stands for a line of more than `limit` bytes.

    Never holds more than one line of `limit` bytes and one piece.
    """
    parts: list[bytes] = []
    size = 0
    for piece in pieces:
        first, *others = piece.split(b"\n")
        size += len(first)
        parts = [*parts, first] if size <= limit else []
        if not others:
            continue
        yield _joined(parts, size, limit)
        *whole, rest = others
        for line in whole:
            yield _joined([line], len(line), limit)
        size = len(rest)
        parts = [rest] if size <= limit else []
    if size:
        yield _joined(parts, size, limit)


def _joined(parts: list[bytes], size: int, limit: int) -> bytes | None:
    return b"".join(parts) if size <= limit else None
