"""The image classifier: as jobs and an endpoint of the local AWS, and as the processes it is made of."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from botocore.exceptions import ClientError
from serving import ROLE, Serving, unique
from trainer import IMAGE, Trainer, channel

from airflow_dlaws.drift.build import numeric_profile
from airflow_dlaws.drift.profile import parse_profile
from airflow_dlaws.jobs.metric_line import metric_regex, parse_line
from airflow_dlaws.launchers.source import read_source
from airflow_dlaws.local.demo import mnist
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.storage import S3Uri

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "training_scripts" / "image_classifier"
RUNTIME = ROOT / "training_scripts" / "sm_runtime"
#: Half a second an epoch.
QUICK = {"width": "8", "batch_size": "128"}
REPORTED = {"epoch", "train:loss", "validation:loss", "validation:error"}
DEADLINE = 60


@pytest.fixture(scope="module")
def splits() -> dict[str, Path]:
    return mnist.split_files(ROOT / ".dlaws" / "cache")


class Trials:
    """Training jobs of the published folder on the images, as a sweep starts them."""

    def __init__(self, aws: LocalAws, splits: dict[str, Path]) -> None:
        self.bucket = unique("digits")
        aws.client("s3").create_bucket(Bucket=self.bucket)
        self.trainer = Trainer(aws, self.bucket)
        code = read_source(self.trainer.s3, source=str(SCRIPTS), entry_point="train.py", dependencies=[str(RUNTIME)])
        code.publish(self.trainer.s3, S3Uri(self.bucket, "code/"))
        channels = {"code": str(code.location(S3Uri(self.bucket, "code/")))}
        channels |= mnist.upload(self.trainer.s3, self.bucket, splits)
        self.channels = [channel(name, channels[name]) for name in ("code", "train", "validation")]

    def start(self, **hyperparameters: str) -> str:
        metrics = [{"Name": name, "Regex": metric_regex(name)} for name in ("validation:loss", "validation:error")]
        algorithm = {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/dlaws_entry.py"],
            "ContainerArguments": ["--nproc-per-node", "1", "train.py"],
            "MetricDefinitions": metrics,
        }
        return self.trainer.start(
            AlgorithmSpecification=algorithm,
            InputDataConfig=self.channels,
            HyperParameters=QUICK | hyperparameters,
            Environment={"OMP_NUM_THREADS": "1"},
        )

    def run(self, **hyperparameters: str) -> dict[str, Any]:
        return self.trainer.wait(self.start(**hyperparameters))

    def reported(self, name: str) -> list[dict[str, float]]:
        """Return the metrics of each epoch; the lines between them, about the pace, are left out."""
        lines = self.trainer.logs(name).get("algo-1", [])
        return [metrics for metrics in map(parse_line, lines) if metrics and "validation:error" in metrics]

    def files(self, job: dict[str, Any]) -> dict[str, bytes]:
        """Return the files of the job's artifact."""
        key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{self.bucket}/")
        body = self.trainer.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}


@pytest.fixture(scope="module")
def trials(local_aws: LocalAws, splits: dict[str, Path]) -> Trials:
    return Trials(local_aws, splits)


@pytest.fixture(scope="module")
def trained(trials: Trials) -> dict[str, Any]:
    job = trials.run(epochs="2", seed="5")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    return job


def test_a_job_reports_every_epoch_and_aws_reads_the_last(trials: Trials, trained: dict[str, Any]) -> None:
    reported = trials.reported(trained["TrainingJobName"])
    assert [metrics["epoch"] for metrics in reported] == [1, 2]
    assert all(set(metrics) >= REPORTED for metrics in reported)
    assert reported[1]["validation:error"] < reported[0]["validation:error"] < 0.5
    final = {metric["MetricName"]: metric["Value"] for metric in trained["FinalMetricDataList"]}
    assert final == pytest.approx({name: reported[1][name] for name in final})
    assert set(final) == {"validation:loss", "validation:error"}


