"""A queue of AWS Batch for tests."""

from __future__ import annotations

from airflow_dlaws.local.process import LocalAws


def service_queue(aws: LocalAws, name: str) -> None:
    """Make a queue of that name with room for four instances."""
    batch = aws.client("batch")
    limits = [{"maxCapacity": 4, "capacityUnit": "NUM_INSTANCES"}]
    batch.create_service_environment(
        serviceEnvironmentName=name, serviceEnvironmentType="SAGEMAKER_TRAINING", capacityLimits=limits
    )
    order = [{"order": 1, "serviceEnvironment": name}]
    batch.create_job_queue(
        jobQueueName=name, jobQueueType="SAGEMAKER_TRAINING", priority=1, serviceEnvironmentOrder=order
    )
