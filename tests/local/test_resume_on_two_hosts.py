"""A training job of two hosts that loses one, or is interrupted as spot machines are, ends with the same weights."""

from __future__ import annotations

import io
import random
import re
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_training import EPOCHS, SAMPLES, STEPS
from trainer import IMAGE, Trainer, channel

from airflow_dlaws.launchers.source import read_source
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.storage import S3Uri

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "training_scripts" / "sm_runtime"
BUCKET = "resume"
#: Two hosts import torch in four processes, on a machine that may have other things to do.
LIMIT_S = 180
WORDS = ("stopped by SIGTERM", "resumed")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """Jobs of two hosts that run the small training; the code and its runtime are published as a launcher does it."""
    with LocalAws(tmp_path_factory.mktemp("aws"), time_scale=0.05, environment={"OMP_NUM_THREADS": "1"}) as aws:
        aws.client("s3").create_bucket(Bucket=BUCKET)
        source = tmp_path_factory.mktemp("code")
        (source / "train.py").write_text((HERE / "small_training.py").read_text())
        bundle = read_source(aws.client("s3"), source=str(source), entry_point="train.py", dependencies=[str(RUNTIME)])
        bundle.publish(aws.client("s3"), S3Uri(BUCKET, "published"))
        trainer = Trainer(aws, BUCKET)
        trainer.code = str(bundle.location(S3Uri(BUCKET, "published")))  # type: ignore[attr-defined]
        yield trainer


def start(trainer: Trainer, checkpoints: str, *, notes: str = "/opt/ml/output/data", **changes: Any) -> str:
    """Start a job of two hosts that saves its state after each step, as far as the former write is done.

    :param notes: where its processes note which samples they have added.
    """
    request = trainer.request(
        instances=2,
        InputDataConfig=[channel("code", trainer.code)],  # type: ignore[attr-defined]
        AlgorithmSpecification={
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/dlaws_entry.py"],
            "ContainerArguments": ["--nproc-per-node", "1", "train.py"],
        },
        HyperParameters={"pause": "0.1", "checkpoint_s": "0", "notes": notes},
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/{checkpoints}"},
        **changes,
    )
    trainer.sagemaker.create_training_job(**request)
    return str(request["TrainingJobName"])


def members(trainer: Trainer, name: str, archive: str) -> dict[str, bytes]:
    body = trainer.s3.get_object(Bucket=BUCKET, Key=f"out/{name}/output/{archive}.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as opened:
        return {member: opened.extractfile(member).read() for member in opened.getnames()}  # type: ignore[union-attr]


def finish(trainer: Trainer, name: str) -> bytes:
    """Wait for a job's good end; return its weights, byte for byte."""
    job = trainer.wait(name, limit_s=LIMIT_S)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), trainer.logs(name))
    return members(trainer, name, "model")["weights.pt"]


def wait_for_checkpoint(trainer: Trainer, prefix: str) -> None:
    """Wait until a state of the run lies in S3."""
    deadline = time.monotonic() + LIMIT_S
    while not trainer.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/checkpoint-").get("KeyCount"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def script_of_host(trainer: Trainer, host: int) -> psutil.Process:
    """Return the process that trains on a host, which torchrun has started."""
    scripts = [
        process
        for child in trainer.aws.children()
        for process in psutil.Process(child).children(recursive=True)
        if any(word.endswith("/train.py") for word in process.cmdline()) and "RANK" in process.environ()
    ]
    (found,) = [process for process in scripts if process.environ()["RANK"] == str(host)]
    return found


def lines_of_all_lives(trainer: Trainer, name: str) -> str:
    """Return what all hosts have printed; each life of a job has log streams of its own."""
    logs, group = trainer.aws.client("logs"), "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    return "\n".join(
        event["message"]
        for stream in streams
        for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)[
            "events"
        ]
    )


@pytest.fixture(scope="module")
def whole(hosts: Trainer) -> bytes:
    """The weights of a job without faults."""
    return finish(hosts, start(hosts, "whole"))


