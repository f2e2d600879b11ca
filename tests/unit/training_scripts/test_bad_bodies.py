"""Whatever a client sends is the client's fault: handlers answer or raise ValueError, and CSV means what JSON means.

An error of any other kind is HTTP 500, which alarms and rollouts hold against the model.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_flights
import torch
from image_scripts import inference as images
from test_answers_are_watched import handler

import inference as flights

CSV, JSON, NPY = "text/csv", "application/json", "application/x-npy"
HUGE = "9" * 400


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


BODIES = [
    (JSON, b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    (JSON, f"[[{HUGE}, 1]]".encode()),
    (JSON, b'["\xff"]'),
    (JSON, b'[{"text": "good", "features": {"length": ' + HUGE.encode() + b', "words": 1, "unknown": 0}}]'),
    (JSON, b'[{"text": "good", "features": {"length": NaN, "words": 1, "unknown": 0}}]'),
    (CSV, b"x" * 200_000 + b"\n"),
    (CSV, b"\xff\n"),
    (CSV, b"\0,\0,\0\n"),
    (NPY, b"PK\x03\x04 and no archive"),
    (NPY, header(b"{{{(\n")),
    (NPY, header(b"  a\n b\n")),
    (NPY, header(b"[" * 5000)),
    (NPY, header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 784), }\n")),
    *[(NPY, bytes([*array(np.zeros((1, 784)))[:place], 0x28])) for place in range(6, 128, 3)],
]


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ModuleType, Any]]:
    folder: Path = tmp_path_factory.mktemp("flights") / "m"
    texts, sounds = handler("text_sentiment"), handler("audio_speakers")
    torch.manual_seed(0)
    text_model = texts.Model(["good", "bad", "movie"], {"embed": 4, "hidden": 4, "dropout": 0.0})
    text_model.network.eval()
    return {
        "flights": (flights, flights.load(str(tiny_flights.write_model(folder)))),
        "images": (images, images.Network(2, 0.0).eval()),
        "texts": (texts, text_model),
        "sounds": (sounds, sounds.Network(4, 1, 0.0).eval()),
    }


@pytest.mark.parametrize("name", ["flights", "images", "texts", "sounds"])
def test_no_body_is_held_against_the_model(name: str, handlers: dict[str, tuple[ModuleType, Any]]) -> None:
    code, model = handlers[name]
    for kind, body in BODIES:
        with pytest.raises(ValueError):  # noqa: PT011  each handler has words of its own
            code.predict(model, body, kind)


@pytest.mark.parametrize("text", ["good\nmovie", "good\u2028movie", "good\x85movie", "good\x0bmovie", "good\r\nmovie"])
def test_a_text_is_one_text_whatever_ends_lines_in_it(text: str, handlers: dict[str, tuple[ModuleType, Any]]) -> None:
    code, model = handlers["texts"]
    quoted = code.predict(model, f'"{text}"\n'.encode(), CSV)[0]
    (score,) = json.loads(code.predict(model, json.dumps([text]).encode(), JSON)[0])["predictions"]
    assert quoted == f"{score:.6f}\n".encode()
    if "\n" not in text:
        assert code.predict(model, f"{text}\n".encode(), CSV)[0] == quoted
    assert code.predict(model, f'\ufeff"{text}"\n'.encode(), CSV)[0] == quoted, "Excel begins a file so"


@pytest.mark.parametrize("stated", [float("nan"), 10**400], ids=["NaN", "huge"])
def test_features_that_are_no_numbers_are_not_believed(
    stated: float, handlers: dict[str, tuple[ModuleType, Any]]
) -> None:
    code, model = handlers["sounds"]
    frames = np.zeros((1, 12)).tolist()
    body = json.dumps([{"frames": frames, "features": dict.fromkeys(code.FEATURES, stated)}]).encode()
    with pytest.raises(ValueError, match="length is stated as"):
        code.predict(model, body, JSON)
