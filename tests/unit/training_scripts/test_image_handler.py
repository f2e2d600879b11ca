"""What the image classifier's handler answers, and what it refuses."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_scripts import inference, write_model

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 784)).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return inference.load(str(write_model(tmp_path_factory.mktemp("model") / "m")))


def csv(pixels: np.ndarray) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in pixels.tolist()).encode()


def npy(array: np.ndarray, **options: Any) -> bytes:
    output = io.BytesIO()
    np.save(output, array, **options)
    return output.getvalue()


def predictions(model: Any, body: bytes, kind: str) -> list[dict[str, float]]:
    answer, answered = inference.predict(model, body, kind)
    assert answered == "application/json"
    return list(json.loads(answer)["predictions"])


def test_each_line_of_csv_gets_a_digit_its_probability_and_that_of_each_digit(model: Any) -> None:
    answer, kind = inference.predict(model, csv(PIXELS) + b"\r\n", "text/csv; charset=utf-8")
    assert kind == "text/csv"
    rows = [line.split(",") for line in answer.decode().splitlines()]
    assert len(rows) == 3
    for digit, chance, *chances in rows:
        assert len(chances) == 10
        assert 0.1 <= float(chance) <= 1
        assert chances[int(digit)] == chance == max(chances)
        assert sum(map(float, chances)) == pytest.approx(1, abs=1e-5)


def test_csv_json_and_arrays_mean_the_same(model: Any) -> None:
    lines = inference.predict(model, csv(PIXELS), "text/csv")[0].decode().splitlines()
    rows = [line.split(",") for line in lines]
    expected = [
        {"digit": int(row[0]), "probability": float(row[1]), "probabilities": [*map(float, row[2:])]} for row in rows
    ]
    documents = [PIXELS.tolist(), {"instances": PIXELS.astype(float).tolist()}]
    bodies = [(json.dumps(document).encode(), "application/json") for document in documents]
    arrays = [PIXELS, PIXELS.reshape(3, 28, 28), PIXELS.astype(np.float64)]
    bodies += [(npy(array), "application/x-npy") for array in arrays]
    for body, kind in bodies:
        assert predictions(model, body, kind) == expected


def test_an_image_is_answered_the_same_alone_and_in_a_request_of_several_chunks(model: Any) -> None:
    many = np.random.default_rng(1).integers(0, 256, (inference.CHUNK + 7, 784)).astype(np.uint8)
    together = predictions(model, npy(many), "application/x-npy")
    assert len(together) == len(many)
    for place in (0, inference.CHUNK, len(many) - 1):
        (alone,) = predictions(model, npy(many[place : place + 1]), "application/x-npy")
        assert alone["digit"] == together[place]["digit"]
        assert alone["probability"] == pytest.approx(together[place]["probability"], abs=2e-6)


def test_asking_leaves_the_network_in_its_mode(model: Any) -> None:
    pixels = torch.from_numpy(PIXELS.reshape(3, 28, 28))
    model.train()
    while_training = inference.logits(model, pixels)
    assert model.training
    model.eval()
    assert torch.equal(while_training, inference.logits(model, pixels))  # no dropout in either
    assert not model.training


def with_value(value: str, row: int = 1) -> bytes:
    texts = [["0"] * 784 for _ in range(2)]
    texts[row][9] = value
    return "\n".join(map(",".join, texts)).encode()


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"1,2,3", "text/csv", "row 1 has 3 values, not the 784 pixels"),
        (csv(PIXELS) + b"1", "text/csv", "row 4 has 1 values, not the 784"),
        (b"\n", "text/csv", "the request has no rows"),
        (with_value("ink"), "text/csv", "row 2, value 10 is 'ink', which is no number from 0 to 255"),
        (with_value("", row=0), "text/csv", "row 1, value 10 is '', which is no number"),
        (with_value("nan"), "text/csv", "row 2, value 10 is nan, which is no number"),
        (with_value("256"), "text/csv", "row 2, value 10 is 256, which is no number from 0 to 255"),
        (with_value("-1"), "text/csv", "row 2, value 10 is -1,"),
        (b"\xff\xfe", "text/csv", "not UTF-8"),
        (b"1", "image/png", "content type 'image/png' is unknown: send text/csv, application/json, application/x-npy"),
        (b"{", "application/json", "the body is not JSON"),
        (b"[" * 100_000, "application/json", "the body is not JSON"),
        (b'{"rows": []}', "application/json", 'expected {"instances": [[...], ...]}'),
        (b'{"instances": []}', "application/json", "the request has no rows"),
        (json.dumps([0] * 784).encode(), "application/json", 'expected {"instances"'),
        (json.dumps([[0] * 783 + [None]]).encode(), "application/json", "row 1, value 784 is None"),
        (json.dumps([[0] * 783 + [[0]]]).encode(), "application/json", "row 1, value 784 is [0]"),
        (json.dumps([[0] * 783 + [10**400]]).encode(), "application/json", "row 1, value 784 is 1"),
        (b"", "application/x-npy", "no array as numpy.save writes it"),
        (npy(PIXELS)[:-1], "application/x-npy", "no array as numpy.save writes it"),
        (npy(PIXELS[:, :700]), "application/x-npy", "the array is [3, 700]; send n x 784 or n x 28 x 28"),
        (npy(PIXELS[0]), "application/x-npy", "the array is [784]"),
        (npy(PIXELS[:0]), "application/x-npy", "n at least 1"),
        (npy(PIXELS.astype(str)), "application/x-npy", "one array of numbers"),
        (npy(PIXELS.astype(float) - 1), "application/x-npy", "which is no number from 0 to 255"),
    ],
    ids=range(25),
)  # fmt: skip
def test_a_request_at_fault_is_refused_with_the_place(model: Any, body: bytes, kind: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        inference.predict(model, body, kind)


def test_an_array_that_would_run_code_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="no array as"):
        inference.predict(model, npy(np.array([{}], dtype=object), allow_pickle=True), "application/x-npy")


def test_several_arrays_are_refused(model: Any) -> None:
    output = io.BytesIO()
    np.savez(output, PIXELS)
    with pytest.raises(ValueError, match="must be one array of numbers"):
        inference.predict(model, output.getvalue(), "application/x-npy")


def test_weights_of_another_shape_do_not_load(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "network.json").write_text('{"width": 3, "dropout": 0.5}')
    with pytest.raises(RuntimeError, match="size mismatch"):
        inference.load(str(folder))
