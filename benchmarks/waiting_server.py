"""The service side of `waiting.py`: the local AWS, with jobs that stand in its table and run nowhere.

Everything that answers is the local AWS's own code (lists, descriptions) and moto's (logs). What is done here: the
table is filled, calls are counted, every n-th can be throttled, jobs print a line now and then, and end when told.

    GET  /_bench/state                       calls by operation, CPU seconds of this process, and the lines printed by
                                             each job that has ended
    POST /_bench/jobs      {"ours": 1000}    jobs that are waited for, created over the last eight hours
    POST /_bench/strangers {"old": 1, "new": 1}  other teams' jobs from before, and from among ours
    POST /_bench/end       {"names": [...]}  jobs end, after a last line
    POST /_bench/throttle  {"every": 3}      0 ends it
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.logs.models import logs_backends
from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import moto_seams
from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.images import ImageRegistry
from airflow_dlaws.local.server import Router
from airflow_dlaws.local.training import TrainingJobs
from airflow_dlaws.local.training_job import SecondaryStatus, TrainingJob

REGION, GROUP = "us-east-1", "/aws/sagemaker/TrainingJobs"
DAGS = ("churn", "fraud_scores", "nightly_forecast", "search_ranking", "speech_to_text", "vision_defects", "eta")
#: Jobs that print a line each second: 1,000 jobs print one every 50 seconds.
PRINTING = 20
REQUEST = {
    "RoleArn": "arn:aws:iam::123456789012:role/jobs",
    "OutputDataConfig": {"S3OutputPath": "s3://bench/out"},
    "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 86_400},
}


class Bench:
    """The application in front of the local AWS."""

    def __init__(self, folder: Path) -> None:
        server = moto_seams.http_server(self, 0)
        self.url = f"http://127.0.0.1:{server.server_port}"
        self._context = LocalContext(state_dir=folder, endpoint_url=self.url, images=ImageRegistry({}), time_scale=1.0)
        self._router = Router(self._context)
        self._table = self._find_table()
        self._logs = logs_backends[DEFAULT_ACCOUNT_ID][REGION]
        self._logs.create_log_group(GROUP, {})
        self._chance, self._lock = random.Random(0), threading.Lock()
        self._calls: Counter[str] = Counter()
        self._every, self._count = 0, 0
        self._lines: dict[str, int] = {}
        self._streams: dict[str, str] = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=self._print_for_ever, daemon=True).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/_bench/"):
            request = Request(environ)
            answer = getattr(self, "_do_" + request.path.rpartition("/")[2])(
                **(json.loads(request.get_data(parse_form_data=False) or b"{}"))
            )
            return Response(json.dumps(answer), content_type="application/json")(environ, start_response)
        with self._lock:
            self._calls[environ.get("HTTP_X_AMZ_TARGET", "other")] += 1
            self._count += 1
            throttled = self._every and self._count % self._every == 0
            self._calls["throttled"] += bool(throttled)
        if throttled:
            fault = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"})
            answer = Response(fault, 400, {"x-amzn-ErrorType": "ThrottlingException"})
            return answer(environ, start_response)
        return self._router(environ, start_response)

    def _do_state(self) -> dict[str, Any]:
        with self._lock:
            ended = {name: count for name, count in self._lines.items() if self._table[name].ended}
            return {"calls": dict(self._calls), "lines": ended, "cpu_s": time.process_time()}

    def _do_jobs(self, ours: int) -> list[str]:
        now = datetime.now(UTC)
        names = []
        for number in range(ours):
            dag = DAGS[number % len(DAGS)]
            name = f"{dag.replace('_', '-')}-train-{hashlib.sha256(str(number).encode()).hexdigest()[:16]}"
            self._add(name, now - timedelta(seconds=self._chance.uniform(60, 8 * 3600)))
            self._streams[name] = f"{name}/algo-1-{int(time.time())}"
            self._logs.create_log_stream(GROUP, self._streams[name])
            self._lines[name] = 0
            names.append(name)
        for name in names:
            self._print(name)
        return names

    def _do_strangers(self, old: int, new: int) -> int:
        now = datetime.now(UTC)
        for number in range(old):
            created = now - timedelta(hours=self._chance.uniform(8, 24 * 30))
            self._end(self._add(f"other-team-{number:05}", created), last_line=False)
        for number in range(new):
            created = now - timedelta(seconds=self._chance.uniform(0, 8 * 3600))
            self._add(f"other-team-running-{number:05}", created)
        threading.Thread(target=self._change_strangers, daemon=True).start()
        return old + new

    def _do_end(self, names: list[str]) -> float:
        for name in names:
            self._end(self._table[name], last_line=True)
        return time.time()

    def _do_throttle(self, every: int) -> int:
        self._every, self._count = every, 0
        return every

    def _find_table(self) -> dict[str, TrainingJob]:
        (resource,) = [each for each in self._router._sagemaker._resources if isinstance(each, TrainingJobs)]
        return resource._jobs._regions[REGION].jobs

    def _add(self, name: str, created: datetime) -> TrainingJob:
        arn = f"arn:aws:sagemaker:{REGION}:{DEFAULT_ACCOUNT_ID}:training-job/{name}"
        job = TrainingJob({**REQUEST, "TrainingJobName": name}, arn, self._context.now)
        job.enter(SecondaryStatus.DOWNLOADING)
        job.enter(SecondaryStatus.TRAINING)
        job.created = job.modified = created
        self._table[name] = job
        return job

    def _end(self, job: TrainingJob, *, last_line: bool) -> None:
        if last_line:
            self._print(job.name)
        job.finish(SecondaryStatus.COMPLETED, artifact="s3://bench/out/model.tar.gz")

    def _print(self, name: str) -> None:
        with self._lock:
            if self._table[name].ended:
                return
            self._lines[name] += 1
            event = {"timestamp": int(time.time() * 1000), "message": f"line {self._lines[name]}"}
            self._logs.put_log_events(GROUP, self._streams[name], [event])

    def _print_for_ever(self) -> None:
        turn = 0
        while True:
            time.sleep(1)
            names = list(self._lines)
            for name in itertools.islice(itertools.cycle(names or [""]), turn, turn + PRINTING):
                if name:
                    self._print(name)
            turn = (turn + PRINTING) % max(1, len(names))

    def _change_strangers(self) -> None:
        """Each second one of them ends and another is created."""
        running = [job for name, job in self._table.items() if name.startswith("other-team-running") and not job.ended]
        for number, job in enumerate(running):
            time.sleep(1)
            self._end(job, last_line=False)
            self._add(f"other-team-next-{number:05}", datetime.now(UTC))


if __name__ == "__main__":
    home = Path(sys.argv[1])
    home.mkdir(parents=True, exist_ok=True)
    (home / "url").write_text(Bench(home).url)
    sys.stdin.read()  # ends with whoever started it
