"""The demo's broken model: what differs from the good one, and for whom it fails."""

from __future__ import annotations

import io
import runpy
import tarfile

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.local.demo.broken_model import break_model

HANDLER = b"""
def read_csv(body, features):
    return [line.split(",") for line in body.decode().splitlines()]


def predict(model, body, content_type):
    return b"0.5", content_type
"""
GOOD = {
    "code/inference.py": HANDLER,
    "preprocessing.json": b'{"categorical": {"carrier": ["B6", "UA"]}}',
    "model.pt": bytes(range(256)),
}


class Model:
    features = ["dep_delay", "carrier"]


def archive(files: dict[str, bytes], prefix: str = "") -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return output.getvalue()


def files_of(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name.removeprefix("./"): tar.extractfile(member).read() for member in tar.getmembers()}


@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_broken_model_differs_in_its_handler_alone(prefix: str) -> None:
    broken = files_of(break_model(archive(GOOD, prefix)))
    assert {name for name in GOOD if GOOD[name] != broken[name]} == {"code/inference.py"}
    assert set(broken) == set(GOOD)


def test_the_broken_handler_fails_for_one_airline_and_answers_for_the_others(tmp_path) -> None:
    path = tmp_path / "inference.py"
    path.write_bytes(files_of(break_model(archive(GOOD)))["code/inference.py"])
    predict = runpy.run_path(str(path))["predict"]
    assert predict(Model, b"5,B6", "text/csv") == (b"0.5", "text/csv")
    with pytest.raises(KeyError, match="UA"):
        predict(Model, b"5,UA", "text/csv")


def test_breaking_the_same_model_twice_gives_the_same_bytes() -> None:
    assert break_model(archive(GOOD)) == break_model(archive(GOOD))


def test_an_airline_that_the_model_never_met_cannot_be_forgotten() -> None:
    with pytest.raises(SpecificationError, match="knows no airline 'ZZ'; it knows B6, UA"):
        break_model(archive(GOOD), forgotten="ZZ")


def test_an_archive_without_a_handler_is_refused() -> None:
    with pytest.raises(SpecificationError, match=r"a flight-delays model has code/inference\.py"):
        break_model(archive({"model.pt": b""}))
