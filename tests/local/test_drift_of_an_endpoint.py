"""The drift sensor against an endpoint that really serves and captures; all it is told is the endpoint's name."""

import asyncio
import io
import json
import tarfile
import time
import uuid

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from captured_traffic import healthy_rows, reference
from running_task import RunningTask, aws_environment, resumed

from airflow_dlaws.drift.state import parse_state
from airflow_dlaws.sensors.drift import DriftSensor
from airflow_dlaws.storage import ObjectStore, S3Uri

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
HANDLER = b"""
def load(model_dir):
    return None

def predict(model, body, content_type):
    delays = [float(line.split(",")[0]) for line in body.decode().splitlines()]
    return "\\n".join(f"{min(1.0, max(0.0, 0.02 * delay + 0.05)):.4f}" for delay in delays).encode(), "text/csv"
"""
ROWS_PER_REQUEST = 100


class Endpoint:
    """A model with its reference beside it, served under a name of its own."""

    def __init__(self, aws, bucket):
        self.s3, self.sagemaker, self.runtime = map(aws.client, ("s3", "sagemaker", "sagemaker-runtime"))
        self.bucket, self.name = bucket, f"flights-{uuid.uuid4().hex[:8]}"

    def configure(self, version, *, capture=True):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            member = tarfile.TarInfo("code/inference.py")
            member.size = len(HANDLER)
            archive.addfile(member, io.BytesIO(HANDLER))
        name = f"{self.name}-{version}"
        document = json.dumps(reference().document()).encode()
        self.s3.put_object(Bucket=self.bucket, Key=f"{name}/model.tar.gz", Body=packed.getvalue())
        self.s3.put_object(Bucket=self.bucket, Key=f"{name}/drift_reference.json", Body=document)
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{self.bucket}/{name}/model.tar.gz"}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large",
                   "InitialInstanceCount": 1}  # fmt: skip
        data_capture = {
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"s3://{self.bucket}/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        }
        options = {"DataCaptureConfig": data_capture} if capture else {}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **options)
        return name

    def wait_in_service(self, config):
        deadline = time.monotonic() + 60
        while True:
            found = self.sagemaker.describe_endpoint(EndpointName=self.name)
            if found["EndpointStatus"] == "InService" and found["EndpointConfigName"] == config:
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def send(self, rows):
        for start in range(0, len(rows), ROWS_PER_REQUEST):
            body = "\n".join(",".join(map(str, row)) for row in rows[start : start + ROWS_PER_REQUEST])
            self.runtime.invoke_endpoint(EndpointName=self.name, Body=body.encode(), ContentType="text/csv")


@pytest.fixture
def endpoint(local_aws, bucket, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    endpoint = Endpoint(local_aws, bucket)
    yield endpoint
    endpoint.sagemaker.delete_endpoint(EndpointName=endpoint.name)


def watch(endpoint):
    """Return a drift sensor for this endpoint."""
    return DriftSensor(
        task_id="watch",
        endpoint_name=endpoint.name,
        state_s3_uri=f"s3://{endpoint.bucket}/drift",
        min_rows=1000,
        min_effect=0.3,
        poll_interval=0.1,
        timeout=120,
        aws_conn_id=None,
    )


async def event_of(trigger):
    return (await anext(trigger.run())).payload


def attempt(call, *arguments, **keywords):
    """Return what a task returns and None, or None and its deferral."""
    try:
        return call(*arguments, **keywords), None
    except TaskDeferred as deferred:
        return None, deferred


def stored_state(sensor, step):
    store, uri = ObjectStore(sensor.aws.client("s3")), S3Uri.parse(step.trigger.state_s3_uri)
    return parse_state(store.read(uri), str(uri)) if store.exists(uri) else None


def run_until(sensor, reached):
    """Defer, fire and resume, as Airflow does, until the sensor ends or its state is as wanted; return both."""
    context, deadline, state = RunningTask().context, time.monotonic() + 60, None
    summary, step = attempt(sensor.execute, context)
    while step:
        state = stored_state(sensor, step)
        if state and reached(state):
            break
        assert time.monotonic() < deadline, state
        event = asyncio.run(asyncio.wait_for(event_of(step.trigger), 60))
        summary, step = attempt(resumed, sensor, step, event, context)
    return summary, state


@pytest.mark.slow
def test_real_requests_are_captured_judged_and_never_mixed_between_models(endpoint):
    first = endpoint.configure("a")
    endpoint.sagemaker.create_endpoint(EndpointName=endpoint.name, EndpointConfigName=first)
    endpoint.wait_in_service(first)
    endpoint.send(healthy_rows(1000, seed=2)[0])
    summary, state = run_until(watch(endpoint), lambda state: state.looks == 1)
    assert summary is None
    assert (state.total.rows, state.total.requests) == (1000, 10)
    assert state.history[0].effects["temp"] < 0.1

    second = endpoint.configure("b")
    endpoint.sagemaker.update_endpoint(EndpointName=endpoint.name, EndpointConfigName=second)
    endpoint.wait_in_service(second)
    endpoint.send(healthy_rows(1000, seed=3, delay=8)[0])
    summary, _ = run_until(watch(endpoint), lambda state: False)
    assert summary["model"] == second
    assert (summary["rows"], summary["look"]) == (1000, 1)
    assert {feature["name"] for feature in summary["features"]} == {"delay", "prediction"}


def test_an_endpoint_that_captures_nothing_is_refused_with_the_way_out(endpoint):
    config = endpoint.configure("a", capture=False)
    endpoint.sagemaker.create_endpoint(EndpointName=endpoint.name, EndpointConfigName=config)
    endpoint.wait_in_service(config)
    with pytest.raises(AirflowFailException, match="captures no data: set DataCaptureConfig"):
        watch(endpoint).execute(RunningTask().context)
