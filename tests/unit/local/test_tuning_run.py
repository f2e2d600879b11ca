"""The end of a tuning job at its time limit, which is too long (two minutes at least) to wait for over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.images import ImageRegistry
from airflow_dlaws.local.training_job import SecondaryStatus, TrainingJob
from airflow_dlaws.local.tuning.job import TuningJob
from airflow_dlaws.local.tuning.run import TuningRun


def request(limit_s: float) -> dict[str, Any]:
    """Return a tuning job of two training jobs at a time."""
    return {
        "HyperParameterTuningJobName": "tune",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": 9, "MaxParallelTrainingJobs": 2, "MaxRuntimeInSeconds": limit_s,
            },
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]},
        },
        "TrainingJobDefinition": {},
    }  # fmt: skip


def tune(tmp_path: Path, *, reports: bool) -> TuningJob:
    """Run a tuning job whose training jobs end only when they are stopped."""
    context = LocalContext(state_dir=tmp_path, endpoint_url="http://127.0.0.1:9", images=ImageRegistry())

    def launch(child: Mapping[str, Any]) -> TrainingJob:
        job = TrainingJob(child, "arn", context.now)
        if reports:
            job.record_metric("loss", float(child["HyperParameters"]["x"]), context.now())
        threading.Thread(
            target=lambda: job.stop_requested.wait(20) and job.finish(SecondaryStatus.STOPPED), daemon=True
        ).start()
        return job

    job = TuningJob(request(0.3), "arn", context.now)
    TuningRun(context, job, launch).perform()
    return job


def test_the_time_limit_stops_what_runs_and_completes(tmp_path: Path) -> None:
    described = tune(tmp_path, reports=True).describe()
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    assert described["TrainingJobStatusCounters"]["Stopped"] == 2
    assert described["BestTrainingJob"]["ObjectiveStatus"] == "Succeeded"


def test_a_time_limit_without_any_result_is_a_failure(tmp_path: Path) -> None:
    described = tune(tmp_path, reports=False).describe()
    assert described["HyperParameterTuningJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("All training jobs failed.")