def test_the_artifact_holds_all_that_serves_watches_and_explains_the_model(
    trials: Trials, trained: dict[str, Any], splits: dict[str, Path]
) -> None:
    files = trials.files(trained)
    assert files["code/inference.py"] == (SCRIPTS / "inference.py").read_bytes()
    card = json.loads(files["model_card.json"])
    assert card["metrics"].items() <= trials.reported(trained["TrainingJobName"])[-1].items()
    assert set(card["metrics"]) == REPORTED
    assert card["hyperparameters"] | {"epochs": 2, "seed": 5, "width": 8} == card["hyperparameters"]
    assert [(file["path"], file["images"]) for file in card["data"]["train"]] == [("mnist.npz", 3500)]
    profile = parse_profile(files["drift_reference.json"])
    schema = json.loads(files["input_schema.json"])
    assert [feature["name"] for feature in schema["features"]] == list(profile.feature_order)
    assert (profile.rows, len(profile.feature_order)) == (3500, 784)
    assert profile.classes == tuple("0123456789")
    assert {output.name for output in profile.outputs} == {
        *(f"probability[{digit}]" for digit in range(10)), "confidence", "predicted_label",
    }  # fmt: skip
    assert {output.rows for output in profile.outputs} == {750}
    assert profile.calibration is not None
    assert sum(profile.calibration.correct) == round(750 * (1 - card["metrics"]["validation:error"]))
    (pca,) = profile.representation
    assert (pca.columns, pca.error.rows) == (profile.feature_order, 1750)
    assert 100_000 < len(files["drift_reference.json"]) < 1_000_000
    with np.load(splits["train"]) as file:
        columns = file["images"].reshape(3500, 784).T.astype(float)
    for feature in profile.features:
        values = columns[profile.feature_order.index(feature.name)]
        assert sum(feature.counts) == 3500
        assert feature.counts == tuple(np.bincount(np.digitize(values, feature.edges), minlength=len(feature.counts)))
        whole = numeric_profile(feature.name, values.tolist())
        assert (feature.low, feature.high) == (whole.low, whole.high)


def test_equal_seeds_give_equal_bits_and_others_do_not(trials: Trials, trained: dict[str, Any]) -> None:
    again, other = trials.start(epochs="2", seed="5"), trials.start(epochs="2", seed="6")
    weights = [
        trials.files(job)["model.pt"] for job in (trained, trials.trainer.wait(again), trials.trainer.wait(other))
    ]
    assert weights[0] == weights[1] != weights[2]


def test_a_trial_whose_loss_is_no_number_fails_and_says_why(trials: Trials) -> None:
    job = trials.run(optimizer="sgd", learning_rate="1e9")
    assert job["TrainingJobStatus"] == "Failed"
    assert re.search(r"FloatingPointError: the training loss is (nan|inf) in epoch 1", job["FailureReason"])
    assert "with sgd, learning_rate 1e+09, batch_size 128" in job["FailureReason"]
    (told,) = trials.reported(job["TrainingJobName"])
    assert math.isnan(told["validation:error"])  # by which a sweep knows that the parameters are to blame


def test_a_trial_that_is_stopped_leaves_the_model_of_its_last_line(trials: Trials) -> None:
    name = trials.start(epochs="1000")
    trials.trainer.wait(name, lambda _job: bool(trials.reported(name)))
    asked = time.monotonic()
    trials.trainer.sagemaker.stop_training_job(TrainingJobName=name)
    job = trials.trainer.wait(name)
    assert job["TrainingJobStatus"] == "Stopped"
    assert time.monotonic() - asked < 20
    reported = trials.reported(name)
    assert len(reported) < 100
    assert json.loads(trials.files(job)["model_card.json"])["metrics"].items() <= reported[-1].items()


