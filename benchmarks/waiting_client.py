"""The triggerer's side of `waiting.py`: a thousand triggers in one event loop, and what they cost this process.

It measures from the moment before the first trigger is started, and says so in its first line. Reads a command from
each line of standard input ("mark": begin to measure; "report": write down what was measured) and writes JSON lines
into the file it is given: a report, or the end of a job as its trigger has told it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import re
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

#: The heartbeat: how much later than this does the loop come back?
BEAT_S = 0.05
DAY_S = 86_400


class Meter:
    """What this process has used since the last mark."""

    def __init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        """Begin to measure."""
        self._began, self._cpu, self._worst = time.monotonic(), self._cpu_now(), 0.0

    def report(self) -> dict[str, float]:
        """Return seconds, CPU seconds, the peak of memory in MB and the worst lag of the loop in seconds."""
        return {
            "seconds": time.monotonic() - self._began,
            "cpu_s": self._cpu_now() - self._cpu,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "lag_s": self._worst,
        }

    async def beat(self) -> None:
        """Feel the pulse of the loop, for ever."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(BEAT_S)
            self._worst = max(self._worst, time.monotonic() - before - BEAT_S)

    def _cpu_now(self) -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime


def stock_trigger(name: str, poll: int, lines: dict[str, list[int]]) -> Any:
    """Return the Amazon provider's trigger."""
    from airflow.providers.amazon.aws.triggers.sagemaker import SageMakerTrigger

    return SageMakerTrigger(
        job_name=name, job_type="training", waiter_delay=poll, waiter_max_attempts=480, aws_conn_id=None
    )


def our_trigger(name: str, poll: int, lines: dict[str, list[int]]) -> Any:
    """Return this package's trigger; it also writes down the numbers of the lines it reports."""
    from airflow_dlaws.jobs.reference import JobReference
    from airflow_dlaws.jobs.wire import to_json
    from airflow_dlaws.launchers.watch import Look
    from airflow_dlaws.triggers.job import JobTrigger

    class ListeningTrigger(JobTrigger):
        def _report(self, look: Look) -> None:
            super()._report(look)
            lines.setdefault(name, []).extend(int(re.sub(r".*line ", "", line)) for line in look.lines)

    reference = JobReference(engine="sagemaker", name=name, arn=f"arn:{name}", region="us-east-1")
    return ListeningTrigger(
        connection={"aws_conn_id": None},
        reference=to_json(reference),
        poll_interval=poll,
        deadline=time.time() + DAY_S,
    )


TRIGGERS = {"stock": stock_trigger, "ours": our_trigger}
#: What is imported once in the life of a triggerer is not what waiting costs.
IMPORTED_BEFORE = {
    "stock": ("aiobotocore.session", "airflow.providers.amazon.aws.hooks.sagemaker"),
    "ours": ("boto3.session", "airflow.providers.amazon.aws.hooks.base_aws", "airflow_dlaws.launchers.sagemaker"),
}


async def wait_for_jobs(make: Callable[..., Any], names: list[str], poll: int, write: Callable[..., None]) -> None:
    """Run all triggers until told to end."""
    loop, ended, meter = asyncio.get_running_loop(), asyncio.Event(), Meter()
    lines: dict[str, list[int]] = {}

    async def one(name: str) -> None:
        try:
            async for event in make(name, poll, lines).run():
                write(name=name, at=time.time(), payload=event.payload, lines=lines.get(name))
                return
        except Exception as error:
            write(name=name, at=time.time(), error=repr(error))

    def obey(command: str) -> None:
        if command == "mark":
            meter.mark()
        elif command == "report":
            gaps = [name for name, seen in lines.items() if seen != list(range(1, len(seen) + 1))]
            write(report=meter.report(), lines=sum(map(len, lines.values())), heard=len(lines), gaps=gaps)
        else:
            ended.set()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(obey, line.strip())
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=listen, daemon=True).start()
    pulse, tasks = asyncio.create_task(meter.beat()), []
    meter.mark()
    write(began=time.time())
    for name in names:
        tasks.append(asyncio.create_task(one(name)))
        await asyncio.sleep(0)  # as Airflow's triggerer does between two triggers
    await ended.wait()
    for task in (pulse, *tasks):
        task.cancel()
    await asyncio.gather(pulse, *tasks, return_exceptions=True)


def main() -> None:
    """Wait for the jobs named in a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=TRIGGERS)
    parser.add_argument("names", type=argparse.FileType())
    parser.add_argument("reports", type=argparse.FileType("w"))
    parser.add_argument("--poll", type=int, default=30)
    chosen = parser.parse_args()

    def write(**report: Any) -> None:
        print(json.dumps(report, default=str), file=chosen.reports, flush=True)

    for module in IMPORTED_BEFORE[chosen.kind]:
        importlib.import_module(module)
    TRIGGERS[chosen.kind]("job", chosen.poll, {})
    asyncio.run(wait_for_jobs(TRIGGERS[chosen.kind], json.load(chosen.names), chosen.poll, write))


if __name__ == "__main__":
    main()
