"""Runs one training job from start to end: real processes on one or several hosts, real files, real logs."""

from __future__ import annotations

import shutil
import time

from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.file_systems import link_where_not_mounted, mounts_of
from airflow_dlaws.local.isolation import HostProgram
from airflow_dlaws.local.job_logs import HostLog, LogStream, MetricReader, put_metric
from airflow_dlaws.local.job_run import (
    STARTING_SECONDS,
    UPLOADING_SECONDS,
    Ended,
    Ending,
    JobFault,
    JobRun,
    cannot_start,
    no_capacity,
    run_hosts,
)
from airflow_dlaws.local.training_container import container_programs, make_folders
from airflow_dlaws.local.training_fate import RETURNING_SECONDS, Fate
from airflow_dlaws.local.training_hosts import Choice, hosts_of
from airflow_dlaws.local.training_input import ChannelLoader
from airflow_dlaws.local.training_job import SecondaryStatus, TrainingJob
from airflow_dlaws.local.training_output import Artifacts, Checkpoints, failure_text

#: How often checkpoints are looked at; AWS syncs "as they are written".
_CHECKPOINT_SECONDS = 1.0
_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
#: Where a job goes that has not failed.
_STATES = {
    Ending.DONE: SecondaryStatus.COMPLETED,
    Ending.STOPPED: SecondaryStatus.STOPPED,
    Ending.OVERTIME: SecondaryStatus.MAX_RUNTIME_EXCEEDED,
    Ending.WAITED: SecondaryStatus.MAX_WAIT_TIME_EXCEEDED,
}


