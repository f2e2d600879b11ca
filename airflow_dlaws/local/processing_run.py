"""Runs one processing job from start to end: real processes on one or several hosts, real files, real logs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from airflow_dlaws.local.batch_job import BatchJob, BatchStatus
from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.isolation import OPT_ML, HostProgram
from airflow_dlaws.local.job_logs import LogFile, LogStream
from airflow_dlaws.local.job_run import UPLOADING_SECONDS, Ended, Ending, JobRun, cannot_start, run_hosts
from airflow_dlaws.local.training_container import container_environment
from airflow_dlaws.local.training_input import InputObjects
from airflow_dlaws.local.training_output import SyncedFolders, failure_text

#: How often Continuous outputs are looked at. AWS names no figure.
_SYNC_SECONDS = 1.0
_LOG_GROUP = "/aws/sagemaker/ProcessingJobs"


class ProcessingRun(JobRun):
    """One job, performed by one thread."""

    def __init__(self, context: LocalContext, job: BatchJob, region: str) -> None:
        super().__init__(context, job, context.state_dir / "processing" / region / job.name)
        self._job, self._region, self._request = job, region, job.request
        self._cluster = job.request["ProcessingResources"]["ClusterConfig"]
        self._hosts = [f"algo-{number}" for number in range(1, self._cluster.get("InstanceCount", 1) + 1)]
        self._folders = [self._folder / host for host in self._hosts]
        self._s3 = context.client("s3", region)
        outputs = job.request.get("ProcessingOutputConfig", {}).get("Outputs", [])
        self._outputs = [
            SyncedFolders(self._s3, one["S3Output"]["S3Uri"], one["S3Output"]["LocalPath"], self._folders)
            for one in outputs
        ]
        modes = [one["S3Output"]["S3UploadMode"] for one in outputs]
        self._continuous = [output for output, mode in zip(self._outputs, modes, strict=True) if mode == "Continuous"]

    def _perform(self) -> None:
        if not self._start("CreateProcessingJob"):
            return self._job.finish(BatchStatus.STOPPED)
        self._job.begin()
        programs = self._prepare()
        if self._job.stop_requested.is_set():
            return self._job.finish(BatchStatus.STOPPED)
        return self._conclude(self._process(programs))

    def _prepare(self) -> list[HostProgram]:
        image_folder = self._image_folder(self._request["AppSpecification"]["ImageUri"])
        for host, folder in zip(self._hosts, self._folders, strict=True):
            for inside in ("processing", "output", "config", "tmp"):
                (folder / inside).mkdir(parents=True, exist_ok=True)
            self._write_configuration(host, folder / "config")
        for output in self._outputs:
            for folder in output.folders:
                folder.mkdir(parents=True, exist_ok=True)
        objects = InputObjects(self._s3, self._region, self._request["RoleArn"])
        for one in self._request.get("ProcessingInputs", []):
            inside = one["S3Input"]["LocalPath"].removeprefix(f"{OPT_ML}/")
            objects.place(one["S3Input"], [folder / inside for folder in self._folders])
        return [self._program(host, image_folder) for host in self._hosts]

    def _write_configuration(self, host: str, folder: Path) -> None:
        described = self._job.describe()
        members = (
            "ProcessingJobArn", "ProcessingJobName", "AppSpecification", "Environment", "ProcessingInputs",
            "ProcessingOutputConfig", "ProcessingResources", "RoleArn", "StoppingCondition",
        )  # fmt: skip
        job = {member: described.get(member) for member in members}
        resources = {
            "current_host": host,
            "hosts": self._hosts,
            "current_instance_type": self._cluster["InstanceType"],
        }
        (folder / "processingjobconfig.json").write_text(json.dumps(job, indent=1))
        (folder / "resourceconfig.json").write_text(json.dumps(resources, indent=1))

    def _program(self, host: str, image_folder: Path) -> HostProgram:
        app = self._request["AppSpecification"]
        return HostProgram(
            name=host,
            folder=self._folder / host,
            argv=(*app["ContainerEntrypoint"], *app.get("ContainerArguments", ())),
            environment={
                **container_environment(self._region, image_folder, len(self._hosts)),
                "PROCESSING_JOB_NAME": self._job.name,
                **self._request.get("Environment", {}),
            },
            log=self._folder / f"{host}.log",
        )

    def _process(self, programs: list[HostProgram]) -> Ended:
        ship = self._shipper(programs)
        next_sync = time.monotonic() + _SYNC_SECONDS

        def look() -> None:
            nonlocal next_sync
            ship(False)
            if time.monotonic() >= next_sync:
                _upload(self._continuous)
                next_sync = time.monotonic() + _SYNC_SECONDS

        return run_hosts(
            self._context,
            self._job,
            self._folder,
            programs,
            max_runtime=self._job.max_runtime,
            look=look,
            last_look=lambda: ship(True),
        )

    def _shipper(self, programs: list[HostProgram]) -> Callable[[bool], None]:
        client, epoch = self._context.client("logs", self._region), int(time.time())
        logs = [
            (LogFile(one.log), LogStream(client, _LOG_GROUP, f"{self._job.name}/{one.name}-{epoch}"))
            for one in programs
        ]

        def ship(last: bool) -> None:
            for file, stream in logs:
                stream.put(file.new_lines(last=last))

        return ship

    def _conclude(self, ended: Ended) -> None:
        """Upload and end. What a failed job has written stays where it is, except Continuous outputs."""
        message = next(filter(None, (failure_text(folder, "message") for folder in self._folders)), "")
        if ended.ending is Ending.FAILED:
            _upload(self._continuous)
            return self._job.finish(BatchStatus.FAILED, reason=self._failure(ended), message=message)
        self._context.wait(UPLOADING_SECONDS)
        _upload(self._outputs)
        stopped = self._job.stop_requested.is_set() or ended.ending is not Ending.DONE
        return self._job.finish(BatchStatus.STOPPED if stopped else BatchStatus.COMPLETED, message=message)

    def _failure(self, ended: Ended) -> str:
        first = ended.first_failure
        if first.cannot_start:
            return cannot_start(first, f"docker run {self._request['AppSpecification']['ImageUri']}")
        return f"AlgorithmError: , exit code: {first.code}"


def _upload(outputs: list[SyncedFolders]) -> None:
    for output in outputs:
        output.upload_changes()
