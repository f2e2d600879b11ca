"""What a submission to a cluster knows of its job before it asks the cluster anything, and how it is prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.slurm_spec import SlurmSpec
from airflow_dlaws.jobs.spec import Channel
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers import preflight
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.slurm_request import code_folder, packed_code, sbatch_options, work_order
from airflow_dlaws.launchers.slurm_scripts import JobScript
from airflow_dlaws.launchers.source import SourceBundle
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Signed addresses are used within seconds.
_CODE_URL_LIFE_S = 3600


@dataclass(frozen=True)
class Plan:
    """A specification, the task that asks for it, and its code, read and not yet published."""

    spec: SlurmSpec
    identity: TaskIdentity
    bundle: SourceBundle

    @cached_property
    def digest(self) -> str:
        """Of what the job does, and where; code counts through its content-addressed location.

        On another cluster, nobody would look for the job: whoever moves the task there stops this one.
        """
        where = {"output": self.spec.output_s3_uri, "cluster": self.spec.cluster.address}
        return digest_of({"order": self.order, "sbatch": self.options, **where})

    @cached_property
    def order(self) -> Mapping[str, Any]:
        """What the program on the nodes reads, but for what depends on the job's name."""
        return work_order(self.spec, self.code)

    @cached_property
    def options(self) -> Mapping[str, str]:
        """Options of sbatch."""
        return sbatch_options(self.spec)

    @property
    def code(self) -> str:
        """Name of the folder on the cluster that holds the code."""
        return code_folder(self.bundle.location(self.destination))

    @property
    def destination(self) -> S3Uri:
        """Where code is published, under its digest."""
        return S3Uri.parse(self.spec.code_s3_uri or self.spec.output_s3_uri.rstrip("/") + "/code")

    def name(self, attempt: int) -> str:
        """Return the name of the task's job."""
        return self.identity.name(self.digest, attempt=attempt)

    @property
    def checkpoints(self) -> str:
        """Name of the task's folder for checkpoints in `work_dir`.

        All attempts of a task share it: those are made after faults of the machines. So do its lives, where asked for.
        """
        if not self.spec.resume_on_clear:
            return f"{self.name(1)}/checkpoints"
        return self.identity.of_all_lives.name(self.digest, role="checkpoints")

    @property
    def shares_checkpoints(self) -> bool:
        """Whether other lives of the task write to the same checkpoints."""
        return self.spec.resume_on_clear or self.spec.cluster.checkpoint_dir is not None

    def job(self, attempt: int, code_url: str, holder: str) -> JobScript:
        """Return what the head node is given."""
        name, work_dir = self.name(attempt), self.spec.cluster.work_dir
        checkpoints = self.order["checkpoint_dir"] or f"{work_dir}/{self.checkpoints}"
        return JobScript(
            name=name,
            digest=self.digest,
            holder=holder,
            output=f"{self.spec.output_s3_uri.rstrip('/')}/{name}",
            code=self.code,
            code_url=code_url,
            python=self.spec.cluster.python,
            options=self.options,
            order={**self.order, "checkpoint_dir": checkpoints, "task": to_json(self.identity)},
        )

    def publish(self, s3: Any) -> str:
        """Publish the code once it is known that buckets and data are there; return where the head node can fetch it.

        :raises SpecificationError: a bucket or the data of a channel in S3 is missing.
        """
        preflight.check_bucket(s3, "output_s3_uri", S3Uri.parse(self.spec.output_s3_uri))
        for name, uri in self.spec.channels.items():
            if uri.startswith("s3://"):
                preflight.check_channel(s3, Channel(name=name, uri=uri))
        self.bundle.publish(s3, self.destination)
        store, archive = ObjectStore(s3), self.destination / f"slurm/{self.code}.tar.gz"
        with service_errors(f"publish the code at {archive}"):
            if not store.exists(archive):
                packed = packed_code(store, self.bundle.location(self.destination))
                store.write(archive, packed, content_type="application/gzip")
            where = {"Bucket": archive.bucket, "Key": archive.key}
            return str(s3.generate_presigned_url("get_object", Params=where, ExpiresIn=_CODE_URL_LIFE_S))
