"""Processing jobs are real processes with AWS's contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from batch_bench import Batches, processing_input, processing_output
from botocore.exceptions import ClientError
from serving import unique


def test_a_job_reads_its_inputs_and_leaves_its_outputs(batches: Batches) -> None:
    source = batches.put("in/a.csv", "1\n2\n").removesuffix("a.csv")
    job = batches.process(
        "wc -l < /opt/ml/processing/data/a.csv > /opt/ml/processing/report/deep.txt;"
        " echo 'two rows' > /opt/ml/output/message; echo counted for $TEAM",
        ProcessingInputs=[processing_input("data", source)],
        ProcessingOutputConfig=processing_output("report", f"s3://{batches.bucket}/report"),
        Environment={"TEAM": "a"},
    )
    assert (job["ProcessingJobStatus"], job["ExitMessage"]) == ("Completed", "two rows"), job
    assert batches.stored("report/") == {"deep.txt": "2\n"}
    assert job["ProcessingStartTime"] < job["ProcessingEndTime"]
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}
    (host, printed) = next(iter(batches.logs("ProcessingJobs", job["ProcessingJobName"]).items()))
    assert host.startswith("algo-1-")
    assert printed == ["counted for a"]


def test_each_host_finds_its_configuration_and_its_share(batches: Batches) -> None:
    for name in ("a", "b", "c"):
        batches.put(f"in/{name}.csv", name)
    job = batches.process(
        "cp /opt/ml/config/resourceconfig.json /opt/ml/processing/out/$(uname -n).json;"
        " cp /opt/ml/config/processingjobconfig.json /opt/ml/processing/out/;"
        " ls /opt/ml/processing/data > /opt/ml/processing/out/$(uname -n).txt",
        instances=2,
        ProcessingInputs=[
            processing_input("data", f"s3://{batches.bucket}/in/", S3DataDistributionType="ShardedByS3Key")
        ],
        ProcessingOutputConfig=processing_output("out", f"s3://{batches.bucket}/out"),
    )
    stored = batches.stored("out/")
    assert stored["algo-1.txt"].split() == ["a.csv", "c.csv"]
    assert stored["algo-2.txt"].split() == ["b.csv"]
    resources = json.loads(stored["algo-2.json"])
    assert (resources["current_host"], resources["hosts"]) == ("algo-2", ["algo-1", "algo-2"])
    configuration = json.loads(stored["processingjobconfig.json"])
    assert configuration["ProcessingJobArn"] == job["ProcessingJobArn"]
    assert configuration["ProcessingInputs"][0]["InputName"] == "data"


def test_the_exit_code_decides_and_the_message_is_kept(batches: Batches) -> None:
    job = batches.process(
        "echo 'no rows' > /opt/ml/output/message; echo x > /opt/ml/processing/out/x; exit 3",
        ProcessingOutputConfig=processing_output("out", f"s3://{batches.bucket}/out"),
    )
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: , exit code: 3"
    assert job["ExitMessage"] == "no rows"
    assert batches.stored("out/") == {}


def test_continuous_outputs_arrive_while_the_job_runs_and_a_stop_keeps_them(batches: Batches) -> None:
    request = batches.processing_request(
        "echo 1 > /opt/ml/processing/out/1; trap 'echo 2 > /opt/ml/processing/out/2; exit 0' TERM; sleep 60 & wait",
        ProcessingOutputConfig=processing_output("out", f"s3://{batches.bucket}/out", "Continuous"),
    )
    name = request["ProcessingJobName"]
    batches.sagemaker.create_processing_job(**request)
    job = batches.processed(name, lambda job: batches.stored("out/") == {"1": "1\n"})
    assert job["ProcessingJobStatus"] == "InProgress"
    batches.sagemaker.stop_processing_job(ProcessingJobName=name)
    with pytest.raises(ClientError, match="The request was rejected because the processing job is in status Stop"):
        batches.sagemaker.stop_processing_job(ProcessingJobName=name)
    assert batches.processed(name)["ProcessingJobStatus"] == "Stopped"
    assert batches.stored("out/") == {"1": "1\n", "2": "2\n"}


def test_a_job_over_its_time_is_stopped(batches: Batches) -> None:
    job = batches.process("sleep 60", StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert job["ProcessingJobStatus"] == "Stopped"


def test_a_program_that_is_not_there_cannot_start(batches: Batches) -> None:
    app = {**batches.processing_request("")["AppSpecification"], "ContainerEntrypoint": ["/no/such/program"]}
    assert "CannotStartContainerError" in batches.process("", AppSpecification=app)["FailureReason"]


def test_jobs_are_listed_tagged_and_named_once(batches: Batches) -> None:
    request = batches.processing_request("true", Tags=[{"Key": "team", "Value": "a"}])
    arn = batches.sagemaker.create_processing_job(**request)["ProcessingJobArn"]
    with pytest.raises(ClientError, match="ResourceInUse"):
        batches.sagemaker.create_processing_job(**request)
    name = request["ProcessingJobName"]
    batches.processed(name)
    rows = batches.sagemaker.list_processing_jobs(NameContains=name)["ProcessingJobSummaries"]
    assert [(row["ProcessingJobName"], row["ProcessingJobStatus"]) for row in rows] == [(name, "Completed")]
    assert batches.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    for ask in (batches.sagemaker.describe_processing_job, batches.sagemaker.stop_processing_job):
        with pytest.raises(ClientError, match=r"ValidationException.*Could not find requested job with name: nobody"):
            ask(ProcessingJobName="nobody")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AppSpecification": {"ImageUri": "image"}}, "without ContainerEntrypoint"),
        ({"ProcessingInputs": [{"InputName": "a", "AppManaged": True}]}, "does not support AppManaged"),
        ({"ProcessingInputs": [processing_input("a", "s3://none-such-bucket/a")]}, "No S3 objects found"),
        ({"ProcessingInputs": [processing_input("a", "s3://b/a", S3InputMode="Pipe")]}, "S3InputMode Pipe"),
        ({"ProcessingInputs": [processing_input("a", "s3://b/a", LocalPath="/tmp/a")]}, "must be an absolute path"),
        ({"ProcessingInputs": [processing_input("a", "s3://b/a", LocalPath="/opt/ml/processing/../x")]}, "must be an"),
        ({"ProcessingOutputConfig": processing_output("a", "s3://none-such-bucket/a")}, "does not exist"),
    ],
)
def test_what_aws_or_this_machine_refuses_is_refused_at_creation(
    batches: Batches, changes: dict[str, Any], message: str
) -> None:
    request = {**batches.processing_request("true", **changes), "ProcessingJobName": unique("refused")}
    with pytest.raises(ClientError, match=message):
        batches.sagemaker.create_processing_job(**request)
