"""Runs one transform job from start to end: real containers, real requests, an .out object for each input object."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from airflow_dlaws.local.batch_job import BatchJob, BatchStatus
from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.job_run import LOOK_SECONDS, JobFault, JobRun
from airflow_dlaws.local.models import Model
from airflow_dlaws.local.serving_process import PingFailed, ServingFailed
from airflow_dlaws.local.training_input import InputObjects
from airflow_dlaws.local.transform_instance import TransformInstance
from airflow_dlaws.local.transform_request import read_plan
from airflow_dlaws.storage import S3Uri

_PING_FAILED = (
    "AlgorithmError: Model container failed to respond to ping; Please ensure /ping endpoint is implemented and "
    "responds with an HTTP 200 status code"
)


class TransformRun(JobRun):
    """One job, performed by one thread."""

    def __init__(self, context: LocalContext, job: BatchJob, region: str, model: Model) -> None:
        super().__init__(context, job, context.state_dir / "transform" / region / job.name)
        self._job, self._region, self._model = job, region, model
        self._container = replace(
            model.container, environment={**model.container.environment, **job.request.get("Environment", {})}
        )
        self._inputs = InputObjects(context.client("s3", region), region, model.request["ExecutionRoleArn"])

    def _perform(self) -> None:
        if not self._start("CreateTransformJob"):
            return self._job.finish(BatchStatus.STOPPED)
        self._job.begin()
        objects = self._inputs.listed(self._job.request["TransformInput"]["DataSource"]["S3DataSource"])
        try:
            blamed = self._transform(objects)
        except JobFault:
            # A container that is killed while it starts has not failed.
            if not self._job.stop_requested.is_set():
                raise
        if self._job.stop_requested.is_set():
            return self._job.finish(BatchStatus.STOPPED)
        if self._context.closing.is_set():
            raise JobFault("InternalServerError: the local AWS went down")
        if blamed:
            raise JobFault(f"{blamed[0]}: See job logs for more information")
        return self._job.finish(BatchStatus.COMPLETED)

    def _transform(self, objects: list[tuple[S3Uri, str]]) -> list[str]:
        """Give each instance its share; return who is to blame for the objects that failed."""
        count = self._job.request["TransformResources"]["InstanceCount"]
        plan = read_plan(self._job.request)
        instances = [
            TransformInstance(self._context, self._region, self._job, self._container, plan)
            for _ in range(min(count, len(objects)))
        ]
        shares = [objects[index :: len(instances)] for index in range(len(instances))]
        with ThreadPoolExecutor(len(instances)) as pool:
            work = [
                pool.submit(self._instance, instance, share, self._folder / str(number))
                for number, (instance, share) in enumerate(zip(instances, shares, strict=True))
            ]
            try:
                self._wait(work)
            finally:
                for instance in instances:
                    instance.stop()
        return [fault for one in work for fault in one.result()]

    def _instance(self, instance: TransformInstance, share: Sequence[tuple[S3Uri, str]], folder: Path) -> list[str]:
        """Start an instance and have it transform its share."""
        try:
            instance.start()
        except PingFailed as fault:
            raise JobFault(_PING_FAILED) from fault
        except ServingFailed as fault:
            raise JobFault(f"ClientError: {fault}") from fault
        return instance.transform(share, self._inputs, folder)

    def _wait(self, work: Sequence[Future[list[str]]]) -> None:
        """Wait until all instances are done, or one has failed, or the job is to stop."""
        while not self._job.stop_requested.is_set() and not self._context.closing.is_set():
            done, running = wait(work, timeout=LOOK_SECONDS, return_when=FIRST_EXCEPTION)
            if not running or any(one.exception() for one in done):
                return
