"""The recurrent examples, on sound and on text, and Gadam: as the processes they are, and behind an endpoint."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from botocore.exceptions import ClientError
from serving import ROLE, Serving, unique
from tiny_flights import pack

from airflow_dlaws.drift.profile import parse_profile
from airflow_dlaws.jobs.metric_line import parse_line
from airflow_dlaws.local.demo import snippets, vowels
from sm_runtime import package
from sm_runtime.checkpoint_file import CheckpointFolder

ROOT = Path(__file__).parent.parent.parent
CACHE, SCRIPTS = ROOT / ".dlaws" / "cache", ROOT / "training_scripts"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
FILES = [
    "code/inference.py",
    "drift_reference.json",
    "input_schema.json",
    "model.pt",
    "model_card.json",
    "network.json",
]
DEADLINE = 120


@dataclass
class Run:
    """A process of a script: started at once, waited for on demand."""

    process: subprocess.Popen[str]
    folder: Path

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
        lines = [metrics for metrics in map(parse_line, self.out.splitlines()) if metrics]
        return [metrics for metrics in lines if "validation:loss" in metrics]

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def weights(self) -> bytes:
        return (self.model / "model.pt").read_bytes()

    @property
    def card(self) -> dict[str, Any]:
        return json.loads((self.model / "model_card.json").read_text())


def train(example: str, channels: dict[str, Path], folder: Path, *, processes: int = 1, **options: Any) -> Run:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options |= {"model-dir": folder / "model", "checkpoint-dir": folder / "checkpoints"}
    words = [str(word) for name, value in {**channels, **options}.items() for word in (f"--{name}", value)]
    process = subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), str(SCRIPTS / example / "train.py"), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,  # so that a test that gives up can end torchrun and its workers together
    )  # fmt: skip
    return Run(process, folder)


def handler(run: Run) -> ModuleType:
    """Import the model's own handler."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("handler", run.model / "code" / "inference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def deploy(serving: Serving, run: Run) -> str:
    """Put the model behind an endpoint; return its name."""
    name, key = unique("model"), f"models/{unique('model')}/model.tar.gz"
    serving.s3.put_object(Bucket=serving.bucket, Key=key, Body=pack(run.model))
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{serving.bucket}/{key}"}
    serving.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    return serving.endpoint(serving.config(name))


@pytest.fixture(scope="module")
def sounds() -> dict[str, Path]:
    return {split: path.parent for split, path in vowels.split_files(CACHE).items()}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The first texts of each split's tweets: enough to learn something in a few seconds."""
    folder = tmp_path_factory.mktemp("texts")
    for split, path in snippets.split_files(CACHE).items():
        lines = path.read_text().splitlines(keepends=True)
        (folder / split).mkdir()
        (folder / split / "snippets.csv").write_text("".join(lines[: 2001 if split == "train" else 401]))
    return {split: folder / split for split in snippets.SPLITS}


