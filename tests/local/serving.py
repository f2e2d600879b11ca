"""Models and endpoints for tests: small ones that start in a moment, and steady traffic that counts what it gets."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_dlaws.local.process import LocalAws

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve-test:1"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
VARIANT = "AllTraffic"


def unique(prefix: str) -> str:
    """Return a name nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class Clients:
    """The clients these tests need; making them takes longer than most tests."""

    def __init__(self, aws: LocalAws) -> None:
        session = boto3.session.Session("local", "local", region_name="us-east-1")

        def client(service: str, **options: Any) -> Any:
            return session.client(service, endpoint_url=aws.endpoint_url, **options)

        self.sagemaker, self.s3, self.cloudwatch = client("sagemaker"), client("s3"), client("cloudwatch")
        self.logs, self.sns = client("logs"), client("sns")
        #: Never tries again: a lost request shows.
        once = Config(retries={"total_max_attempts": 1}, max_pool_connections=50)
        self.runtime = client("sagemaker-runtime", config=once)


class Serving:
    """Makes models and endpoints in one bucket of one local AWS."""

    def __init__(self, aws: LocalAws, clients: Clients, bucket: str) -> None:
        self.aws, self.bucket = aws, bucket
        self.sagemaker, self.s3, self.cloudwatch = clients.sagemaker, clients.s3, clients.cloudwatch
        self.runtime, self.logs, self.sns = clients.runtime, clients.logs, clients.sns
        self._endpoints: list[str] = []

    def artifact(self, **behaviour: Any) -> str:
        """Store a model.tar.gz whose model behaves like this; return its location."""
        text = json.dumps({"name": "model", **behaviour}).encode()
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as tar:
            entry = tarfile.TarInfo("behaviour.json")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        key = f"models/{uuid.uuid4().hex}/model.tar.gz"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content.getvalue())
        return f"s3://{self.bucket}/{key}"

    def model(self, *, image: str = IMAGE, environment: dict[str, str] | None = None, **behaviour: Any) -> str:
        """Create a model; return its name."""
        name = unique("model")
        container = {"Image": image, "ModelDataUrl": self.artifact(**behaviour), "Environment": environment or {}}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        return name

    def config(self, *models: str, variants: list[dict[str, Any]] | None = None, **changes: Any) -> str:
        """Create an endpoint configuration, of one model or of full variants; return its name."""
        name = unique("config")
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=variants or [variant(model) for model in models],
            **changes,
        )
        return name

    def config_of(self, name: str, **behaviour: Any) -> str:
        """Create a model that answers by `name`, and a configuration with it."""
        return self.config(self.model(name=name, **behaviour))

    def create(self, config: str, **changes: Any) -> str:
        """Create an endpoint; return its name."""
        name = unique("endpoint")
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config, **changes)
        return self.adopt(name)

    def adopt(self, name: str) -> str:
        """Let an endpoint that someone else creates be deleted after the test; return its name."""
        self._endpoints.append(name)
        return name

    def endpoint(self, config: str, **changes: Any) -> str:
        """Create an endpoint and wait until it serves; return its name."""
        name = self.create(config, **changes)
        description = self.settled(name)
        assert description["EndpointStatus"] == "InService", description
        return name

    def describe(self, name: str) -> dict[str, Any]:
        """Return the endpoint's description."""
        return dict(self.sagemaker.describe_endpoint(EndpointName=name))

    def settled(self, name: str) -> dict[str, Any]:
        """Wait until no change is under way."""
        return self.until(name, lambda one: one["EndpointStatus"] not in {"Creating", "Updating", "SystemUpdating"})

    def until(self, name: str, reached: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        """Wait for something about an endpoint."""
        deadline = time.monotonic() + seconds
        while not reached(one := self.describe(name)):
            assert time.monotonic() < deadline, one
            time.sleep(0.05)
        return one

    def update(self, name: str, config: str, **changes: Any) -> None:
        """Start an update."""
        self.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config, **changes)

    def invoke(self, name: str, body: bytes = b"1", kind: str = "text/csv", **changes: Any) -> dict[str, Any]:
        """Invoke an endpoint; the answer has its `Body` as bytes."""
        answer = self.runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType=kind, **changes)
        return {**answer, "Body": answer["Body"].read()}

    def served_by(self, name: str, **changes: Any) -> str:
        """Return the name of the model that answers."""
        return str(json.loads(self.invoke(name, **changes)["Body"])["served_by"])

    def alarm(self, **changes: Any) -> str:
        """Create an alarm on a metric that nobody publishes, which keeps the state it is put in; return its name."""
        name = unique("alarm")
        self.cloudwatch.put_metric_alarm(
            **{
                "AlarmName": name,
                "Namespace": "Tests",
                "MetricName": name,
                "Statistic": "Sum",
                "Period": 60,
                "EvaluationPeriods": 1,
                "Threshold": 1.0,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "TreatMissingData": "ignore",
                **changes,
            }
        )
        return name

    def alarm_state(self, name: str) -> str:
        """Return an alarm's state."""
        (alarm,) = self.cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
        return str(alarm["StateValue"])

    def delete_endpoints(self) -> None:
        """Delete what was made here."""
        for name in self._endpoints:
            with contextlib.suppress(ClientError):  # the test may have deleted it itself
                self.settled(name)
                self.sagemaker.delete_endpoint(EndpointName=name)


def variant(model: str, name: str = VARIANT, **changes: Any) -> dict[str, Any]:
    """One production variant."""
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **changes,
    }


def deployment(kind: str, *alarms: str, wait: int = 0, end: int = 0, **sizes: Any) -> dict[str, Any]:
    """A DeploymentConfig."""
    policy = {
        "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": wait, **sizes},
        "TerminationWaitInSeconds": end,
    }
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}} if alarms else {}
    return {"BlueGreenUpdatePolicy": policy, **rollback}


def rolling(size: dict[str, Any], *alarms: str, wait: int = 0, **changes: Any) -> dict[str, Any]:
    """A DeploymentConfig that replaces batches of instances."""
    policy = {"MaximumBatchSize": size, "WaitIntervalInSeconds": wait, **changes}
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}} if alarms else {}
    return {"RollingUpdatePolicy": policy, **rollback}


def percent(value: int) -> dict[str, Any]:
    """A CapacitySize in per cent."""
    return {"Type": "CAPACITY_PERCENT", "Value": value}


class Traffic:
    """Requests without pause, from several threads, while the `with` block runs."""

    def __init__(self, serving: Serving, endpoint: str, threads: int = 3) -> None:
        self._serving, self._endpoint = serving, endpoint
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._answers: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> Counter[str]:
        """How many answers each model has given so far."""
        with self._lock:
            return self._answers.copy()

    def more(self, count: int) -> Counter[str]:
        """Wait for so many answers (or errors) from now on; return which models gave them."""
        before = self.answers
        deadline = time.monotonic() + 60
        while (new := self.answers - before).total() < count:
            assert time.monotonic() < deadline, (new, self.errors[:3])
            time.sleep(0.02)
        return new

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                name = self._serving.served_by(self._endpoint)
            except Exception as error:
                self.errors.append(error)
            else:
                with self._lock:
                    self._answers[name] += 1