class TrainingRun(JobRun):
    """One job, performed by one thread: one life after the other, each on instances that are new to it."""

    def __init__(self, context: LocalContext, job: TrainingJob, region: str) -> None:
        super().__init__(context, job, context.state_dir / "jobs" / region / job.name)
        self._job, self._region = job, region
        self._request = job.request
        self._s3 = context.client("s3", region)
        self._fate = Fate(context, job)
        self._log_epoch = 0
        #: Whether the job has trained on the instances that it has now: a model may lie there.
        self._has_instances = False
        self._have(job.choices[0] if job.choices else None)

    def _have(self, choice: Choice | None) -> None:
        """Note which hosts these are."""
        self._hosts = hosts_of(self._request["ResourceConfig"], choice)
        self._folders = [self._folder / host.name for host in self._hosts]
        self._checkpoints = (
            Checkpoints(self._s3, self._request["CheckpointConfig"], self._folders)
            if "CheckpointConfig" in self._request
            else None
        )

    def _perform(self) -> None:
        while True:
            ended = self._live()
            if ended.ending is Ending.INTERRUPTED:
                self._job.enter(SecondaryStatus.INTERRUPTED)
            elif ended.ending is Ending.BROKEN and self._fate.may_restart():
                self._job.enter(SecondaryStatus.RESTARTING)
            else:
                break
            self._has_instances = False
            shutil.rmtree(self._folder, ignore_errors=True)  # the next instances know nothing of these
            if not self._pause(RETURNING_SECONDS):
                ended = Ended(Ending.STOPPED)
                break
            self._job.enter(SecondaryStatus.STARTING)
        self._conclude(ended)

    def _live(self) -> Ended:
        """Get instances and train on them until they end, or are taken away."""
        if not self._start("CreateTrainingJob"):
            return Ended(Ending.WAITED if self._fate.waited_too_long() else Ending.STOPPED)
        self._job.enter(SecondaryStatus.DOWNLOADING)
        programs = self._prepare()
        if self._job.stop_requested.is_set():
            return Ended(Ending.STOPPED)
        self._job.enter(SecondaryStatus.TRAINING)
        self._has_instances = True
        self._fate.begin_life()
        return self._train(programs)

    def _start(self, operation: str) -> bool:
        """Find machines; a spot job that finds none waits on, up to MaxWaitTimeInSeconds."""
        if not self._job.spot:
            return self._start_on_demand(operation)
        while self._pause(STARTING_SECONDS):
            if self._fate.waited_too_long():
                return False
            if not self._context.faults.take("capacity", operation):
                return True
        return False

    def _start_on_demand(self, operation: str) -> bool:
        """Find machines: those of a warm pool, or else of the first type that there is; False where it is to stop.

        :raises JobFault: the fault `capacity` is on order for the operation, or for every type of the job.
        """
        faults = self._context.faults
        if self._context.warm_pools.take(self._region, self._request):
            return True
        if not self._pause(STARTING_SECONDS):
            return False
        if faults.take("capacity", operation):
            raise no_capacity()
        if not self._job.choices:
            types = {host.instance_type for host in self._hosts}
            if any(faults.take("capacity", name) for name in sorted(types)):
                raise no_capacity()
            return True
        for choice in self._job.choices:
            if not faults.take("capacity", choice.instance_type):
                self._job.select(choice)
                self._have(choice)
                return True
        raise no_capacity()

    def _prepare(self) -> list[HostProgram]:
        image_folder = self._image_folder(self._request["AlgorithmSpecification"]["TrainingImage"])
        make_folders(self._job, self._folder, self._hosts)
        ChannelLoader(self._s3, self._request, self._region).load(
            [(folder, host.group) for folder, host in zip(self._folders, self._hosts, strict=True)]
        )
        if self._checkpoints:
            self._checkpoints.restore()
        mounts = mounts_of(self._request, self._context.file_systems)
        link_where_not_mounted(mounts, self._folders)
        return container_programs(self._job, self._region, self._folder, self._hosts, image_folder, mounts)

    def _train(self, programs: list[HostProgram]) -> Ended:
        logs = self._logs(programs)
        next_sync = time.monotonic() + _CHECKPOINT_SECONDS

        def look() -> None:
            nonlocal next_sync
            for log in logs:
                log.ship()
            if self._checkpoints and time.monotonic() >= next_sync:
                self._checkpoints.upload_changes()
                next_sync = time.monotonic() + _CHECKPOINT_SECONDS

        def last_look() -> None:
            for log in logs:
                log.ship(last=True)
            if self._checkpoints and not self._fate.broken:  # what broken instances had not uploaded is lost
                self._checkpoints.upload_changes()

        ended = run_hosts(
            self._context,
            self._job,
            self._folder,
            programs,
            max_runtime=self._fate.runtime_left(),
            look=look,
            last_look=last_look,
            strike=self._fate.strike,
        )
        self._fate.end_life()
        return ended

    def _logs(self, programs: list[HostProgram]) -> list[HostLog]:
        client = self._context.client("logs", self._region)
        metrics = MetricReader(self._request["AlgorithmSpecification"].get("MetricDefinitions", []))
        # A stream for each host of each life, also where two begin in one second.
        self._log_epoch = epoch = max(int(time.time()), self._log_epoch + 1)
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

    def _conclude(self, ended: Ended) -> None:
        artifacts = Artifacts(self._s3, self._request)
        if ended.ending is Ending.BROKEN:
            raise JobFault("InternalServerError: We encountered an internal error. Please try again.")
        if ended.ending is Ending.FAILED:
            artifacts.upload([folder / "output" / "data" for folder in self._folders], "output")
            raise JobFault(self._failure(ended))
        state = SecondaryStatus.STOPPED if self._job.stop_requested.is_set() else _STATES[ended.ending]
        if not self._has_instances:
            self._job.finish(state)
            return
        self._job.enter(SecondaryStatus.UPLOADING)
        self._context.wait(UPLOADING_SECONDS)
        model = artifacts.upload([folder / "model" for folder in self._folders], "model")
        artifacts.upload([folder / "output" / "data" for folder in self._folders], "output")
        if state is SecondaryStatus.COMPLETED and self._job.warm_pool:
            self._context.warm_pools.open(self._job.warm_pool)
        self._job.finish(state, artifact=model)

    def _failure(self, ended: Ended) -> str:
        first = ended.first_failure
        if first.cannot_start:
            return cannot_start(first, f"docker run {self._request['AlgorithmSpecification']['TrainingImage']} train")
        own = failure_text(self._folder / first.host)
        others = [failure_text(folder) for folder in self._folders]
        text = own or next(filter(None, others), "")
        ending = f", exit code: {first.code}"
        return f"AlgorithmError: {text[: 1024 - len(ending) - len('AlgorithmError: ')]}{ending}"
