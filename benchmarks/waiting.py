"""What do a thousand waiting training tasks cost a triggerer, and are their ends noticed? Beside the Amazon provider.

    make bench-waiting

Both kinds of trigger wait for the same 1,000 jobs, each in one event loop of a process of its own, polling every 30 s,
against the local AWS, whose jobs stand in a table here (`waiting_server.py`). Calls are counted at the server; CPU
(user and system), peak memory and the loop's lag are taken from the waiting process (`waiting_client.py`). Each is
measured in two windows: two minutes from the start of its triggers, which is what a triggerer pays after each restart,
and a minute later on, when all of them are waiting (`steady`). The bars are judged over both windows together: at first
the peer is busy with making its clients and polls half of the jobs that are due, afterwards it polls them all. The
server's own CPU is shown too: did it hold anybody up? Then, for ours: 5,000 jobs of other teams join, which end and
begin all the time, and every third call is throttled; in each of these, some jobs end. The peer has a virtual
environment of its own under .dlaws, for aiobotocore wants an older boto3.

Takes about ten minutes. Exits 1 where a figure misses its bar.
"""

from __future__ import annotations

import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".dlaws" / "bench-waiting"
RESULT = ROOT / "benchmarks" / "results" / "waiting.json"
#: What the Amazon provider's triggers need beside what is installed.
PEER_NEEDS = ["aiobotocore==3.10.0", "boto3==1.43.117"]
TASKS, POLL_S = 1_000, 30
PEER, OURS = "Amazon provider's SageMakerTrigger", "ours"
#: Jobs of other teams: a month's, and those created since the oldest of ours, which run and end.
STRANGERS = {"old": 4_500, "new": 500}
#: Four polls of each job, and two.
START_S, STEADY_S = 120, 60
#: The peer makes its clients one after the other, and where the machine is busy that takes longer than START_S.
SETTLED_S = 420
#: As long as noticing may take, and a little.
STRANGERS_S, THROTTLED_S = 65, 125
#: How long the server may take to answer the bench itself.
ANSWER_S = 300
#: Jobs that end in each phase, at once.
ENDING = 20
#: The shares of the peer's calls, CPU and memory that may be used, and the longest lag in seconds.
BARS = {"calls_per_minute": 1 / 40, "cpu_s_per_minute": 1 / 20, "peak_mb": 1 / 8}
LAG_BAR_S = 0.5
NOTICED_BAR_S = 2 * POLL_S
#: With every third call throttled, botocore's adaptive mode slows down all others too: late is allowed, lost is not.
THROTTLED_BAR_S = 4 * POLL_S


class Server:
    """The process of the local AWS."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url
        #: Its books before anybody waits.
        self.at_start: tuple[dict[str, int], float] = ({}, 0.0)

    def ask(self, what: str, **arguments: Any) -> Any:
        """Ask the bench's own part of the server, which a thousand new clients may keep busy."""
        request = urllib.request.Request(f"{self.url}/_bench/{what}", data=json.dumps(arguments).encode())
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.load(answer)

    def books(self) -> tuple[dict[str, int], float]:
        """Return the calls so far, by operation, and the server's CPU seconds."""
        state = self.ask("state")
        return dict(state["calls"]), float(state["cpu_s"])


class Client:
    """The process of the triggers."""

    def __init__(self, process: subprocess.Popen[str], reports: Path) -> None:
        self.process, self._reports = process, reports

    def mark(self) -> None:
        """Have it begin to measure."""
        self._say("mark")

    def report(self) -> dict[str, Any]:
        """Return what it has measured since."""
        before = len(self.written("report"))
        self._say("report")
        wait_until(lambda: len(self.written("report")) > before, 60, "the client reports")
        return self.written("report")[-1]

    def written(self, key: str) -> list[dict[str, Any]]:
        """Return what it has written down so far, of one kind."""
        rows = [json.loads(line) for line in self._reports.read_text().splitlines()]
        return [row for row in rows if key in row]

    def _say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()


