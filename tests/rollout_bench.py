"""What tests of rollouts need: models that behave as told, traffic that counts its losses, and one task at a time."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import tarfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import TaskDeferred
from botocore.exceptions import ClientError
from running_task import RunningTask, resumed
from sns_inbox import Inbox

from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.launchers.business_metric import Window
from airflow_dlaws.launchers.rollout_scaling import VariantScaling
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator
from airflow_dlaws.rollout.report import RolloutRecord, RolloutReport
from airflow_dlaws.rollout.result import RolloutResult

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve-test:1"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
#: A canary of seconds: every wait is a real one.
QUICK = {
    "canary_percent": 50,
    "wait_seconds": 6,
    "termination_wait_seconds": 1,
    "poll_interval": 0.4,
    "min_requests": 5,
    "timeout": 120,
}


def lost_orders(endpoint_name: str, window: Window) -> dict[str, tuple[float, int]]:
    """A business metric by which green loses nearly all orders."""
    return {"green": (1.0, 50), "blue": (90.0, 300)}


def closed_warehouse(endpoint_name: str, window: Window) -> dict[str, tuple[float, int]]:
    """A business metric that nobody can read."""
    raise RuntimeError("the warehouse is closed")


#: Who answered the visits of the shop, and when (epoch seconds).
VISITS: list[tuple[float, str]] = []


def visits_that_order(endpoint_name: str, window: Window) -> dict[str, tuple[float, int]]:
    """A business metric of the visits there were: every second one of blue's is an order, and none of green's."""
    start, end = window.start.timestamp(), window.end.timestamp()
    served = Counter(name for at, name in list(VISITS) if start <= at < end)
    return {"green": (0.0, served["green"]), "blue": (served["blue"] / 2, served["blue"])}


class RolloutTask(RunningTask):
    """A try of the rollout task, in a run of some type."""

    def __init__(self, run_id: str = "run-1", **options: Any) -> None:
        super().__init__("rollout", run_id=run_id, **options)


class Traffic:
    """Requests to one endpoint, from a few threads, until stopped; counts how they were answered."""

    def __init__(self, aws: LocalAws, endpoint_name: str, *, per_second: float = 40.0, threads: int = 2) -> None:
        self.answers: Counter[str] = Counter()
        self._runtime, self._endpoint = aws.client("sagemaker-runtime"), endpoint_name
        self._pause, self._stop, self._numbers = threads / per_second, threading.Event(), itertools.count()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        for number in self._numbers:
            if self._stop.wait(self._pause):
                return
            answer = invoke(self._runtime, self._endpoint, number)
            self.answers[answer] += 1
            VISITS.append((time.time(), answer))


def invoke(runtime: Any, endpoint_name: str, number: int = 1) -> str:
    """Send one request; return who answered, or AWS's error code."""
    try:
        answer = runtime.invoke_endpoint(EndpointName=endpoint_name, Body=b"%d,2" % number, ContentType="text/csv")
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return str(json.loads(answer["Body"].read())["served_by"])


