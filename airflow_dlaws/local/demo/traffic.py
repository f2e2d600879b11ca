"""Requests to the endpoint: a month of flights replayed in bulk, and a steady stream of single flights."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

#: Enough senders that a slow answer does not lower the rate; the clients are cheap.
_SENDERS = 4


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    at: float
    seconds: float
    variant: str
    error: str = ""


def feature_rows(month_file: Path, count: int) -> list[str]:
    """Return `count` rows of a month, spread evenly over it in time order, without the label (the first column)."""
    lines = month_file.read_text().splitlines()[1:]
    step = max(1.0, len(lines) / count)
    return [lines[int(n * step)].partition(",")[2] for n in range(min(count, len(lines)))]


class Sender:
    """Sends rows to one endpoint."""

    def __init__(self, client: Any, endpoint_name: str) -> None:
        self._client = client
        self._endpoint = endpoint_name

    def send(self, rows: Sequence[str], inference_id: str) -> Answer:
        """Send one request with one or more rows; a refused or failed request is an answer too."""
        at, started = time.time(), time.monotonic()
        try:
            answer = self._client.invoke_endpoint(
                EndpointName=self._endpoint, ContentType="text/csv", Body="\n".join(rows), InferenceId=inference_id
            )
            answer["Body"].read()
        except (ClientError, BotoCoreError) as error:
            return Answer(at, time.monotonic() - started, "", str(error)[:300])
        return Answer(at, time.monotonic() - started, answer.get("InvokedProductionVariant", ""))

    def replay(self, month: str, rows: Sequence[str], rows_per_request: int) -> list[Answer]:
        """Send all rows as fast as the endpoint takes them."""
        chunks = [rows[n : n + rows_per_request] for n in range(0, len(rows), rows_per_request)]
        names = [f"{month}-{n:05d}" for n in range(len(chunks))]
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self.send, chunks, names))


class Stream:
    """Sends single rows at a steady rate until stopped; use as a context manager."""

    def __init__(self, sender: Sender, rows: Sequence[str], per_second: float) -> None:
        self.answers: list[Answer] = []
        self._sender, self._rows, self._interval = sender, rows, 1 / per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failed(self) -> int:
        """How many requests got no prediction so far."""
        return sum(bool(answer.error) for answer in self.answers)

    def _run(self) -> None:
        rows, due = itertools.cycle(self._rows), time.monotonic()
        with ThreadPoolExecutor(_SENDERS) as pool:
            for n in itertools.count():
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                due = max(due + self._interval, time.monotonic() - 1)
                future = pool.submit(self._sender.send, [next(rows)], f"live-{n:07d}")
                future.add_done_callback(lambda done: self.answers.append(done.result()))
