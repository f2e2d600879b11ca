"""The containers of a training job: their folders, and the program each of them runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from airflow_dlaws.local.images import SYSTEM_PATH
from airflow_dlaws.local.isolation import OPT_ML, HostProgram, Mount
from airflow_dlaws.local.training_hosts import TrainingHost
from airflow_dlaws.local.training_input import write_configuration
from airflow_dlaws.local.training_job import TrainingJob

_FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "code", "tmp")


def make_folders(job: TrainingJob, job_folder: Path, hosts: Sequence[TrainingHost]) -> None:
    """Make what each host finds under /opt/ml, and its configuration files."""
    for host in hosts:
        for inside in _FOLDERS:
            (job_folder / host.name / inside).mkdir(parents=True, exist_ok=True)
        write_configuration(job_folder / host.name, host, hosts, job.request)


def container_programs(
    job: TrainingJob,
    region: str,
    job_folder: Path,
    hosts: Sequence[TrainingHost],
    image_folder: Path,
    mounts: tuple[Mount, ...] = (),
) -> list[HostProgram]:
    """Return the program of each host, in the words of the job's request; without any: `train`, as Docker gets it."""
    algorithm = job.request["AlgorithmSpecification"]
    command = [*algorithm.get("ContainerEntrypoint", ()), *algorithm.get("ContainerArguments", ())]
    environment = _environment(job, region, image_folder, len(hosts))
    return [
        HostProgram(
            name=host.name,
            folder=job_folder / host.name,
            argv=tuple(command or ["train"]),
            environment=environment,
            log=job_folder / f"{host.name}.log",
            mounts=mounts,
        )
        for host in hosts
    ]


def _environment(job: TrainingJob, region: str, image_folder: Path, hosts: int) -> dict[str, str]:
    """What AWS sets, what images usually set, and the job's own variables, which win."""
    return {
        **container_environment(region, image_folder, hosts),
        "TRAINING_JOB_NAME": job.name,
        "TRAINING_JOB_ARN": job.arn,
        **job.request.get("Environment", {}),
    }


def container_environment(region: str, image_folder: Path, hosts: int) -> dict[str, str]:
    """What every container of a job finds in its environment."""
    return {
        "PATH": f"{image_folder}:{SYSTEM_PATH}",
        "HOME": f"{OPT_ML}/tmp",
        "TMPDIR": f"{OPT_ML}/tmp",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # The hosts are one machine: each takes its share of the cores.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // hosts)),
        # Jobs share the machine: a thread that spins while it waits takes it from the others (8 times the CPU, measured
        # with four trials on two cores).
        "OMP_WAIT_POLICY": "PASSIVE",
        "AWS_REGION": region,
    }