def wait_until(condition: Any, limit_s: float, what: str) -> None:
    """Wait for something that must come true."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"not within {limit_s} s: {what}")
        time.sleep(0.2)


@contextmanager
def server() -> Iterator[Server]:
    """Start the service; end it whatever happens."""
    home = HOME / f"server-{os.getpid()}-{time.monotonic_ns()}"
    home.mkdir(parents=True)
    command = [sys.executable, str(ROOT / "benchmarks" / "waiting_server.py"), str(home)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        wait_until(lambda: (home / "url").exists() or process.poll() is not None, 60, "the server starts")
        yield Server(process, (home / "url").read_text())
    finally:
        process.kill()
        process.wait()


@contextmanager
def client(python: Path, kind: str, names: list[str], service: Server) -> Iterator[Client]:
    """Start the triggers; end them whatever happens."""
    home = HOME / f"{kind}-{os.getpid()}"
    home.mkdir(parents=True, exist_ok=True)
    (home / "names.json").write_text(json.dumps(names))
    reports = home / "reports.jsonl"
    program = ROOT / "benchmarks" / "waiting_client.py"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home / "airflow"),
        "PYTHONPATH": str(ROOT),
        "AWS_ENDPOINT_URL": service.url,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [str(python), str(program), kind, str(home / "names.json"), str(reports), "--poll", str(POLL_S)]
    service.at_start = service.books()
    with (home / "client.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, text=True)
    try:
        waiting = Client(process, reports)
        wait_until(lambda: reports.exists() and waiting.written("began"), 60, f"{kind} starts")
        yield waiting
    finally:
        process.kill()
        process.wait()


def peer_python() -> Path:
    """Return the peer's interpreter; its environment adds what it needs to this one's packages."""
    folder = HOME / "peer"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        (own,) = folder.glob("lib/python*/site-packages")
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (own / "beside.pth").write_text("".join(f"import sys; sys.path.append({path!r})\n" for path in ours))
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER_NEEDS], check=True)
        subprocess.run([python, "-m", "compileall", "-q", own], check=False, stdout=subprocess.DEVNULL)
        (folder / "ready").touch()
    return python


def measure(service: Server, waiting: Client, seconds: float, *, start: bool = False) -> dict[str, Any]:
    """Return what both sides count in so many seconds, for each minute; `start`: from the start of the triggers."""
    if start:
        began, (before, cpu) = waiting.written("began")[0]["began"], service.at_start
    else:
        waiting.mark()
        began, (before, cpu) = time.time(), service.books()
    time.sleep(max(0.0, began + seconds - time.time()))
    report, (after, cpu_after) = waiting.report()["report"], service.books()
    minutes = report["seconds"] / 60
    calls = {name.rpartition(".")[2]: count - before.get(name, 0) for name, count in after.items()}
    calls = {name: count for name, count in calls.items() if count}
    throttled = calls.pop("throttled", 0)
    return {
        "calls_per_minute": round(sum(calls.values()) / minutes, 1),
        "cpu_s_per_minute": round(report["cpu_s"] / minutes, 2),
        "peak_mb": round(report["peak_mb"]),
        "lag_s": round(report["lag_s"], 3),
        "seconds": round(report["seconds"], 1),
        "calls": dict(sorted(calls.items())),
        "throttled": throttled,
        "server_cpu_s_per_minute": round((cpu_after - cpu) / minutes, 2),
    }


def from_the_start(way: str, service: Server, waiting: Client) -> list[dict[str, Any]]:
    """Measure from the start of the triggers, and again when all are waiting."""
    start = measure(service, waiting, START_S, start=True)
    asked = sum(start["calls"].values())
    if way == PEER:  # one call for each job and poll: has the last of them been asked for twice?
        wait_until(lambda: sum(service.books()[0].values()) >= 2 * TASKS, SETTLED_S, f"{asked} calls, and all wait")
    steady = measure(service, waiting, STEADY_S)
    return [
        {"way": way, **together(start, steady)},
        {"way": f"{way}, from the start", **start},
        {"way": f"{way}, steady", **steady},
    ]


def together(*windows: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of several windows as those of one."""
    seconds = sum(row["seconds"] for row in windows)
    per_minute = ("calls_per_minute", "cpu_s_per_minute", "server_cpu_s_per_minute")
    return {
        **{name: round(sum(row[name] * row["seconds"] for row in windows) / seconds, 2) for name in per_minute},
        **{name: max(row[name] for row in windows) for name in ("peak_mb", "lag_s")},
        "seconds": round(seconds, 1),
    }


