"""Read back from the services what really happened: the demo's report rests on this and not on intentions."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from airflow_dlaws.local.airflow_api import AirflowApi


def live_configuration(sagemaker: Any, endpoint_name: str) -> dict[str, Any]:
    """Return the endpoint's state as SageMaker describes it now."""
    answer = sagemaker.describe_endpoint(EndpointName=endpoint_name)
    return {
        "endpoint_config": answer["EndpointConfigName"],
        "status": answer["EndpointStatus"],
        "pending": "PendingDeploymentSummary" in answer,
    }


def training_jobs(sagemaker: Any) -> list[dict[str, Any]]:
    """Return every training job with the Airflow task that its tags name."""
    rows = []
    summaries = sagemaker.get_paginator("list_training_jobs").paginate().search("TrainingJobSummaries[]")
    for summary in summaries:
        tags = sagemaker.list_tags(ResourceArn=summary["TrainingJobArn"])["Tags"]
        by_key = {tag["Key"]: tag["Value"] for tag in tags}
        job = sagemaker.describe_training_job(TrainingJobName=summary["TrainingJobName"])
        rows.append(
            {
                "job": summary["TrainingJobName"],
                "status": summary["TrainingJobStatus"],
                "hosts": job["ResourceConfig"]["InstanceCount"],
                "billable_seconds": job.get("BillableTimeInSeconds"),
                **{part: by_key.get(f"dlaws:{part}") for part in ("dag", "run", "task")},
            }
        )
    return rows


def jobs_per_task(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the jobs of each task of each run."""
    counts = Counter((job["dag"], job["run"], job["task"]) for job in jobs)
    return [{"dag": dag, "run": run, "task": task, "jobs": count} for (dag, run, task), count in counts.items()]


def sensor_state(s3: Any, bucket: str) -> dict[str, Any] | None:
    """Return the drift sensor's state document that was written last, or None before its first look."""
    rows = s3.list_objects_v2(Bucket=bucket, Prefix="drift/").get("Contents", [])
    for row in sorted(rows, key=lambda row: row["LastModified"], reverse=True):
        if row["Key"].endswith(".json"):
            document = json.loads(s3.get_object(Bucket=bucket, Key=row["Key"])["Body"].read())
            if document.get("format", "").startswith("dlaws-drift-state/"):
                return dict(document)
    return None


def run_facts(api: AirflowApi, dag_id: str, run_id: str, xcoms_of: tuple[str, ...]) -> dict[str, Any]:
    """Return the states of a run's tasks, what the named ones returned, and the seconds they took."""
    tasks = api.tasks(dag_id, run_id)
    return {
        "dag": dag_id,
        "run": run_id,
        "state": api.run_state(dag_id, run_id),
        "tasks": {name: row["state"] for name, row in tasks.items()},
        "seconds": {name: row["duration"] for name, row in tasks.items()},
        "results": {name: api.xcom(dag_id, run_id, name) for name in xcoms_of if tasks[name]["state"] == "success"},
    }
