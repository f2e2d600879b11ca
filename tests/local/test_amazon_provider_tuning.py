"""The Amazon provider's own tuning operator runs unmodified against the local AWS.

Its deferrable mode needs aiobotocore, which pins an older botocore than ours and is not installed.
"""

from __future__ import annotations

from typing import Any

import pytest
import running_task
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTuningOperator
from trainer import channel
from tuner import Tuner


@pytest.fixture(autouse=True)
def aws_environment(tuner: Tuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every AWS client to the local AWS, as `dlaws local up` prints it."""
    running_task.aws_environment(monkeypatch, tuner.aws)


def request(tuner: Tuner, **changes: Any) -> dict[str, Any]:
    """Return a request with a channel, which the operator looks for before it asks for the job."""
    tuner.s3.put_object(Bucket=tuner.bucket, Key="data/rows.csv", Body=b"1")
    data = channel("train", f"s3://{tuner.bucket}/data/rows.csv")
    return tuner.request(definition={"InputDataConfig": [data]}, **changes)


def operator(config: dict[str, Any], **options: Any) -> SageMakerTuningOperator:
    """Return the stock operator, looking every second."""
    return SageMakerTuningOperator(task_id="tune", config=config, aws_conn_id=None, check_interval=1, **options)


def test_the_tuning_operator_waits_and_hands_on_the_best_job(tuner: Tuner) -> None:
    config = request(tuner, jobs=3)
    # As a string, which the operator turns into a number: templates give strings.
    config["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] = "3"
    answer = operator(config).execute({})
    assert answer["Tuning"]["HyperParameterTuningJobStatus"] == "Completed"
    assert answer["Tuning"]["TrainingJobStatusCounters"]["Completed"] == 3
    tried = tuner.tried(config["HyperParameterTuningJobName"])
    assert answer["Tuning"]["BestTrainingJob"]["TunedHyperParameters"] == min(tried, key=lambda row: float(row["x"]))


def test_the_tuning_operator_fails_with_the_tuning_job(tuner: Tuner) -> None:
    with pytest.raises(Exception, match="All training jobs failed"):
        operator(request(tuner, static={"fail_above": "-1"})).execute({})
