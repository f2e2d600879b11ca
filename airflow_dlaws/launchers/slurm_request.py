"""From a specification to what sbatch and the program on the nodes are given."""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_dlaws.jobs import slurm_driver
from airflow_dlaws.jobs.slurm_spec import SlurmSpec
from airflow_dlaws.storage import ObjectStore, S3Uri

DRIVER = "dlaws_slurm.py"
#: Slurm's own limit is only there for a program that hangs: the job ends itself, to the second.
_TIME_MARGIN_S = 120


def sbatch_options(spec: SlurmSpec) -> dict[str, str]:
    """Return the options of sbatch, in a fixed order; an empty value makes a switch."""
    cluster = spec.cluster
    minutes = math.ceil((spec.max_runtime_s + cluster.grace_s + _TIME_MARGIN_S) / 60)
    options = {
        "nodes": str(spec.instance_count),
        "ntasks-per-node": "1",
        "time": str(minutes),
        "partition": cluster.partition or "",
        "account": cluster.account or "",
        "qos": cluster.qos or "",
        "gpus-per-node": str(cluster.gpus_per_node or ""),
    }
    return {**{name: value for name, value in options.items() if value}, **dict(sorted(cluster.sbatch.items()))}


def work_order(spec: SlurmSpec, code: str) -> dict[str, Any]:
    """Return what the program on the nodes reads, but for what depends on the job's name.

    :param code: name of the folder with the code.
    """
    return {
        "code": f"{spec.cluster.work_dir}/code/{code}",
        "entry_point": spec.entry_point,
        "arguments": list(spec.arguments),
        "hyperparameters": dict(spec.hyperparameters),
        "channels": dict(spec.channels),
        "environment": dict(spec.environment),
        "nodes": spec.instance_count,
        "processes": spec.processes_per_instance,
        "python": spec.cluster.python,
        "image": spec.image,
        "metrics": list(spec.metrics),
        "max_runtime_s": spec.max_runtime_s,
        "grace_s": spec.cluster.grace_s,
        "checkpoint_dir": spec.cluster.checkpoint_dir,
    }


def code_folder(published: S3Uri) -> str:
    """Return the name of the folder on the cluster for code published at that prefix: a digest of all that is in it."""
    driver = hashlib.sha256(driver_program()).hexdigest()[:8]
    return f"{published.key.rstrip('/').rpartition('/')[2]}-{driver}"


def packed_code(store: ObjectStore, published: S3Uri) -> bytes:
    """Return the published code as a .tar.gz, with the program that runs jobs beside it."""
    files: Mapping[str, bytes] = {
        **{row.uri.key.removeprefix(published.key): store.read(row.uri) for row in store.list(published)},
        DRIVER: driver_program(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(body), 0o644
            archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()


def driver_program() -> bytes:
    """Return the program that runs a job on the nodes."""
    return Path(slurm_driver.__file__).read_bytes()
