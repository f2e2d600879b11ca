"""The server as its clients see it: what it serves, what it refuses, and on which interface."""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from trainer import Trainer

from airflow_dlaws.local.process import LocalAws, LocalAwsError


def test_moto_serves_its_services_behind_the_one_endpoint(local_aws: LocalAws, bucket: str) -> None:
    s3 = local_aws.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"body"
    assert local_aws.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert local_aws.client("sns").create_topic(Name="topic")["TopicArn"].endswith(":topic")
    assert isinstance(local_aws.client("dynamodb").list_tables()["TableNames"], list)
    assert isinstance(local_aws.client("iam").list_roles()["Roles"], list)
    scaling = local_aws.client("application-autoscaling")
    assert isinstance(scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"], list)


def test_a_presigned_url_can_be_read(local_aws: LocalAws, bucket: str) -> None:
    s3 = local_aws.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"body"


@pytest.mark.parametrize(
    ("service", "operation"),
    [("ec2", "describe_instances"), ("glue", "get_jobs"), ("kms", "list_keys"), ("sqs", "list_queues")],
)
def test_a_service_nobody_tried_is_refused(local_aws: LocalAws, service: str, operation: str) -> None:
    with pytest.raises(ClientError, match=rf"does not support the service '{service}'") as refused:
        getattr(local_aws.client(service), operation)()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_an_operation_we_do_not_have_is_refused_at_once_with_those_we_have(local_aws: LocalAws) -> None:
    with pytest.raises(ClientError, match=r"does not support ListApps\. It supports .*CreateTrainingJob") as refused:
        local_aws.client("sagemaker").list_apps()
    assert refused.value.response["ResponseMetadata"]["RetryAttempts"] == 0


def test_it_listens_on_the_loopback_interface_only(local_aws: LocalAws) -> None:
    port = urlsplit(local_aws.endpoint_url).port
    assert port
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=5):  # noqa: PT011
        pass


def test_a_throttled_operation_answers_with_the_code_that_clients_retry(trainer: Trainer) -> None:
    trainer.aws.order_fault(kind="throttle", target="ListTrainingJobs", every=2)
    try:
        answers = [trainer.sagemaker.list_training_jobs()["ResponseMetadata"]["RetryAttempts"] for _ in range(3)]
    finally:
        trainer.aws.clear_faults()
    assert answers == [0, 1, 1]


def test_an_ordered_error_is_answered_once(trainer: Trainer) -> None:
    trainer.aws.order_fault(
        kind="error", target="CreateTrainingJob", times=1, code="ResourceLimitExceeded", message="The account-level"
    )
    with pytest.raises(trainer.sagemaker.exceptions.ResourceLimitExceeded, match="The account-level"):
        trainer.start()
    assert trainer.run()["TrainingJobStatus"] == "Completed"


def test_a_fault_that_does_not_exist_cannot_be_ordered(local_aws: LocalAws) -> None:
    with pytest.raises(LocalAwsError, match="is no fault"):
        local_aws.order_fault(kind="flood")


def test_health_tells_what_runs_here(local_aws: LocalAws) -> None:
    health = local_aws.health()
    assert health["endpoint_url"] == local_aws.endpoint_url
    assert health["isolation"] in {"namespaces", "user_namespaces", "environment"}


def test_tags_follow_a_resource(trainer: Trainer) -> None:
    job = trainer.run(Tags=[{"Key": "digest", "Value": "abc"}])
    arn, sagemaker = job["TrainingJobArn"], trainer.sagemaker
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "owner", "Value": "me"}])
    assert {tag["Key"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]} == {"digest", "owner"}
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["owner"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "digest", "Value": "abc"}]
    with pytest.raises(ClientError, match="Could not find resource"):
        sagemaker.list_tags(ResourceArn=arn + "-other")