class RolloutBench:
    """One endpoint of the local AWS, and the rollouts on it."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.sagemaker, self.s3 = aws.client("sagemaker"), aws.client("s3")
        self.cloudwatch, self.runtime = aws.client("cloudwatch"), aws.client("sagemaker-runtime")
        self.name = f"e-{uuid.uuid4().hex[:10]}"
        self._scaled: Any = None
        #: Endpoints of other tests on the same AWS.
        self._others = {row.split()[0] for row in self._listed()}
        self.s3.create_bucket(Bucket=self.name)
        self.sagemaker.create_model_package_group(ModelPackageGroupName=self.name)

    def package(self, name: str, **behaviour: Any) -> str:
        """Register a model that behaves so; return the ARN of its package."""
        document = json.dumps({"name": name, **behaviour}).encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            member = tarfile.TarInfo("behaviour.json")
            member.size = len(document)
            tar.addfile(member, io.BytesIO(document))
        self.s3.put_object(Bucket=self.name, Key=f"{name}/model.tar.gz", Body=archive.getvalue())
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{self.name}/{name}/model.tar.gz"}
        answer = self.sagemaker.create_model_package(
            ModelPackageGroupName=self.name,
            ModelApprovalStatus="Approved",
            InferenceSpecification={
                "Containers": [container],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
            },
        )
        return str(answer["ModelPackageArn"])

    def serve(self, package_arn: str, *, variants: Sequence[str] = ("AllTraffic",)) -> None:
        """Put a package in service by hand, without a rollout."""
        name = f"{self.name}-by-hand"
        self.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"ModelPackageName": package_arn}
        )
        fleet = {"ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[{"VariantName": variant, **fleet} for variant in variants]
        )
        self.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=name)
        self.wait_until("it is in service", lambda: self.describe()["EndpointStatus"] == "InService")

    def scale(self, *, instances: int = 3) -> None:
        """Register the variant for autoscaling, and let it grow to so many instances, as autoscaling would."""
        names = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{self.name}/variant/AllTraffic",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }
        client = self.aws.client("application-autoscaling")
        client.register_scalable_target(**names, MinCapacity=1, MaxCapacity=4, Tags={"team": "flights"})
        client.put_scaling_policy(
            **names,
            PolicyName="tracking",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": 70.0,
                "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
            },
        )
        client.put_scheduled_action(
            **names,
            ScheduledActionName="morning",
            Schedule="cron(0 6 * * ? *)",
            StartTime=datetime(2026, 12, 1, tzinfo=UTC),
            ScalableTargetAction={"MinCapacity": 2},
        )
        self._scaled = self.scaling()
        self.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=self.name,
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": instances}],
        )
        self.wait_until("it has grown", lambda: self.describe()["EndpointStatus"] == "InService")

    def scaling(self) -> Any:
        """Return how the variant is registered for autoscaling, as a `ScalableTarget`; None where it is not."""
        return VariantScaling(self.aws.client, endpoint_name=self.name, variant_name="AllTraffic").read()

    def instances(self) -> int:
        """Return how many instances the endpoint's variant has."""
        (variant,) = self.describe()["ProductionVariants"]
        return int(variant["DesiredInstanceCount"])

    def arguments(self, package_arn: str, **options: Any) -> dict[str, Any]:
        """Return the operator's arguments to roll this package out on the endpoint."""
        arguments: dict[str, Any] = {
            "task_id": "rollout",
            "aws_conn_id": None,
            "endpoint_name": self.name,
            "model_package_arn": package_arn,
            "role_arn": ROLE,
            "instance_type": "ml.m5.large",
            "state_s3_uri": f"s3://{self.name}/state",
            "deferrable": False,
        }
        return {**arguments, **QUICK, **options}

    def operator(self, package_arn: str, **options: Any) -> BlueGreenRolloutOperator:
        """Return the operator with these arguments."""
        return BlueGreenRolloutOperator(**self.arguments(package_arn, **options))

    def roll_out(self, package_arn: str, task: RolloutTask | None = None, **options: Any) -> RolloutResult:
        """Run the operator to its end in this process."""
        task = task or RolloutTask(f"run-{uuid.uuid4().hex[:8]}")
        return from_json(RolloutResult, self.operator(package_arn, **options).execute(task.context))

    def begin(self, package_arn: str, task: RolloutTask, **options: Any) -> TaskDeferred:
        """Run the operator until it defers, as a worker does."""
        try:
            self.operator(package_arn, deferrable=True, **options).execute(task.context)
        except TaskDeferred as deferred:
            return deferred
        raise AssertionError("the task did not defer")

    def go_on(self, deferred: TaskDeferred, package_arn: str, task: RolloutTask, **options: Any) -> RolloutResult:
        """Run trigger and operator in turns until the task ends, as triggerer and worker do."""
        while True:
            event = asyncio.run(first_event(remade(deferred.trigger)))
            operator = self.operator(package_arn, deferrable=True, **options)
            try:
                return from_json(RolloutResult, resumed(operator, deferred, event, task.context))
            except TaskDeferred as again:
                deferred = again

    def now(self) -> float:
        """Return the time, in epoch seconds."""
        return time.time()

    def describe(self) -> dict[str, Any]:
        """Return DescribeEndpoint's answer."""
        return dict(self.sagemaker.describe_endpoint(EndpointName=self.name))

    def live_config(self) -> str:
        """Return the configuration in service; fail if the endpoint is doing anything else."""
        answer = self.describe()
        assert answer["EndpointStatus"] == "InService", answer
        assert not answer.get("PendingDeploymentSummary"), answer
        return str(answer["EndpointConfigName"])

    def others(self) -> list[str]:
        """Return the endpoints that no bench has made, that are not being deleted, and were not there before."""
        return [row for row in self._listed() if row.split()[0] not in self._others]

    def _listed(self) -> list[str]:
        rows = self.sagemaker.list_endpoints()["Endpoints"]
        return [
            f"{row['EndpointName']} {row['EndpointStatus']}"
            for row in rows
            if not row["EndpointName"].startswith("e-") and row["EndpointStatus"] != "Deleting"
        ]

    def topic(self, inbox: Inbox) -> str:
        """Return the ARN of a topic that tells this inbox."""
        sns = self.aws.client("sns")
        arn = str(sns.create_topic(Name=self.name)["TopicArn"])
        sns.subscribe(TopicArn=arn, Protocol="http", Endpoint=inbox.url)
        return arn

    def told(self, inbox: Inbox) -> list[str]:
        """Return the events that an inbox was told of this endpoint, in their order."""
        texts = [str(message.get("Message", "")) for message in inbox.messages]
        events = [json.loads(text) for text in texts if self.name in text and "event" in text]
        return [str(event["event"]) for event in events]

    def samples(self, *lines: str) -> str:
        """Store sample requests; return their location."""
        self.s3.put_object(Bucket=self.name, Key="samples.csv", Body="\n".join([*lines, ""]).encode())
        return f"s3://{self.name}/samples.csv"

    def wait_until(self, what: str, condition: Any, *, seconds: float = 30.0) -> None:
        """Poll until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s; {self.describe()}"
            time.sleep(0.05)

    def alarms(self) -> list[str]:
        """Return the names of the alarms that watch this endpoint."""
        rows = self.cloudwatch.describe_alarms()["MetricAlarms"]
        return [
            row["AlarmName"]
            for row in rows
            if {"Name": "EndpointName", "Value": self.name} in row.get("Dimensions", [])
        ]

    def keys(self) -> list[str]:
        """Return what lies under the rollouts' state."""
        answer = self.s3.list_objects_v2(Bucket=self.name, Prefix=f"state/rollouts/{self.name}/")
        return [row["Key"].rpartition("/")[2] for row in answer.get("Contents", [])]

    def only_config(self) -> str:
        """Return the configuration of the one rollout here."""
        (config_name,) = self.configs()
        return config_name

    def configs(self) -> set[str]:
        """Return the configurations of the rollouts here."""
        return {key.partition(".")[0] for key in self.keys()} - {"lock"}

    def record(self, config_name: str) -> RolloutRecord:
        """Return the state file of a rollout."""
        return from_json(RolloutRecord, self._read(f"{config_name}.json"))

    def report(self, config_name: str) -> RolloutReport:
        """Return the report of a rollout."""
        return from_json(RolloutReport, self._read(f"{config_name}.report.json"))

    def key(self, name: str) -> str:
        """Return the key of a file of the rollouts' state."""
        return f"state/rollouts/{self.name}/{name}"

    def _read(self, name: str) -> Any:
        answer = self.s3.get_object(Bucket=self.name, Key=self.key(name))
        return json.loads(answer["Body"].read())

    def assert_tidy(self) -> None:
        """No alarm, no lock, no shadow and no throw-away endpoint is left, and autoscaling is as it was."""
        assert self.others() == []
        assert self.alarms() == []
        assert "lock.json" not in self.keys()
        assert self.shadows() == []
        if self._scaled:
            assert self.scaling() == self._scaled

    def shadows(self) -> list[str]:
        """Return the configurations with a shadow that are left, the endpoint's own among them."""
        names = {key.partition(".")[0] for key in self.keys()} - {"lock"}
        pages = self.sagemaker.get_paginator("list_endpoint_configs").paginate()
        there = {row["EndpointConfigName"] for page in pages for row in page["EndpointConfigs"]}
        left = {self.record(name).state.shadow_config for name in names} & there
        endpoints = self.sagemaker.list_endpoints(NameContains=self.name)["Endpoints"]
        shadowed = endpoints and "ShadowProductionVariants" in self.describe()
        return sorted([*left, *(["in service"] if shadowed else [])])


def remade(trigger: Any) -> Any:
    """Return the trigger as a triggerer makes it: from its class path and its JSON arguments."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)(**json.loads(json.dumps(arguments)))


async def first_event(trigger: Any) -> Any:
    """Return the payload of a trigger's event."""
    return await anext(event.payload async for event in trigger.run())
