"""The flight-delays scripts as the processes they are: training, resuming, stopping, comparing, serving."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_flights import pack

from airflow_dlaws.drift.cells import NumericProfile
from airflow_dlaws.drift.profile import parse_profile
from airflow_dlaws.evaluation.metrics import measure
from airflow_dlaws.evaluation.scores import parse_scores
from airflow_dlaws.jobs.metric_line import parse_line
from airflow_dlaws.local.demo import flights
from airflow_dlaws.local.demo.broken_model import break_model

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "training_scripts" / "flight_delays"
ROWS_PER_MONTH = 3000
ARTIFACT = ["code/inference.py", "drift_reference.json", "input_schema.json", "model.pt", "model_card.json"]
#: Far beyond what any of these takes; a process that hangs must fail the test and not the whole suite.
DEADLINE = 120


@pytest.fixture(scope="module")
def months() -> dict[str, Path]:
    return flights.monthly_files(ROOT / ".dlaws" / "cache")


@pytest.fixture(scope="module")
def data(months: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first flights of January and February, as a channel would hold them."""
    folder = tmp_path_factory.mktemp("data")
    for month in ("2013-01", "2013-02"):
        cut(months[month], folder / f"month={month}" / "flights.csv")
    return folder


def cut(source: Path, target: Path, rows: int = ROWS_PER_MONTH) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(source.read_text().splitlines(keepends=True)[: rows + 1]))
    return target