@pytest.fixture(scope="module")
def speaker(sounds: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("audio_speakers", sounds, tmp_path_factory.mktemp("speaker"), epochs=15).finish()


@pytest.fixture(scope="module")
def mood(texts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("text_sentiment", texts, tmp_path_factory.mktemp("mood"), epochs=4, hidden=32, embed=32).finish()


def test_the_speakers_are_told_apart(speaker: Run) -> None:
    assert [metrics["epoch"] for metrics in speaker.metrics] == list(range(1, 16))
    assert speaker.metrics[-1]["train:loss"] < 0.2 * speaker.metrics[0]["train:loss"]
    assert speaker.card["metrics"]["test:accuracy"] > 0.93  # chance is 0.11; forty epochs reach 0.98


def test_the_mood_of_a_text_is_learned_and_set_beside_a_linear_model(mood: Run) -> None:
    metrics = mood.card["metrics"]
    assert mood.metrics[-1]["train:loss"] < 0.8 * mood.metrics[0]["train:loss"]
    assert metrics["test:correlation"] > 0.3
    assert 0.2 < metrics["baseline:test_correlation"] < 0.8


@pytest.mark.parametrize("example", ["speaker", "mood"])
def test_the_artifact_holds_all_that_serves_watches_and_explains_the_model(
    example: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(example)
    assert {name for name in FILES if not (run.model / name).is_file()} == set()
    profile = parse_profile((run.model / "drift_reference.json").read_text())
    schema = json.loads((run.model / "input_schema.json").read_text())
    assert [feature["name"] for feature in schema["features"]] == list(profile.feature_order)
    names = [f"probability[{place}]" for place in range(9)] + ["confidence", "predicted_label"]
    assert [output.name for output in profile.outputs] == (names if example == "speaker" else ["prediction"])
    assert (profile.calibration is not None) == (example == "speaker")
    assert [pca.columns for pca in profile.representation] == [profile.feature_order]
    channels = request.getfixturevalue("sounds" if example == "speaker" else "texts")
    for split, files in run.card["data"].items():
        assert [file["sha256"] for file in files] == [package.digest(channels[split] / file["path"]) for file in files]
    assert {"python", "torch", "numpy"} == set(run.card["versions"])


def test_the_speaker_model_answers_behind_an_endpoint(speaker: Run, sounds: dict[str, Path], serving: Serving) -> None:
    endpoint, code = deploy(serving, speaker), handler(speaker)
    with np.load(sounds["test"] / "vowels.npz") as file:
        spoken = [frames[:length] for frames, length in zip(file["frames"], file["lengths"], strict=True)][:40]
    stated = [{"frames": frames.tolist(), "features": code.describe(frames)} for frames in spoken]
    body = json.dumps({"instances": stated}).encode()
    answer = json.loads(serving.invoke(endpoint, body, "application/json")["Body"])["predictions"]
    model = code.load(str(speaker.model))
    for frames, row in zip(spoken, answer, strict=True):
        with torch.inference_mode():
            chances = model(torch.from_numpy(frames)[None], torch.tensor([len(frames)])).softmax(dim=1)[0]
        assert row["speaker"] == int(chances.argmax())
        assert row["probabilities"] == pytest.approx(chances.tolist(), abs=1e-5), "whatever it was asked together with"
        assert row["probability"] == max(row["probabilities"])
    stated[1]["features"]["length"] += 1
    with pytest.raises(ClientError, match="utterance 2: length is stated as") as caught:
        serving.invoke(endpoint, json.dumps({"instances": stated}).encode(), "application/json")
    assert caught.value.response["OriginalStatusCode"] == 400


def test_the_sentiment_model_answers_behind_an_endpoint(mood: Run, texts: dict[str, Path], serving: Serving) -> None:
    endpoint, code = deploy(serving, mood), handler(mood)
    with (texts["test"] / "snippets.csv").open() as file:
        asked = [row["text"] for row in csv.DictReader(file)][:40]
    lines = io.StringIO()
    csv.writer(lines).writerows([text] for text in asked)
    answer = serving.invoke(endpoint, lines.getvalue().encode(), "text/csv")["Body"].decode().split()
    model = code.load(str(mood.model))
    for text, rating in zip(asked, answer, strict=True):
        places = torch.tensor([code.numbers(model.vocabulary, text)])
        direct = code.ratings(model.network, places, torch.tensor([places.shape[1]]))
        assert float(rating) == pytest.approx(float(direct), abs=1e-5), "whatever it was asked together with"
    stated = [{"text": text, "features": code.describe(model.vocabulary, text)} for text in asked[:2]] + [asked[2]]
    body = json.dumps({"instances": stated}).encode()
    same = json.loads(serving.invoke(endpoint, body, "application/json")["Body"])["predictions"]
    assert same == pytest.approx([float(rating) for rating in answer[:3]], abs=1e-5)
    body = json.dumps({"instances": asked[:3], "embedding": True}).encode()
    told = json.loads(serving.invoke(endpoint, body, "application/json")["Body"])["predictions"]
    assert [row["score"] for row in told] == pytest.approx(same, abs=1e-5)
    profile = parse_profile((mood.model / "drift_reference.json").read_text())
    assert {len(row["embedding"]) for row in told} == {profile.embeddings[0].dimension} == {4 * 32}
    with pytest.raises(ClientError, match="embedding is 1; send true or false"):
        serving.invoke(endpoint, b'{"instances": ["fine"], "embedding": 1}', "application/json")
    with pytest.raises(ClientError, match="text 1 must be a text"):
        serving.invoke(endpoint, b'{"instances": [5]}', "application/json")


@pytest.mark.slow
@pytest.mark.parametrize("example", ["audio_speakers", "text_sentiment"])
def test_a_stopped_run_resumes_to_the_very_weights_of_one_that_was_not(
    example: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    channels = dict(request.getfixturevalue("sounds" if example == "audio_speakers" else "texts"))
    del channels["test"]
    options = (
        {"epochs": 30, "batch_size": 32} if example == "audio_speakers" else {"epochs": 4, "hidden": 16, "embed": 16}
    )
    whole = train(example, channels, tmp_path / "whole", **options)
    stopped = train(example, channels, tmp_path / "stopped", **options)
    assert stopped.process.stdout is not None
    assert parse_line(stopped.process.stdout.readline()) is not None, "the first epoch has ended"
    stopped.process.send_signal(signal.SIGTERM)
    stopped.finish(expected=143)
    assert not stopped.model.exists()
    resumed = train(example, channels, tmp_path / "stopped", **options).finish()
    assert "resumed after step" in resumed.err
    assert resumed.weights == whole.finish().weights


@pytest.mark.parametrize("example", ["audio_speakers", "text_sentiment"])
def test_two_processes_that_share_the_model_end_where_one_does(
    example: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    channels = dict(request.getfixturevalue("sounds" if example == "audio_speakers" else "texts"))
    del channels["test"]
    quiet = {"noise": 0} if example == "audio_speakers" else {"hidden": 16, "embed": 16}
    two = train(example, channels, tmp_path / "two", epochs=2, dropout=0, processes=2, parallel="fsdp2", **quiet)
    one = train(example, channels, tmp_path / "one", epochs=2, dropout=0, **quiet).finish()
    two.finish()
    assert len(one.metrics) == len(two.metrics) == 2
    for mine, theirs in zip(one.metrics, two.metrics, strict=True):
        for name in ("train:loss", "validation:loss"):
            assert theirs[name] == pytest.approx(mine[name], abs=1e-3)
    assert sorted(str(path.relative_to(two.model)) for path in two.model.rglob("*")) == sorted(
        str(path.relative_to(one.model)) for path in one.model.rglob("*")
    )


@pytest.mark.slow
def test_gadam_breeds_a_population_whose_books_agree_in_every_process(sounds: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "three"
    run = train("audio_speakers", sounds, folder, processes=3, optimizer="gadam", epochs=3, learning_rate=0.01)
    run.finish()
    found = CheckpointFolder(str(folder / "checkpoints"), 2).newest()
    assert found is not None
    books = [member["also"]["population"]["history"] for member in found.state["members"]]
    assert len(books) == 3
    assert books[0] == books[1] == books[2]
    assert [generation["number"] for generation in books[0]] == [1, 2, 3]
    for generation, metrics in zip(books[0], run.metrics, strict=True):
        everyone = [*generation["losses"], *generation["child_losses"]]
        kept = [everyone[place] for place in generation["survivors"]]
        assert kept == sorted(everyone)[:3]
        assert len(set(generation["losses"])) == 3, "each member is another one"
        assert metrics["validation:loss"] == pytest.approx(kept[0], abs=1e-5), "the first process has the best"


def test_gadam_alone_is_refused_with_the_way_out(sounds: dict[str, Path], tmp_path: Path) -> None:
    told = train("audio_speakers", sounds, tmp_path, optimizer="gadam").finish(expected=1).err
    assert "start it with `torchrun --nproc-per-node N`, N at least 2, or choose adam" in told


def test_a_channel_that_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rated").mkdir()
    (tmp_path / "rated" / "a.csv").write_text("rating,text\n0.5,fine\n7,splendid\n")
    np.savez(tmp_path / "a.npz", frames=np.zeros((2, 3, 11), np.float32), lengths=[1, 2], labels=[0, 1])
    rated = {"train": tmp_path / "rated", "validation": tmp_path / "rated"}
    spoken = {"train": tmp_path, "validation": tmp_path}
    runs = [train("text_sentiment", rated, tmp_path / "a"), train("audio_speakers", spoken, tmp_path / "b")]
    assert "a.csv, row 2" in runs[0].finish(expected=1).err
    assert "frames are [2, 3, 11]" in runs[1].finish(expected=1).err
