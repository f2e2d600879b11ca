"""Transform jobs run the model's real container over real objects, with AWS's contract."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from batch_bench import Batches
from botocore.exceptions import ClientError
from serving import Serving, unique


@pytest.fixture
def model(serving: Serving) -> str:
    """A model that answers each line with its length."""
    return serving.model(score=True)


def lines(*values: str) -> str:
    return "".join(f"{value}\n" for value in values)


def test_every_object_gets_an_out_object_under_its_own_key(batches: Batches, model: str) -> None:
    batches.put("in/a.csv", lines("x", "xx", "xxx"))
    batches.put("in/year=2013/b.csv", "xxxx")
    job = batches.transform(model)
    assert job["TransformJobStatus"] == "Completed", job
    assert batches.stored("out/") == {"a.csv.out": lines("1", "2", "3"), "year=2013/b.csv.out": lines("4")}
    assert job["TransformStartTime"] < job["TransformEndTime"]
    assert job["TransformJobArn"].endswith(f":transform-job/{job['TransformJobName']}")
    assert job["TransformInput"]["SplitType"] == "Line"


def test_a_manifest_names_the_objects(batches: Batches, model: str) -> None:
    for name in ("a", "b", "c"):
        batches.put(f"in/{name}.csv", lines(name))
    manifest = batches.put("m.json", json.dumps([{"prefix": f"s3://{batches.bucket}/in/"}, "a.csv", "c.csv"]))
    source = {"DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": manifest}}}
    assert batches.transform(model, source=source)["TransformJobStatus"] == "Completed"
    assert set(batches.stored("out/")) == {"a.csv.out", "c.csv.out"}


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        pytest.param({}, [4], id="as many records as fit by default"),
        pytest.param({"BatchStrategy": "SingleRecord"}, [1, 1, 1, 1], id="one record"),
        pytest.param({"source": {"SplitType": "None"}}, [4], id="the whole object"),
    ],
)
def test_requests_have_the_records_asked_for(
    batches: Batches, model: str, changes: dict[str, Any], sizes: list[int]
) -> None:
    batches.put("in/a.csv", lines("x", "xx", "xxx", "xxxx"))
    job = batches.transform(model, output={"AssembleWith": "Line"}, **changes)
    assert batches.stored("out/") == {"a.csv.out": lines("1", "2", "3", "4")}, job
    printed = [
        line
        for stream, printed in batches.logs("TransformJobs", job["TransformJobName"]).items()
        if not stream.endswith("/data-log")
        for line in printed
    ]
    assert [line for line in printed if line.endswith("lines")] == [f"{size} lines" for size in sizes]


def test_requests_are_no_larger_than_asked_and_answers_keep_their_order(batches: Batches, model: str) -> None:
    rows = ["x" * (1 + number % 7) * 20_000 for number in range(40)]
    batches.put("in/a.csv", lines(*rows))
    job = batches.transform(model, MaxPayloadInMB=1, MaxConcurrentTransforms=4)
    assert batches.stored("out/") == {"a.csv.out": lines(*(str(len(row)) for row in rows))}
    assert batches.data_log(job["TransformJobName"]) == [
        "MaxConcurrentTransforms=4, MaxPayloadInMB=1, BatchStrategy=MULTI_RECORD"
    ]


def test_the_container_may_say_how_it_wants_its_requests(batches: Batches, serving: Serving) -> None:
    wishes = {"MaxConcurrentTransforms": 3, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2}
    batches.put("in/a.csv", lines("x", "xx"))
    job = batches.transform(serving.model(score=True, parameters=wishes), MaxPayloadInMB=5)
    assert batches.data_log(job["TransformJobName"]) == [
        "MaxConcurrentTransforms=3, MaxPayloadInMB=5, BatchStrategy=SINGLE_RECORD"
    ]


def test_objects_are_shared_by_the_instances(batches: Batches, model: str) -> None:
    for name in ("a", "b", "c"):
        batches.put(f"in/{name}.csv", lines(name))
    job = batches.transform(model, TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2})
    assert set(batches.stored("out/")) == {"a.csv.out", "b.csv.out", "c.csv.out"}
    assert len(batches.data_log(job["TransformJobName"])) == 2


def test_compressed_objects_are_unpacked(batches: Batches, model: str) -> None:
    batches.put("in/a.csv.gz", gzip.compress(b"x\nxx\n"))
    batches.transform(model, source={"CompressionType": "Gzip"})
    assert batches.stored("out/") == {"a.csv.gz.out": lines("1", "2")}


def test_columns_are_chosen_and_joined(batches: Batches, model: str) -> None:
    batches.put("in/a.csv", lines("id-1,x,y", 'id-2,"x,x",y'))
    processing = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    batches.transform(model, output={"AssembleWith": "Line"}, DataProcessing=processing)
    assert batches.stored("out/") == {"a.csv.out": lines("id-1,3", "id-2,7")}


@pytest.mark.parametrize(
    ("row", "reason", "headline"),
    [
        ("bad", "ClientError: See job logs for more information", "ClientError: 400"),
        ("worse", "AlgorithmError: See job logs for more information", "Bad HTTP status received from algorithm: 500"),
    ],
)
def test_a_refused_record_fails_the_job_and_the_data_log_has_the_container_s_words(
    batches: Batches, model: str, row: str, reason: str, headline: str
) -> None:
    batches.put("in/good.csv", lines("x"))
    batches.put("in/ill.csv", lines("x", row))
    job = batches.transform(model)
    assert (job["TransformJobStatus"], job["FailureReason"]) == ("Failed", reason)
    assert batches.stored("out/") == {"good.csv.out": lines("1")}
    place = f"{batches.bucket}/in/ill.csv"
    assert batches.data_log(job["TransformJobName"])[1:] == [
        f"{place}: {headline}",
        f"{place}: ",
        f"{place}: Message:",
        f"{place}: row 2 is {row}",
    ]


def test_a_failing_request_is_sent_again(batches: Batches, serving: Serving) -> None:
    batches.put("in/a.csv", "x\n")
    flaky = serving.model(fail_every=1)
    assert batches.transform(flaky, ModelClientConfig={"InvocationsMaxRetries": 0})["TransformJobStatus"] == "Failed"
    sometimes = serving.model(fail_every=2)
    source = {"SplitType": "Line"}
    batches.put("in/a.csv", "x\ny\n")
    job = batches.transform(sometimes, source=source, BatchStrategy="SingleRecord")
    assert job["TransformJobStatus"] == "Completed"
    refused = batches.transform(
        sometimes, source=source, BatchStrategy="SingleRecord", ModelClientConfig={"InvocationsMaxRetries": 0}
    )
    assert refused["FailureReason"].startswith("AlgorithmError")


def test_a_record_larger_than_a_request_fails_the_job(batches: Batches, model: str) -> None:
    batches.put("in/a.csv", "x" * 1_100_000)
    job = batches.transform(model, MaxPayloadInMB=1)
    assert job["FailureReason"] == "ClientError: See job logs for more information"
    assert batches.data_log(job["TransformJobName"])[-1].endswith("Too much data for max payload size")


def test_a_container_that_never_answers_its_ping_fails_the_job(batches: Batches, serving: Serving) -> None:
    batches.put("in/a.csv", "x")
    job = batches.transform(serving.model(exits=True))
    assert job["FailureReason"].startswith("AlgorithmError: Model container failed to respond to ping")


def test_a_prefix_without_objects_fails_the_job(batches: Batches, model: str) -> None:
    assert "No S3 objects found under S3 URL" in batches.transform(model)["FailureReason"]


def test_a_job_is_stopped_once(batches: Batches, serving: Serving) -> None:
    batches.put("in/a.csv", lines(*"abcdefgh"))
    request = batches.transform_request(serving.model(score=True, seconds=20.0), BatchStrategy="SingleRecord")
    name = request["TransformJobName"]
    batches.sagemaker.create_transform_job(**request)
    batches.transformed(name, lambda job: len(batches.data_log(name)) > 0)
    batches.sagemaker.stop_transform_job(TransformJobName=name)
    with pytest.raises(ClientError, match="The request was rejected because the transform job is in status Stop"):
        batches.sagemaker.stop_transform_job(TransformJobName=name)
    assert batches.transformed(name)["TransformJobStatus"] == "Stopped"
    assert batches.stored("out/") == {}


def test_jobs_are_listed_tagged_and_named_once(batches: Batches, model: str) -> None:
    batches.put("in/a.csv", "x")
    request = batches.transform_request(model, Tags=[{"Key": "team", "Value": "a"}])
    arn = batches.sagemaker.create_transform_job(**request)["TransformJobArn"]
    with pytest.raises(ClientError, match="ResourceInUse"):
        batches.sagemaker.create_transform_job(**request)
    name = request["TransformJobName"]
    batches.transformed(name)
    rows = batches.sagemaker.list_transform_jobs(NameContains=name, StatusEquals="Completed")["TransformJobSummaries"]
    assert [row["TransformJobName"] for row in rows] == [name]
    assert batches.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]


def test_names_that_nobody_has_are_refused_in_aws_s_words(batches: Batches) -> None:
    with pytest.raises(ClientError, match=r"ValidationException.*Could not find requested job with name: nobody"):
        batches.sagemaker.describe_transform_job(TransformJobName="nobody")
    with pytest.raises(ClientError, match=r"ValidationException.*Could not find job to update with name: nobody"):
        batches.sagemaker.stop_transform_job(TransformJobName="nobody")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"source": {"SplitType": "RecordIO"}}, "does not support SplitType RecordIO"),
        ({"MaxPayloadInMB": 101}, "cannot be greater than 100"),
        ({"MaxPayloadInMB": 0}, "does not support MaxPayloadInMB 0"),
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "cannot exceed 100"),
        ({"DataProcessing": {"InputFilter": "$.features"}}, "selects nothing from a CSV row"),
        ({"DataProcessing": {"InputFilter": "$[1:]"}}, "without SplitType Line and AssembleWith Line"),
        ({"DataCaptureConfig": {"DestinationS3Uri": "s3://b/c"}}, "does not support DataCaptureConfig"),
        ({"output": {"S3OutputPath": "s3://no-such-bucket-anywhere/out"}}, "does not exist"),
        ({"Environment": {f"K{number}": "v" for number in range(17)}}, "less than or equal to 16"),
    ],
)
def test_what_aws_or_this_machine_refuses_is_refused_at_creation(
    batches: Batches, model: str, changes: dict[str, Any], message: str
) -> None:
    request = batches.transform_request(model, **changes)
    with pytest.raises(Exception, match=message):
        batches.sagemaker.create_transform_job(**{**request, "TransformJobName": unique("refused")})