@dataclass
class Run:
    """A process of a script: started at once, waited for on demand."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

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
        """What is reported of epochs and evaluations; the lines between epochs, about the pace, are left out."""
        lines = [metrics for metrics in map(parse_line, self.out.splitlines()) if metrics]
        return [metrics for metrics in lines if "loss" not in metrics or "validation:loss" in metrics]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.model / "model.pt", weights_only=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train(data: Path, folder: Path, *options: str, processes: int = 1, **environment: str) -> Run:
    """Start the training script as the container does."""
    variables = {
        "SM_CHANNEL_TRAIN": str(data),
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_OUTPUT_DATA_DIR": str(folder / "output"),
        "SM_CHECKPOINT_DIR": str(folder / "checkpoints"),
        # Bit equality is promised for an equal number of threads, and torchrun's workers get one each.
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(SCRIPTS.parent),
        **environment,
    }
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(free_port())]
    command = [sys.executable, *(launcher if processes > 1 else []), "train.py", *options]
    process = subprocess.Popen(
        command,
        cwd=SCRIPTS,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a test that gives up can end torchrun and its workers together
    )
    return Run(process, folder)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(data, tmp_path_factory.mktemp("trained"), "--epochs", "3", "--batch-size", "256").finish()


def test_one_process_trains_and_reports_each_epoch(trained: Run) -> None:
    assert [metrics["epoch"] for metrics in trained.metrics] == [1, 2, 3]
    last = trained.metrics[-1]
    assert set(last) >= {"epoch", "train:loss", "validation:loss", "validation:auc", "samples_per_second"}
    assert last["validation:loss"] < trained.metrics[0]["validation:loss"]
    assert last["validation:auc"] > 0.8


def test_the_artifact_holds_all_that_serves_watches_and_explains_the_model(trained: Run) -> None:
    assert {name for name in ARTIFACT if not (trained.model / name).is_file()} == set()
    card = json.loads((trained.model / "model_card.json").read_text())
    assert [(file["path"], file["rows"]) for file in card["data"]["files"]] == [
        (f"month={month}/flights.csv", ROWS_PER_MONTH) for month in ("2013-01", "2013-02")
    ]
    assert card["data"]["rows"] + card["data"]["validation_rows"] == 2 * ROWS_PER_MONTH
    assert card["hyperparameters"]["epochs"] == 3
    assert card["metrics"]["validation:loss"] == pytest.approx(trained.metrics[-1]["validation:loss"], abs=1e-6)
    output = trained.folder / "output"
    for name in ("drift_reference.json", "model_card.json"):
        assert (output / name).read_bytes() == (trained.model / name).read_bytes()
    assert json.loads((output / "metrics.json").read_text()) == card["metrics"]


def test_the_drift_reference_counts_every_training_row_once(trained: Run) -> None:
    profile = parse_profile((trained.model / "drift_reference.json").read_text())
    card = json.loads((trained.model / "model_card.json").read_text())
    assert profile.rows == card["data"]["rows"]
    assert {feature.rows for feature in profile.features} == {profile.rows}
    assert [output.name for output in profile.outputs] == ["prediction", "confidence", "predicted_label"]
    assert {output.rows for output in profile.outputs} == {card["data"]["validation_rows"]}
    assert profile.calibration is not None
    assert 0.8 < sum(profile.calibration.correct) / card["data"]["validation_rows"] < 1
    (pca,) = profile.representation
    assert set(pca.columns) == {feature.name for feature in profile.features if isinstance(feature, NumericProfile)}
    assert pca.error.rows == profile.rows - profile.rows // 2
    schema = json.loads((trained.model / "input_schema.json").read_text())
    assert list(profile.feature_order) == [feature["name"] for feature in schema["features"]]
    assert list(profile.feature_order) == list(flights.COLUMNS[1:])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_run_resumes_to_the_very_weights_of_one_that_was_not(
    data: Path, tmp_path: Path, processes: int
) -> None:
    options = ("--epochs", "12", "--batch-size", "128")
    whole = train(data, tmp_path / "whole", *options, processes=processes).finish()
    stopped = train(data, tmp_path / "stopped", *options, processes=processes)
    assert stopped.process.stdout is not None
    assert parse_line(stopped.process.stdout.readline()) is not None, "the first epoch has ended"
    stopped.process.send_signal(signal.SIGTERM)
    stopped.finish(expected=143 if processes == 1 else 1)  # torchrun reports its own end by a signal
    assert "stopped by SIGTERM after step" in stopped.err
    assert not stopped.model.exists()

    resumed = train(data, tmp_path / "stopped", *options, processes=processes).finish()
    assert "resumed after step" in resumed.err
    assert [metrics["epoch"] for metrics in resumed.metrics] == list(range(1, 13)), "the epochs before are told again"
    assert (resumed.model / "model.pt").read_bytes() == (whole.model / "model.pt").read_bytes()


def test_a_checkpoint_of_other_hyperparameters_is_not_continued(trained: Run, data: Path, tmp_path: Path) -> None:
    checkpoints = str(trained.folder / "checkpoints")
    other = train(data, tmp_path, "--epochs", "4", "--batch-size", "256", SM_CHECKPOINT_DIR=checkpoints)
    assert "give this one another folder for checkpoints" in other.finish(expected=1).err


def test_two_processes_end_where_one_does(data: Path, tmp_path: Path) -> None:
    options = ("--epochs", "2", "--batch-size", "256", "--dropout", "0")
    one = train(data, tmp_path / "one", *options).finish()
    two = train(data, tmp_path / "two", *options, processes=2).finish()
    for name in ("train:loss", "validation:loss"):
        assert two.metrics[-1][name] == pytest.approx(one.metrics[-1][name], abs=1e-3)
    for name, values in one.weights.items():
        torch.testing.assert_close(two.weights[name], values, atol=5e-3, rtol=0)


def test_hosts_that_read_different_rows_refuse_to_train(data: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shutil.copytree(data / "month=2013-01", shard / "month=2013-01")
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    hosts = [train(rows, tmp_path / f"host{n}", RANK=str(n), **group) for n, rows in enumerate((data, shard))]
    for host in hosts:
        host.finish(expected=1)
        assert "the processes have different training files" in host.err
        assert "the whole channels (FullyReplicated)" in host.err


def test_missing_folders_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there is no .csv file under" in train(empty, tmp_path / "a").finish(expected=1).err
    assert (
        "name the folders with --model-dir, or set SM_MODEL_DIR"
        in train(empty, tmp_path / "b", SM_MODEL_DIR="").finish(expected=2).err
    )


def channel(folder: Path, archive: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.tar.gz").write_bytes(archive)
    return folder


def evaluate(folder: Path, evaluation: Path, challenger: Path, champion: Path | None = None) -> Run:
    variables = {
        "SM_CHANNEL_EVALUATION": str(evaluation),
        "SM_CHANNEL_CHALLENGER": str(challenger),
        "SM_OUTPUT_DATA_DIR": str(folder),
    } | ({"SM_CHANNEL_CHAMPION": str(champion)} if champion else {})
    process = subprocess.Popen(
        [sys.executable, "evaluate.py"],
        cwd=SCRIPTS, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    return Run(process, folder)


def test_two_models_of_different_code_and_features_score_the_same_rows(
    trained: Run, months: dict[str, Path], tmp_path: Path
) -> None:
    march = cut(months["2013-03"], tmp_path / "march" / "flights.csv", rows=500).parent
    champion = tmp_path / "narrow"
    (champion / "code").mkdir(parents=True)
    (champion / "input_schema.json").write_text('{"features": [{"name": "carrier"}, {"name": "dep_delay"}]}')
    (champion / "code" / "inference.py").write_text(
        "def load(model_dir):\n    return None\n\n"
        "def predict(model, body, content_type):\n"
        "    delays = [float(line.split(',')[1]) for line in body.decode().splitlines()]\n"
        "    return '\\n'.join('0.75' if delay > 15 else '0.125' for delay in delays).encode(), content_type\n"
    )
    packed = channel(tmp_path / "challenger", pack(trained.model)), channel(tmp_path / "champion", pack(champion))
    run = evaluate(tmp_path / "output", march, *packed).finish()
    scores = parse_scores((tmp_path / "output" / "scores.csv").read_text())
    assert scores.rows == 500
    assert scores.champion is not None
    lines = march.joinpath("flights.csv").read_text().splitlines()[1:]
    assert list(scores.labels) == [int(line[0]) for line in lines]
    assert list(scores.champion) == [0.75 if float(line.split(",")[1]) > 15 else 0.125 for line in lines]
    metrics = run.metrics[-1]
    assert metrics["challenger:log_loss"] == pytest.approx(measure(scores.labels, scores.challenger).log_loss, abs=1e-6)
    assert metrics["champion:auc"] == pytest.approx(measure(scores.labels, scores.champion).auc, abs=1e-6)


def test_a_challenger_alone_is_scored_too(trained: Run, data: Path, tmp_path: Path) -> None:
    run = evaluate(tmp_path / "output", data, channel(tmp_path / "challenger", pack(trained.model))).finish()
    assert (tmp_path / "output" / "scores.csv").read_text().splitlines()[0] == "row,label,challenger"
    assert run.metrics[-1]["rows"] == 2 * ROWS_PER_MONTH


def test_an_archive_that_climbs_out_of_its_folder_is_refused(data: Path, tmp_path: Path) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../climbed.txt"))
    run = evaluate(tmp_path / "output", data, channel(tmp_path / "bad", output.getvalue())).finish(expected=1)
    assert "OutsideDestinationError" in run.err


class Served:
    """A server process and one connection to it."""

    def __init__(self, base: Path) -> None:
        self.port = free_port()
        variables = {
            "SAGEMAKER_BASE_DIR": str(base),
            "SAGEMAKER_BIND_HOST": "127.0.0.1",
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
        }
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "training_scripts" / "serve.py")],
            env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def await_ping(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                assert self.request("GET", "/ping")[0] == 200
                return
            except ConnectionRefusedError:
                time.sleep(0.05)
        self.process.kill()
        raise AssertionError(f"the server did not come up: {self.process.communicate()[1][-2000:]}")

    def request(self, method: str, path: str, body: str | None = None, kind: str = "text/csv") -> tuple[int, str]:
        self.connection.request(method, path, body, {"Content-Type": kind})
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


@pytest.fixture(scope="module")
def served(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("served")
    with tarfile.open(fileobj=io.BytesIO(break_model(pack(trained.model)))) as archive:
        archive.extractall(base / "model", filter="data")
    server = Served(base)
    server.await_ping()
    yield server
    assert server.stop() == 0


LINE = "5,10,0,1400,{carrier},EWR,IAH,10.3,0,10"


def test_the_server_answers_rows_on_one_connection(served: Served) -> None:
    for _ in range(3):
        status, body = served.request("POST", "/invocations", "\n".join([LINE.format(carrier="B6")] * 2))
        assert status == 200
        assert len(body.split()) == 2
    answer = served.request(
        "POST", "/invocations", json.dumps([LINE.format(carrier="B6").split(",")]), "application/json"
    )
    assert answer[0] == 200


def test_faults_of_the_client_are_400_and_faults_of_the_model_500(served: Served) -> None:
    assert served.request("POST", "/invocations", "1,2,3")[0] == 400
    assert served.request("POST", "/invocations", LINE.format(carrier="B6"), "image/png")[0] == 400
    status, body = served.request("POST", "/invocations", LINE.format(carrier="UA"))
    assert (status, body.strip()) == (500, "KeyError: 'UA'")
    assert served.request("GET", "/models")[0] == 404
    assert served.request("POST", "/other", "x")[0] == 404
    assert served.request("GET", "/ping")[0] == 200


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (None, "FileNotFoundError"),
        ("def load(model_dir):\n    raise OSError('truncated')\ndef predict(m, b, c): ...", "OSError: truncated"),
        ("def load(model_dir): ...", "defines no function predict()"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_load_ends_the_server_with_the_reason(
    tmp_path: Path, handler: str | None, told: str
) -> None:
    code = tmp_path / "model" / "code"
    code.mkdir(parents=True)
    if handler:
        (code / "inference.py").write_text(handler)
    process = Served(tmp_path).process
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("serve: the model under")
    assert told in last
