"""What few training jobs need: capacity, network, encryption, and SageMaker's services around a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.jobs.spec import MlflowTracking, ModelPackageOutput
from airflow_dlaws.launchers.batch import ENGINE as BATCH
from airflow_dlaws.operators.job import JobOperator


class TrainingOptions(JobOperator):
    """The parameters of a training job that are left out most often; TrainingSpec says what each means.

    :param efa: None presets the network's variables by instance type (`jobs/fabric.py`), True insists on EFA.
    :param keep_alive_s: keeps the machines warm, and paid for, for the next job of the same kind.
    :param max_pending_s: seconds of waiting for accelerators after which SageMaker stops the job.
    :param max_retry_attempts: how often SageMaker begins anew after an internal error of its own.
    :param subnets: with `security_group_ids`: of the VPC that the job reaches, or its file systems are in.
    :param kms_key_id: of the output, and of the volumes where AWS takes one.
    :param output_compression: "NONE" stores large models file by file.
    :param job_queue: wait for machines in this AWS Batch queue (docs/batch.md): its name or ARN, a BatchQueue, or the
        fields of one as a mapping.
    :param mlflow: {"arn": ..., "experiment": ..., "run": ...}; `model_package`: {"group_arn": ...}.
    """

    def __init__(
        self,
        *,
        efa: bool | None = None,
        keep_alive_s: int | str | None = None,
        training_plan_arn: str | None = None,
        max_pending_s: int | str | None = None,
        max_retry_attempts: int | str | None = None,
        subnets: Sequence[str] | str = (),
        security_group_ids: Sequence[str] | str = (),
        network_isolation: bool = False,
        encrypt_traffic: bool = False,
        kms_key_id: str | None = None,
        volume_kms_key_id: str | None = None,
        output_compression: str = "GZIP",
        mlflow: MlflowTracking | Mapping[str, Any] | str | None = None,
        model_package: ModelPackageOutput | Mapping[str, Any] | str | None = None,
        infra_check: bool = False,
        remote_debug: bool = False,
        extra_request: Mapping[str, Any] | None = None,
        job_queue: BatchQueue | Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.efa = efa
        self.keep_alive_s = keep_alive_s
        self.training_plan_arn = training_plan_arn
        self.max_pending_s = max_pending_s
        self.max_retry_attempts = max_retry_attempts
        self.subnets, self.security_group_ids = subnets, security_group_ids
        self.network_isolation = network_isolation
        self.encrypt_traffic = encrypt_traffic
        self.kms_key_id, self.volume_kms_key_id = kms_key_id, volume_kms_key_id
        self.output_compression = output_compression
        self.mlflow = mlflow
        self.model_package = model_package
        self.infra_check = infra_check
        self.remote_debug = remote_debug
        self.extra_request = extra_request
        self.job_queue = job_queue
        if job_queue:  # else what the subclass has chosen stays: a sweep has engines of its own
            self.engine = BATCH