def phase(service: Server, waiting: Client, ending: list[str], seconds: float) -> dict[str, Any]:
    """Have jobs end, and return what is measured and how late the last end was noticed."""
    began = service.ask("end", names=ending)
    row = measure(service, waiting, seconds)
    told = {event["name"]: event for event in waiting.written("name")}
    late = [told[name]["at"] - began for name in ending if name in told]
    row |= {"ended": len(ending), "noticed": len(late), "noticed_after_s": round(max(late, default=0.0), 1)}
    return row


def peer() -> list[dict[str, Any]]:
    """Measure the Amazon provider's trigger."""
    python = peer_python()
    with server() as service:
        names = service.ask("jobs", ours=TASKS)
        with client(python, "stock", names, service) as waiting:
            rows = from_the_start(PEER, service, waiting)
            fired = waiting.written("name")
    if fired:
        raise SystemExit(f"{len(fired)} of the peer's triggers have fired though no job has ended: {fired[:3]}")
    return rows


def ours() -> tuple[list[dict[str, Any]], list[str]]:
    """Measure ours: alone, among strangers, throttled; return the rows, and what has gone wrong."""
    with server() as service:
        names = service.ask("jobs", ours=TASKS)
        ending = random.Random(0).sample(names, 2 * ENDING)
        with client(Path(sys.executable), "ours", names, service) as waiting:
            rows = from_the_start(OURS, service, waiting)
            service.ask("strangers", **STRANGERS)
            row = phase(service, waiting, ending[:ENDING], STRANGERS_S)
            rows.append({"way": f"{OURS}, among 5,000 jobs of others", **row})
            service.ask("throttle", every=3)
            row = phase(service, waiting, ending[ENDING:], THROTTLED_S)
            rows.append({"way": "the same, every third call throttled", **row})
            service.ask("throttle", every=0)
            return rows, faults(service, waiting, ending)


def faults(service: Server, waiting: Client, ending: list[str]) -> list[str]:
    """Return what a task would have suffered from: a wrong end, a lost or repeated line."""
    found = []
    events = waiting.written("name")
    if sorted(event["name"] for event in events) != sorted(ending):
        found.append(f"{len(events)} triggers have fired, not the {len(ending)} whose jobs have ended")
    printed = service.ask("state")["lines"]
    for event in events:
        if event.get("error") or event["payload"]["kind"] != "finished" or event["payload"]["status"] is None:
            found.append(f"{event['name']}: {event.get('error') or event['payload']}")
        elif event["lines"] != list(range(1, printed[event["name"]] + 1)):
            found.append(f"{event['name']} has printed {printed[event['name']]} lines, {event['lines']} were heard")
    report = waiting.report()
    if report["gaps"]:
        found.append(f"lines lost or repeated in {len(report['gaps'])} jobs, such as {report['gaps'][:3]}")
    if report["heard"] < TASKS:
        found.append(f"only {report['heard']} of {TASKS} jobs were heard")
    return found


def misses(stock: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """Return what falls short of the bars."""
    found = []
    for figure, share in BARS.items():
        bar = share * stock[0][figure]
        if rows[0][figure] > bar:
            found.append(f"{figure} {rows[0][figure]}, the bar is {bar:.3g} (a share of {share:.3g})")
    for row, bar in zip(rows[3:], (NOTICED_BAR_S, THROTTLED_BAR_S), strict=True):
        if row["noticed"] < row["ended"] or row["noticed_after_s"] > bar:
            found.append(f"{row['way']}: {row['noticed']} of {row['ended']} noticed, in {row['noticed_after_s']} s")
    found += [f"{row['way']}: the loop has lagged by {row['lag_s']} s" for row in rows if row["lag_s"] >= LAG_BAR_S]
    return found


def main() -> int:
    """Measure both, print the table, write the file."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    stock = peer()
    print(json.dumps(stock), flush=True)
    rows, wrong = ours()
    columns = ["way", "calls_per_minute", "cpu_s_per_minute", "peak_mb", "lag_s", "noticed_after_s"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in [*stock, *rows]:
        print("| " + " | ".join(str(row.get(name, "")) for name in columns) + " |")
    found = [*misses(stock, rows), *wrong]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    date = datetime.now(UTC).date().isoformat()
    document = {"date": date, "machine": machine, "tasks": TASKS, "poll_s": POLL_S, "rows": [*stock, *rows]}
    RESULT.write_text(json.dumps({**document, "misses": found}, indent=1) + "\n")
    print("".join(f"MISSED: {miss}\n" for miss in found) or "every bar is met")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
