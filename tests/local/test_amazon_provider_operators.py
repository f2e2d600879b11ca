"""The Amazon provider's own SageMaker operators run unmodified against the local AWS."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import running_task
from airflow.providers.amazon.aws.hooks import sagemaker
from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerEndpointConfigOperator,
    SageMakerEndpointOperator,
    SageMakerModelOperator,
    SageMakerProcessingOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
)
from batch_bench import Batches, processing_input, processing_output
from serving import IMAGE, ROLE, Serving, deployment, unique, variant
from trainer import Trainer


@pytest.fixture
def aws_environment(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every AWS client to the local AWS, as `dlaws local up` prints it."""
    running_task.aws_environment(monkeypatch, trainer.aws)


def training_operator(config: dict[str, Any], **options: Any) -> SageMakerTrainingOperator:
    """Return the stock operator, looking every second."""
    return SageMakerTrainingOperator(task_id="train", config=config, aws_conn_id=None, check_interval=1, **options)


@pytest.mark.usefixtures("aws_environment")
def test_the_training_operator_trains_and_prints_the_log(
    trainer: Trainer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the log on, the provider looks at the job every 30 seconds of this clock, whatever check_interval says.
    quick_clock = SimpleNamespace(sleep=time.sleep, time=time.time, monotonic=lambda: 30 * time.monotonic())
    monkeypatch.setattr(sagemaker, "time", quick_clock)
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


def deploy(serving: Serving, name: str, **behaviour: Any) -> str:
    """Let the stock operators make a model and an endpoint configuration of it; return the configuration's name."""
    model, config = unique("model"), unique("config")
    container = {"Image": IMAGE, "ModelDataUrl": serving.artifact(name=name, **behaviour)}
    request = {"ModelName": model, "ExecutionRoleArn": ROLE, "PrimaryContainer": container}
    SageMakerModelOperator(task_id="model", config=request, aws_conn_id=None).execute({})
    # As a string, which the operator turns into a number: templates give strings.
    variants = [variant(model, InitialInstanceCount="1")]
    request = {"EndpointConfigName": config, "ProductionVariants": variants}
    SageMakerEndpointConfigOperator(task_id="config", config=request, aws_conn_id=None).execute({})
    return config


def endpoint_operator(operation: str, endpoint: str, config: str, **request: Any) -> SageMakerEndpointOperator:
    """Return the stock operator, looking every second."""
    return SageMakerEndpointOperator(
        task_id="endpoint",
        config={"EndpointName": endpoint, "EndpointConfigName": config, **request},
        operation=operation,
        aws_conn_id=None,
        check_interval=1,
        max_ingestion_time=60,
    )


@pytest.mark.usefixtures("aws_environment")
def test_the_model_and_endpoint_operators_create_and_update_an_endpoint(serving: Serving) -> None:
    blue, green = deploy(serving, "blue"), deploy(serving, "green")
    endpoint = serving.adopt(unique("endpoint"))
    created = endpoint_operator("create", endpoint, blue).execute({})
    assert created["Endpoint"]["EndpointStatus"] == "InService"
    assert serving.served_by(endpoint) == "blue"
    updated = endpoint_operator("update", endpoint, green).execute({})
    assert updated["Endpoint"]["EndpointConfigName"] == green
    assert serving.served_by(endpoint) == "green"


@pytest.mark.usefixtures("aws_environment")
def test_the_endpoint_operator_updates_an_endpoint_it_was_told_to_create(serving: Serving) -> None:
    blue, green = deploy(serving, "blue"), deploy(serving, "green")
    endpoint = serving.endpoint(blue)
    endpoint_operator("create", endpoint, green).execute({})
    assert serving.served_by(endpoint) == "green"


@pytest.mark.usefixtures("aws_environment")
def test_the_endpoint_operator_takes_a_rollback_for_a_success_which_is_why_there_is_one_of_ours(
    serving: Serving,
) -> None:
    blue = deploy(serving, "blue")
    endpoint, alarm = serving.endpoint(blue), serving.alarm()
    serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="rings before the update")
    guarded = deployment("ALL_AT_ONCE", alarm)
    answer = endpoint_operator("update", endpoint, deploy(serving, "green"), DeploymentConfig=guarded).execute({})
    assert answer["Endpoint"]["EndpointStatus"] == "InService"
    assert answer["Endpoint"]["EndpointConfigName"] == blue


@pytest.mark.usefixtures("aws_environment")
def test_the_endpoint_operator_fails_when_the_container_does_not_pass_its_ping(serving: Serving) -> None:
    endpoint = serving.adopt(unique("endpoint"))
    operator = endpoint_operator("create", endpoint, deploy(serving, "bad", exits=True))
    with pytest.raises(Exception, match="Waiter EndpointInService failed"):
        operator.execute({})
    assert "did not pass the ping health check" in serving.describe(endpoint)["FailureReason"]


@pytest.mark.usefixtures("aws_environment")
def test_the_transform_operator_makes_its_model_and_transforms(batches: Batches, serving: Serving) -> None:
    batches.put("in/a.csv", "x\nxx\n")
    model = unique("model")
    container = {"Image": IMAGE, "ModelDataUrl": serving.artifact(score=True)}
    config = {
        "Model": {"ModelName": model, "ExecutionRoleArn": ROLE, "PrimaryContainer": container},
        "Transform": batches.transform_request(model),
    }
    config["Transform"]["TransformResources"]["InstanceCount"] = "1"  # as templates give it
    operator = SageMakerTransformOperator(
        task_id="transform", config=config, aws_conn_id=None, check_interval=1, wait_for_completion=True
    )
    answer = operator.execute({})
    assert answer["Transform"]["TransformJobStatus"] == "Completed"
    assert answer["Model"]["ModelName"] == model
    assert batches.stored("out/") == {"a.csv.out": "1\n2\n"}


@pytest.mark.usefixtures("aws_environment")
def test_the_transform_operator_fails_with_the_reason_of_the_service(batches: Batches, serving: Serving) -> None:
    batches.put("in/a.csv", "bad\n")
    config = batches.transform_request(serving.model(score=True))
    operator = SageMakerTransformOperator(task_id="transform", config=config, aws_conn_id=None, check_interval=1)
    with pytest.raises(Exception, match="ClientError: See job logs for more information"):
        operator.execute({})


@pytest.mark.usefixtures("aws_environment")
def test_the_processing_operator_processes(batches: Batches) -> None:
    config = batches.processing_request(
        "cp /opt/ml/processing/data/a.csv /opt/ml/processing/out/b.csv",
        ProcessingInputs=[processing_input("data", batches.put("in/a.csv", "1\n"))],
        ProcessingOutputConfig=processing_output("out", f"s3://{batches.bucket}/out"),
    )
    operator = SageMakerProcessingOperator(
        task_id="process", config=config, aws_conn_id=None, check_interval=1, print_log=False
    )
    answer = operator.execute({})
    assert answer["Processing"]["ProcessingJobStatus"] == "Completed"
    assert batches.stored("out/") == {"b.csv": "1\n"}


@pytest.mark.usefixtures("aws_environment")
def test_the_processing_operator_fails_with_the_reason_of_the_service(batches: Batches) -> None:
    operator = SageMakerProcessingOperator(
        task_id="process",
        config=batches.processing_request("exit 3"),
        aws_conn_id=None,
        check_interval=1,
        print_log=False,
    )
    with pytest.raises(Exception, match="exit code: 3"):
        operator.execute({})
