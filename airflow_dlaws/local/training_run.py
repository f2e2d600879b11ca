"""Runs one training job from start to end: real processes on one or several hosts, real files, real logs."""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import dataclass

from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.isolation import HostProgram
from airflow_dlaws.local.job_logs import HostLog, LogStream, MetricReader, put_metric
from airflow_dlaws.local.sandbox import HostExit, Sandbox
from airflow_dlaws.local.training_container import container_programs, make_folders
from airflow_dlaws.local.training_input import ChannelLoader, InputFault
from airflow_dlaws.local.training_job import SecondaryStatus, TrainingJob
from airflow_dlaws.local.training_output import Artifacts, Checkpoints, failure_text

#: Waits of AWS's, shorter than its minutes but long enough to be seen; the time scale multiplies them.
STARTING_SECONDS = 2.0
UPLOADING_SECONDS = 1.0
#: From SIGTERM to SIGKILL, as StopTrainingJob documents it.
STOP_GRACE_SECONDS = 120.0
#: How long the other hosts may take to end and say why when one has failed. AWS names no figure.
PEER_GRACE_SECONDS = 20.0
#: How often logs are shipped; a person who watches does not notice.
_LOG_SECONDS = 0.2
#: How often checkpoints are looked at; AWS syncs "as they are written".
_CHECKPOINT_SECONDS = 1.0
_LOG_GROUP = "/aws/sagemaker/TrainingJobs"


class JobFault(Exception):
    """The job fails; the text is its FailureReason."""


@dataclass(frozen=True)
class _Ended:
    """How training ended."""

    state: SecondaryStatus
    exits: tuple[HostExit, ...] = ()


