"""What happened when: told while it happens, kept for the report."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass
class Timeline:
    """Events with seconds since the start of the demo's loop."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    events: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _progress: bool = False

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def tell(self, what: str, *, mark: str = "·") -> None:
        """Print and keep an event."""
        self._end_progress()
        self.events.append({"seconds": round(self.seconds, 1), "what": what})
        print(f"{_clock(self.seconds)}  {mark} {what}", file=self.out, flush=True)

    def progress(self, what: str) -> None:
        """Show what is going on now, on a line that the next one replaces; on no terminal, nothing."""
        if self.out.isatty():
            print(f"\r\x1b[2K{_clock(self.seconds)}    {what[:100]}", end="", file=self.out, flush=True)
            self._progress = True

    def _end_progress(self) -> None:
        if self._progress:
            print("\r\x1b[2K", end="", file=self.out)
            self._progress = False


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