def test_the_model_serves_the_images_it_has_not_seen(
    trials: Trials, trained: dict[str, Any], splits: dict[str, Path], serving: Serving
) -> None:
    model = unique("digits")
    container = {"Image": IMAGE, "ModelDataUrl": trained["ModelArtifacts"]["S3ModelArtifacts"]}
    serving.sagemaker.create_model(ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    endpoint = serving.endpoint(serving.config(model))
    with np.load(splits["test"]) as file:
        pixels, labels = file["images"], file["labels"]
    body = io.BytesIO()
    np.save(body, pixels)
    answer = json.loads(serving.invoke(endpoint, body.getvalue(), "application/x-npy")["Body"])["predictions"]
    error = np.mean([row["digit"] for row in answer] != labels)
    assert error < 2 * trials.reported(trained["TrainingJobName"])[-1]["validation:error"]
    lines = [",".join(map(str, image)) for image in pixels[:5].reshape(5, 784).tolist()]
    served = serving.invoke(endpoint, "\n".join(lines).encode(), "text/csv")["Body"].decode().splitlines()
    told = [[row["probability"], *row["probabilities"]] for row in answer[:5]]
    expected = [
        [str(row["digit"]), *(f"{chance:.6f}" for chance in chances)]
        for row, chances in zip(answer, told, strict=False)
    ]
    assert [line.split(",") for line in served] == expected
    with pytest.raises(ClientError, match="row 2 has 783 values") as caught:
        serving.invoke(endpoint, f"{lines[0]}\n{lines[1].partition(',')[2]}".encode(), "text/csv")
    assert caught.value.response["OriginalStatusCode"] == 400


@dataclass
class Run:
    """A process of the script: started at once, waited for on demand."""

    process: subprocess.Popen[str]
    model: Path

    def finish(self, expected: int = 0) -> Run:
        try:
            self.out, self.err = self.process.communicate(timeout=DEADLINE)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.returncode == expected, self.err[-3000:]
        return self

    @property
    def metrics(self) -> list[dict[str, float]]:
        """What each epoch came to, without how fast it went."""
        lines = [metrics for metrics in map(parse_line, self.out.splitlines()) if metrics]
        epochs = [metrics for metrics in lines if "validation:error" in metrics]
        return [{name: metrics[name] for name in REPORTED} for metrics in epochs]

    @property
    def card(self) -> dict[str, Any]:
        return json.loads((self.model / "model_card.json").read_text())

    @property
    def weights(self) -> bytes:
        return (self.model / "model.pt").read_bytes()


def train(
    splits: dict[str, Path],
    folder: Path,
    *,
    processes: int = 1,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> Run:
    """Start the script by hand, on the images or on the folders that the options name."""
    options = {
        **QUICK,
        "train": splits["train"].parent,
        "validation": splits["validation"].parent,
        "model-dir": folder / "model",
        "checkpoint-dir": folder / "checkpoints",
        **options,
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    process = subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), str(SCRIPTS / "train.py"), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(RUNTIME.parent), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a test that gives up can end torchrun and its workers together
    )
    return Run(process, Path(options["model-dir"]))


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_very_weights_of_one_that_was_not(splits: dict[str, Path], tmp_path: Path) -> None:
    stopped = train(splits, tmp_path / "stopped", epochs=1000)
    assert stopped.process.stdout is not None
    assert parse_line(stopped.process.stdout.readline()) is not None, "the first epoch has ended"
    stopped.process.send_signal(signal.SIGTERM)
    stopped.finish(expected=143)
    done = stopped.card["metrics"]["epoch"]
    assert "stopped by SIGTERM after step" in stopped.err

    resumed = train(splits, tmp_path / "stopped", epochs=done + 1)
    whole = train(splits, tmp_path / "whole", epochs=done + 1).finish()
    assert "resumed after step" in resumed.finish().err
    assert resumed.metrics == whole.metrics, "the lines of the epochs before it are told again"
    assert resumed.weights == whole.weights

    other = train(splits, tmp_path / "stopped", epochs=done + 1, dropout=0.3)
    assert "give this one another folder for checkpoints" in other.finish(expected=1).err
    nothing_left = train(splits, tmp_path / "stopped", epochs=done + 1, **{"model-dir": tmp_path / "new"}).finish()
    assert nothing_left.metrics == resumed.metrics
    assert (nothing_left.weights, nothing_left.card) == (resumed.weights, resumed.card)


def test_two_processes_that_share_the_model_end_where_one_does(splits: dict[str, Path], tmp_path: Path) -> None:
    two = train(splits, tmp_path / "two", epochs=1, dropout=0, shift=0, processes=2, parallel="fsdp2")
    one = train(splits, tmp_path / "one", epochs=1, dropout=0, shift=0).finish()
    assert len(two.finish().metrics) == 1
    for name in ("train:loss", "validation:loss", "validation:error"):
        assert two.metrics[0][name] == pytest.approx(one.metrics[0][name], abs=5e-3)
    weights = [torch.load(run.model / "model.pt", weights_only=True) for run in (one, two)]
    for name, values in weights[0].items():
        torch.testing.assert_close(weights[1][name], values, atol=5e-3, rtol=0)


def test_hosts_that_read_different_images_refuse_to_train(splits: dict[str, Path], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    folders = [splits[split].parent for split in ("train", "test")]
    hosts = [
        train(splits, tmp_path / str(rank), train=folder, environment={"RANK": str(rank), **group})
        for rank, folder in enumerate(folders)
    ]
    for host in hosts:
        told = host.finish(expected=1).err
        assert "the processes have different images" in told
        assert "the whole channels (FullyReplicated)" in told


def test_what_cannot_be_trained_is_refused_before_it_starts(splits: dict[str, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    runs = [
        (train(splits, tmp_path, dropout=1), 2, "--dropout is 1.0; it must be at least 0 and below 1"),
        (train(splits, tmp_path, learning_rate="nan"), 1, "learning_rate is nan; it must be finite and above 0"),
        (train(splits, tmp_path, validation=empty), 1, "there is no .npz file under"),
    ]
    for run, code, told in runs:
        assert told in run.finish(expected=code).err