class TrainingRun:
    """One job, performed by one thread."""

    def __init__(self, context: LocalContext, job: TrainingJob, region: str) -> None:
        self._context, self._job, self._region = context, job, region
        self._request = job.request
        self._hosts = [f"algo-{number}" for number in range(1, self._request["ResourceConfig"]["InstanceCount"] + 1)]
        self._folder = context.state_dir / "jobs" / region / job.name
        self._folders = [self._folder / host for host in self._hosts]
        self._s3 = context.client("s3", region)
        self._checkpoints = (
            Checkpoints(self._s3, self._request["CheckpointConfig"], self._folders)
            if "CheckpointConfig" in self._request
            else None
        )

    def perform(self) -> None:
        """Take the job to one of its ends."""
        try:
            self._perform()
        except (JobFault, InputFault) as fault:
            self._job.finish(SecondaryStatus.FAILED, reason=str(fault))
        except Exception as error:
            traceback.print_exc()
            self._job.finish(SecondaryStatus.FAILED, reason=f"InternalServerError: the local AWS failed: {error!r}")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _perform(self) -> None:
        if not self._pause(STARTING_SECONDS):
            return self._job.finish(SecondaryStatus.STOPPED)
        if self._context.faults.take("capacity", "CreateTrainingJob"):
            raise JobFault(
                "CapacityError: Unable to provision requested ML compute capacity. "
                "Please retry using a different ML instance type."
            )
        self._job.enter(SecondaryStatus.DOWNLOADING)
        programs = self._prepare()
        if self._job.stop_requested.is_set():
            return self._job.finish(SecondaryStatus.STOPPED)
        self._job.enter(SecondaryStatus.TRAINING)
        ended = self._train(programs)
        return self._conclude(ended)

    def _prepare(self) -> list[HostProgram]:
        image = self._request["AlgorithmSpecification"]["TrainingImage"]
        image_folder = self._context.images.folder(image)
        if image_folder is None:
            raise JobFault(
                "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are "
                f"incorrect: {self._context.images.how_to_register(image)}"
            )
        make_folders(self._job, self._folder, self._hosts)
        ChannelLoader(self._s3, self._request, self._region).load(self._folders)
        if self._checkpoints:
            self._checkpoints.restore()
        return container_programs(self._job, self._region, self._folder, self._hosts, image_folder)

    def _train(self, programs: list[HostProgram]) -> _Ended:
        logs = self._logs(programs)
        sandbox = Sandbox(self._folder, programs, own_network=True, state_dir=self._context.state_dir)
        try:
            return self._watch(sandbox, logs)
        finally:
            sandbox.close()
            for log in logs:
                log.ship(last=True)
            if self._checkpoints:
                self._checkpoints.upload_changes()

    def _logs(self, programs: list[HostProgram]) -> list[HostLog]:
        client = self._context.client("logs", self._region)
        metrics = MetricReader(self._request["AlgorithmSpecification"].get("MetricDefinitions", []))
        epoch = int(time.time())
        return [
            HostLog(
                program.log,
                LogStream(client, _LOG_GROUP, f"{self._job.name}/{program.name}-{epoch}"),
                metrics,
                self._note_metric,
            )
            for program in programs
        ]

    def _note_metric(self, name: str, value: float) -> None:
        now = self._context.now()
        self._job.record_metric(name, value, now)
        put_metric(self._context.client("cloudwatch", self._region), self._job.name, name, value, now)

    def _watch(self, sandbox: Sandbox, logs: list[HostLog]) -> _Ended:
        """Look after the running hosts until they have ended, or must end."""
        deadline = time.monotonic() + self._job.max_runtime
        next_sync = time.monotonic() + _CHECKPOINT_SECONDS
        while not sandbox.wait(_LOG_SECONDS):
            for log in logs:
                log.ship()
            if self._checkpoints and time.monotonic() >= next_sync:
                self._checkpoints.upload_changes()
                next_sync = time.monotonic() + _CHECKPOINT_SECONDS
            if self._context.closing.is_set():
                raise JobFault("InternalServerError: the local AWS went down")
            if self._job.stop_requested.is_set():
                self._end(sandbox, logs, STOP_GRACE_SECONDS)
                return _Ended(SecondaryStatus.STOPPED)
            if time.monotonic() >= deadline:
                self._end(sandbox, logs, STOP_GRACE_SECONDS)
                return _Ended(SecondaryStatus.MAX_RUNTIME_EXCEEDED)
            if any(ended.code for ended in sandbox.exits):
                exits = tuple(sandbox.exits)
                self._end(sandbox, logs, PEER_GRACE_SECONDS)
                return _Ended(SecondaryStatus.FAILED, exits)
        exits = tuple(sandbox.exits)
        if len(exits) < len(self._hosts):
            raise JobFault("InternalServerError: We encountered an internal error. Please try again.")
        good = all(ended.code == 0 for ended in exits)
        return _Ended(SecondaryStatus.COMPLETED if good else SecondaryStatus.FAILED, exits)

    def _end(self, sandbox: Sandbox, logs: list[HostLog], grace: float) -> None:
        """SIGTERM, the grace period, SIGKILL; logs go on meanwhile."""
        sandbox.terminate()
        deadline = time.monotonic() + self._context.scaled(grace)
        while not sandbox.wait(_LOG_SECONDS) and time.monotonic() < deadline and not self._context.closing.is_set():
            for log in logs:
                log.ship()
        sandbox.kill()

    def _conclude(self, ended: _Ended) -> None:
        artifacts = Artifacts(self._s3, self._request)
        if ended.state is SecondaryStatus.FAILED:
            artifacts.upload([folder / "output" / "data" for folder in self._folders], "output")
            raise JobFault(self._failure(ended.exits))
        state = SecondaryStatus.STOPPED if self._job.stop_requested.is_set() else ended.state
        self._job.enter(SecondaryStatus.UPLOADING)
        self._context.wait(UPLOADING_SECONDS)
        model = artifacts.upload([folder / "model" for folder in self._folders], "model")
        artifacts.upload([folder / "output" / "data" for folder in self._folders], "output")
        self._job.finish(state, artifact=model)

    def _failure(self, exits: tuple[HostExit, ...]) -> str:
        first = next(ended for ended in exits if ended.code)
        if first.cannot_start:
            image = self._request["AlgorithmSpecification"]["TrainingImage"]
            return (
                "AlgorithmError: CannotStartContainerError. Please make sure the container can be run with "
                f"'docker run {image} train'. ({first.cannot_start})"
            )
        own = failure_text(self._folder / first.host)
        others = [failure_text(folder) for folder in self._folders]
        text = own or next(filter(None, others), "")
        ending = f", exit code: {first.code}"
        return f"AlgorithmError: {text[: 1024 - len(ending) - len('AlgorithmError: ')]}{ending}"

    def _pause(self, seconds: float) -> bool:
        """Wait as AWS would; return False where the job is to stop."""
        deadline = time.monotonic() + self._context.scaled(seconds)
        while (left := deadline - time.monotonic()) > 0 and not self._context.closing.is_set():
            if self._job.stop_requested.wait(min(left, _LOG_SECONDS)):
                return False
        return not self._job.stop_requested.is_set() and not self._context.closing.is_set()
