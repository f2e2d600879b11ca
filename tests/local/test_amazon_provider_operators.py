"""The Amazon provider's own SageMaker operators run unmodified against the local AWS."""

from __future__ import annotations

from typing import Any

import pytest
import running_task
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from trainer import Trainer


@pytest.fixture
def aws_environment(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every AWS client to the local AWS, as `dlaws local up` prints it."""
    running_task.aws_environment(monkeypatch, trainer.aws)


def training_operator(config: dict[str, Any], **options: Any) -> SageMakerTrainingOperator:
    """Return the stock operator, looking every second."""
    return SageMakerTrainingOperator(task_id="train", config=config, aws_conn_id=None, check_interval=1, **options)


@pytest.mark.slow  # with the log on, the provider looks at the job every 30 seconds, whatever check_interval says
@pytest.mark.usefixtures("aws_environment")
def test_the_training_operator_trains_and_prints_the_log(trainer: Trainer, capfd: pytest.CaptureFixture[str]) -> None:
    request = trainer.request("echo hello from $TRAINING_JOB_NAME; echo m > /opt/ml/model/m", instances=2)
    answer = training_operator(request, print_log=True, wait_for_completion=True).execute({})
    description = answer["Training"]
    assert description["TrainingJobStatus"] == "Completed"
    assert description["ModelArtifacts"]["S3ModelArtifacts"].endswith("/output/model.tar.gz")
    printed = capfd.readouterr().out
    assert printed.count(f"hello from {request['TrainingJobName']}") == 2
    assert "Billable seconds" in printed


@pytest.mark.usefixtures("aws_environment")
def test_the_training_operator_fails_with_the_reason_of_the_service(trainer: Trainer) -> None:
    request = trainer.request("echo 'no such column: late' > /opt/ml/output/failure; exit 4")
    operator = training_operator(request, print_log=False, wait_for_completion=True)
    with pytest.raises(Exception, match="AlgorithmError: no such column: late, exit code: 4"):
        operator.execute({})


@pytest.mark.usefixtures("aws_environment")
def test_the_training_operator_finds_the_name_of_an_earlier_job(trainer: Trainer) -> None:
    earlier = trainer.run()["TrainingJobName"]
    request = trainer.request(TrainingJobName=earlier)
    answer = training_operator(request, print_log=False, wait_for_completion=True).execute({})
    name = answer["Training"]["TrainingJobName"]
    assert name.startswith(f"{earlier}-")
    assert trainer.describe(name)["TrainingJobStatus"] == "Completed"
