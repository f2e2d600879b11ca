"""Training jobs are real processes with AWS's contract."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from trainer import Trainer, channel


def members(trainer: Trainer, location: str) -> dict[str, str]:
    """Return the files of an archive in S3."""
    bucket, _, key = location.removeprefix("s3://").partition("/")
    body = trainer.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {name: archive.extractfile(name).read().decode() for name in archive.getnames()}  # type: ignore[union-attr]


def test_a_job_goes_through_the_states_of_aws_and_leaves_its_model(trainer: Trainer) -> None:
    job = trainer.run("echo weights > /opt/ml/model/model.pt; echo report > /opt/ml/output/data/report.txt")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    states = [row["Status"] for row in job["SecondaryStatusTransitions"]]
    assert states == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    model = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert model == f"s3://{trainer.bucket}/out/{job['TrainingJobName']}/output/model.tar.gz"
    assert members(trainer, model) == {"model.pt": "weights\n"}
    assert members(trainer, model.replace("model.tar", "output.tar")) == {"report.txt": "report\n"}
    assert job["TrainingStartTime"] < job["TrainingEndTime"]
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1


def test_a_model_can_be_left_uncompressed(trainer: Trainer) -> None:
    output = {"S3OutputPath": f"s3://{trainer.bucket}/out/", "CompressionType": "NONE"}
    job = trainer.run("mkdir /opt/ml/model/code; echo x > /opt/ml/model/code/inference.py", OutputDataConfig=output)
    prefix = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert prefix == f"s3://{trainer.bucket}/out/{job['TrainingJobName']}/output/model/"
    key = prefix.removeprefix(f"s3://{trainer.bucket}/") + "code/inference.py"
    assert trainer.s3.get_object(Bucket=trainer.bucket, Key=key)["Body"].read() == b"x\n"


def test_each_host_finds_its_configuration(trainer: Trainer) -> None:
    trainer.put("train/a.csv", "1")
    job = trainer.run(
        "cd /opt/ml/input/config; for f in resourceconfig hyperparameters inputdataconfig; do"
        " python3 -c 'import json,sys; print(json.dumps(json.load(open(sys.argv[1]))))' $f.json; done;"
        " echo $TRAINING_JOB_NAME $AWS_REGION $COLOUR $(uname -n)",
        instances=2,
        HyperParameters={"lr": "0.1"},
        Environment={"COLOUR": "red"},
        InputDataConfig=[channel("train", f"s3://{trainer.bucket}/train/") | {"ContentType": "text/csv"}],
    )
    logs = trainer.logs(job["TrainingJobName"])
    assert set(logs) == {"algo-1", "algo-2"}
    for host, lines in logs.items():
        resources, hyperparameters, channels = (json.loads(line) for line in lines[:3])
        assert resources["current_host"] == host
        assert resources["hosts"] == ["algo-1", "algo-2"]
        assert resources["current_instance_type"] == "ml.m5.large"
        assert hyperparameters == {"lr": "0.1"}
        assert channels["train"]["TrainingInputMode"] == "File"
        assert channels["train"]["ContentType"] == "text/csv"
        assert lines[3].split()[:3] == [job["TrainingJobName"], "us-east-1", "red"]


def test_channels_are_replicated_sharded_or_listed_in_a_manifest(trainer: Trainer) -> None:
    for name in ("a", "b", "c"):
        trainer.put(f"data/{name}.csv", name)
    prefix = f"s3://{trainer.bucket}/data"
    manifest = trainer.put("manifest.json", json.dumps([{"prefix": f"{prefix}/"}, "b.csv", "c.csv"]))
    job = trainer.run(
        "cd /opt/ml/input/data; for c in all shard listed; do echo $c $(ls $c); done",
        instances=2,
        InputDataConfig=[
            channel("all", prefix),
            channel("shard", f"{prefix}/", S3DataDistributionType="ShardedByS3Key"),
            channel("listed", manifest, S3DataType="ManifestFile"),
        ],
    )
    assert trainer.logs(job["TrainingJobName"]) == {
        "algo-1": ["all a.csv b.csv c.csv", "shard a.csv c.csv", "listed b.csv c.csv"],
        "algo-2": ["all a.csv b.csv c.csv", "shard b.csv", "listed b.csv c.csv"],
    }


def test_logs_and_metrics_arrive_while_the_job_runs(trainer: Trainer) -> None:
    request = trainer.request("echo 'loss=0.5;'; sleep 60")
    request["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=([0-9.]+);"}]
    trainer.sagemaker.create_training_job(**request)
    name = request["TrainingJobName"]
    job = trainer.wait(name, lambda job: bool(job.get("FinalMetricDataList")))
    assert job["TrainingJobStatus"] == "InProgress"
    assert job["FinalMetricDataList"][0]["Value"] == 0.5
    assert trainer.logs(name) == {"algo-1": ["loss=0.5;"]}
    statistics = trainer.aws.client("cloudwatch").get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName="loss",
        Dimensions=[{"Name": "TrainingJobName", "Value": name}],
        StartTime=time.time() - 600,
        EndTime=time.time() + 60,
        Period=600,
        Statistics=["Maximum"],
    )
    assert [point["Maximum"] for point in statistics["Datapoints"]] == [0.5]
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    trainer.wait(name)


def test_checkpoints_are_restored_and_kept_in_step(trainer: Trainer) -> None:
    trainer.put("ckpt/epoch", "3\n")
    name = trainer.start(
        "cat /opt/ml/checkpoints/epoch; echo 4 > /opt/ml/checkpoints/epoch; mkdir /opt/ml/checkpoints/d;"
        " echo 5 > /opt/ml/checkpoints/d/e; sleep 60",
        CheckpointConfig={"S3Uri": f"s3://{trainer.bucket}/ckpt/"},
    )

    def stored() -> dict[str, str]:
        rows = trainer.s3.list_objects_v2(Bucket=trainer.bucket, Prefix="ckpt/")["Contents"]
        bodies = {row["Key"]: trainer.s3.get_object(Bucket=trainer.bucket, Key=row["Key"])["Body"] for row in rows}
        return {key: body.read().decode().strip() for key, body in bodies.items()}

    job = trainer.wait(name, lambda job: stored() == {"ckpt/epoch": "4", "ckpt/d/e": "5"})
    assert job["TrainingJobStatus"] == "InProgress"
    assert trainer.logs(name)["algo-1"] == ["3"]
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    trainer.wait(name)


def test_a_stop_is_a_sigterm_and_the_artifact_is_still_uploaded(trainer: Trainer) -> None:
    name = trainer.start("trap 'echo saved > /opt/ml/model/model.pt; exit 0' TERM; echo ready; sleep 60 & wait")
    trainer.wait(name, lambda job: trainer_is_ready(trainer, job))
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    with pytest.raises(ClientError, match="rejected because the training job is in status Stop"):
        trainer.sagemaker.stop_training_job(TrainingJobName=name)
    job = trainer.wait(name)
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    assert [row["Status"] for row in job["SecondaryStatusTransitions"]][-3:] == ["Stopping", "Uploading", "Stopped"]
    assert members(trainer, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"model.pt": "saved\n"}


def trainer_is_ready(trainer: Trainer, job: dict[str, Any]) -> bool:
    """Tell whether the script has printed its first line; it has set its traps before that."""
    return job["SecondaryStatus"] == "Training" and trainer.logs(job["TrainingJobName"]) == {"algo-1": ["ready"]}


def test_a_script_deaf_to_sigterm_is_killed_after_the_grace_period(trainer: Trainer) -> None:
    name = trainer.start("trap '' TERM; echo ready; while true; do sleep 1; done")
    trainer.wait(name, lambda job: trainer_is_ready(trainer, job))
    begin = time.monotonic()
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    assert trainer.wait(name)["TrainingJobStatus"] == "Stopped"
    assert 120 * 0.05 <= time.monotonic() - begin < 30


def test_a_job_over_its_time_is_stopped_not_failed(trainer: Trainer) -> None:
    job = trainer.run("sleep 60", StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_failed_script_gives_its_words_and_its_exit_code(trainer: Trainer) -> None:
    job = trainer.run("echo 'ValueError: no such column' > /opt/ml/output/failure; exit 3")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: ValueError: no such column, exit code: 3"
    assert "ModelArtifacts" not in job or not job["ModelArtifacts"].get("S3ModelArtifacts")


def test_a_host_that_dies_fails_the_job_and_ends_the_others(trainer: Trainer) -> None:
    begin = time.monotonic()
    job = trainer.run('test "$(uname -n)" = algo-2 -o "$SM_CURRENT_HOST" = algo-2 && kill -9 $$; sleep 60', instances=2)
    assert job["FailureReason"] == "AlgorithmError: , exit code: 137"
    assert time.monotonic() - begin < 30


def test_a_machine_that_is_lost_is_the_fault_of_the_service(trainer: Trainer) -> None:
    before = set(trainer.aws.children())
    name = trainer.start("sleep 60")
    trainer.wait(name, lambda job: job["SecondaryStatus"] == "Training" and set(trainer.aws.children()) != before)
    (supervisor,) = set(trainer.aws.children()) - before
    os.kill(supervisor, signal.SIGKILL)
    job = trainer.wait(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError")


def test_an_input_prefix_without_objects_fails_the_job(trainer: Trainer) -> None:
    job = trainer.run(InputDataConfig=[channel("train", f"s3://{trainer.bucket}/nothing/")])
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed:No S3 objects found under S3 URL")
    assert f"s3://{trainer.bucket}/nothing/" in job["FailureReason"]


def test_a_missing_manifest_fails_the_job(trainer: Trainer) -> None:
    uri = f"s3://{trainer.bucket}/missing.manifest"
    job = trainer.run(InputDataConfig=[channel("train", uri, S3DataType="ManifestFile")])
    assert job["FailureReason"].startswith("ClientError: Data download failed:")
    assert uri in job["FailureReason"]


def test_an_unregistered_image_fails_the_job_and_says_how_to_register(trainer: Trainer) -> None:
    request = trainer.request()
    request["AlgorithmSpecification"]["TrainingImage"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/unknown:1"
    trainer.sagemaker.create_training_job(**request)
    reason = trainer.wait(request["TrainingJobName"])["FailureReason"]
    assert reason.startswith("ClientError: Cannot pull algorithm container.")
    assert "dlaws local up --image" in reason


def test_a_program_that_is_not_in_the_image_fails_the_job(trainer: Trainer) -> None:
    request = trainer.request()
    request["AlgorithmSpecification"]["TrainingImage"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve-test:1"
    del request["AlgorithmSpecification"]["ContainerEntrypoint"]  # so it is `train`, which that image has not
    trainer.sagemaker.create_training_job(**request)
    reason = trainer.wait(request["TrainingJobName"])["FailureReason"]
    assert reason.startswith("AlgorithmError: CannotStartContainerError.")


def test_capacity_that_is_missing_fails_the_job_before_it_starts(trainer: Trainer) -> None:
    trainer.aws.order_fault(kind="capacity", times=1)
    job = trainer.run()
    assert job["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity.")
    assert "TrainingStartTime" not in job
    assert trainer.run()["TrainingJobStatus"] == "Completed"


def test_of_two_creates_at_once_exactly_one_wins(trainer: Trainer) -> None:
    request = trainer.request()
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        client = trainer.aws.client("sagemaker")
        barrier.wait()
        try:
            client.create_training_job(**request)
            outcomes.append("created")
        except client.exceptions.ResourceInUse as error:
            outcomes.append(error.response["Error"]["Message"])

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("created") == 1
    refusals = [outcome for outcome in outcomes if outcome != "created"]
    assert len(refusals) == 7
    assert all(
        text.startswith("Training job names must be unique within an AWS account and region") for text in refusals
    )
    trainer.wait(request["TrainingJobName"])


def test_a_name_is_taken_for_ever_but_only_in_its_region(trainer: Trainer) -> None:
    request = trainer.request()
    trainer.sagemaker.create_training_job(**request)
    trainer.wait(request["TrainingJobName"])
    with pytest.raises(trainer.sagemaker.exceptions.ResourceInUse):
        trainer.sagemaker.create_training_job(**request)
    other = trainer.aws.client("sagemaker", "eu-west-1")
    with pytest.raises(ClientError, match="Requested resource not found"):
        other.describe_training_job(TrainingJobName=request["TrainingJobName"])
    arn = other.create_training_job(**request)["TrainingJobArn"]
    assert ":eu-west-1:" in arn
    other.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=request["TrainingJobName"], WaiterConfig={"Delay": 1}
    )


def test_jobs_are_listed_by_filter_and_page(trainer: Trainer) -> None:
    mark = trainer.request()["TrainingJobName"][-8:]
    names = [f"list-{mark}-{number}" for number in range(5)]
    for name in names:
        trainer.start("false" if name.endswith("3") else "true", TrainingJobName=name)
    for name in names:
        trainer.wait(name)
    pages = list(
        trainer.sagemaker.get_paginator("list_training_jobs").paginate(
            NameContains=f"LIST-{mark}", SortBy="Name", SortOrder="Descending", PaginationConfig={"PageSize": 2}
        )
    )
    assert [len(page["TrainingJobSummaries"]) for page in pages] == [2, 2, 1]
    listed = [row["TrainingJobName"] for page in pages for row in page["TrainingJobSummaries"]]
    assert listed == sorted(names, reverse=True)
    failed = trainer.sagemaker.list_training_jobs(NameContains=mark, StatusEquals="Failed")["TrainingJobSummaries"]
    assert [row["TrainingJobName"] for row in failed] == [names[3]]
    first = trainer.describe(names[1])["CreationTime"]
    after = trainer.sagemaker.list_training_jobs(NameContains=mark, CreationTimeAfter=first)["TrainingJobSummaries"]
    assert [row["TrainingJobName"] for row in after] == names[2:]


def test_nothing_of_a_job_stays_on_the_disk(trainer: Trainer) -> None:
    name = trainer.run("head -c 100000 /dev/zero > /opt/ml/model/m")["TrainingJobName"]
    deadline = time.monotonic() + 10
    while list(trainer.aws.state_dir.rglob(f"*{name}*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