def wait_for_step(script: psutil.Process, step: int) -> None:
    """Wait until a process has noted so many steps."""
    variables = script.environ()
    # Where hosts have file systems of their own, theirs is seen through the process.
    notes = Path(f"/proc/{script.pid}/root{variables['SM_OUTPUT_DATA_DIR']}", f"steps-0-{variables['RANK']}.txt")
    deadline = time.monotonic() + LIMIT_S
    while not notes.exists() or notes.read_bytes().count(b"\n") < step:
        assert time.monotonic() < deadline, script
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("host", [0, 1])
def test_a_job_whose_host_was_killed_is_continued_by_the_next_with_the_same_weights(
    hosts: Trainer, whole: bytes, host: int, seed: int
) -> None:
    chance, checkpoints = random.Random(10 * host + seed), f"killed-{host}-{seed}"
    killed = start(hosts, checkpoints)
    wait_for_checkpoint(hosts, checkpoints)
    script = script_of_host(hosts, host)
    # The last steps are left, so that the kill is not too late.
    wait_for_step(script, chance.randint(1, STEPS - 10))
    time.sleep(chance.uniform(0, 0.1))  # the chance is the point: anywhere in a step
    script.kill()
    assert hosts.wait(killed, limit_s=LIMIT_S)["TrainingJobStatus"] == "Failed"
    again = start(hosts, checkpoints)
    assert finish(hosts, again) == whole
    assert any("resumed after step" in line for line in hosts.logs(again)["algo-1"])
    assert_every_sample_counts(members(hosts, killed, "output"), members(hosts, again, "output"))


@pytest.mark.slow
def test_a_spot_job_that_is_interrupted_ends_with_the_same_weights(hosts: Trainer, whole: bytes) -> None:
    times = {"MaxRuntimeInSeconds": 300, "MaxWaitTimeInSeconds": 300}
    # Output is uploaded at a job's end only: what an interrupted life has noted there is lost with its machine.
    notes = "/opt/ml/checkpoints"
    name = start(hosts, "spot", notes=notes, EnableManagedSpotTraining=True, StoppingCondition=times)
    wait_for_checkpoint(hosts, "spot")
    hosts.aws.order_fault(kind="interruption", target=name, times=1)
    assert finish(hosts, name) == whole
    states = [row["Status"] for row in hosts.describe(name)["SecondaryStatusTransitions"]]
    assert "Interrupted" in states
    stopped, resumed = (re.findall(rf"{word} after step (\d+) of", lines_of_all_lives(hosts, name)) for word in WORDS)
    assert len(set(stopped)) == 1, "both hosts stopped after the same step"
    assert 0 < int(stopped[0]) < STEPS
    assert resumed == stopped[:1], "the job went on after the step at which SIGTERM found it: nothing was done twice"
    # Both lives write to the same notes, so that a step done twice would be there twice.
    lines = [line for rank in (0, 1) for line in noted(hosts, f"spot/steps-0-{rank}.txt")]
    assert Counter(step for step, *_ in lines) == Counter(dict.fromkeys(range(1, STEPS + 1), 2)), "once on each host"
    counted = Counter(sample for _, *samples in lines for sample in samples)
    assert counted == Counter(dict.fromkeys(range(SAMPLES), EPOCHS)), "no sample was lost or repeated"


def noted(trainer: Trainer, key: str) -> list[list[int]]:
    """Return the lines of notes in S3: a step, and the samples that the process has added in it."""
    body = trainer.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return [[int(word) for word in line.split()] for line in body.decode().splitlines()]


def assert_every_sample_counts(killed: dict[str, bytes], again: dict[str, bytes]) -> None:
    """Each step of the final weights is of the second job, or before its first one, of the first."""
    after = steps_of(again)
    before = {step: samples for step, samples in steps_of(killed).items() if step < min(after)}
    steps = {**before, **after}
    assert sorted(steps) == list(range(1, STEPS + 1))
    counted = Counter(sample for samples in steps.values() for sample in samples)
    assert counted == Counter(dict.fromkeys(range(SAMPLES), EPOCHS))


def steps_of(files: dict[str, bytes]) -> dict[int, list[int]]:
    steps: dict[int, list[int]] = {}
    for name, body in files.items():
        for line in body.decode().splitlines() if name.startswith("steps-") else ():
            step, *samples = map(int, line.split())
            steps.setdefault(step, []).extend(samples)
    return steps
