"""What a handler answers is what its model's drift reference watches: from a captured response into the same cells."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_flights
import torch
from captured_traffic import captured, lines
from image_scripts import inference as images
from image_scripts import write_model as write_image_model

import inference as flights
from airflow_dlaws.drift.capture import count_capture
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.profile import ReferenceProfile, parse_profile
from sm_runtime import drift_embedding, drift_profile

SCRIPTS = Path(__file__).parent.parent.parent.parent / "training_scripts"
ROWS = 80


def handler(example: str) -> ModuleType:
    """Import the handler of an example under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"{example}_inference", SCRIPTS / example / "inference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def watch(profile: dict[str, Any], request: bytes, answer: bytes, kind: str) -> tuple[ReferenceProfile, TrafficCounts]:
    """Count one captured request, base64 as SageMaker writes what it is not told to be text."""
    sides = [base64.b64encode(body).decode() for body in (request, answer)]
    line = lines(captured(*sides, encoding="BASE64", content_type=kind))
    reference = parse_profile(json.dumps(profile, allow_nan=False))
    return reference, count_capture(reference, line)


def check_outputs(reference: ReferenceProfile, counts: TrafficCounts) -> None:
    """The rows are those of the reference, so they must fall into its cells as they did there."""
    assert (counts.rows, dict(counts.faults)) == (ROWS, {})
    assert reference.outputs
    for output in reference.outputs:
        found = counts.by_name[output.name]
        told = output.counts if isinstance(output.counts, tuple) else [n for _, n in sorted(output.counts.items())]
        assert found.cells == tuple(told), output.name
        assert (found.missing, found.below, found.above, found.unseen) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["text/csv", "application/json"])
def test_the_image_classifier(kind: str, tmp_path: Path) -> None:
    model = images.load(str(write_image_model(tmp_path / "m")))
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, 784))
    request = (
        "".join(",".join(map(str, row)) + "\n" for row in pixels.tolist())
        if kind == "text/csv"
        else json.dumps({"instances": pixels.tolist()})
    ).encode()
    chances = images.logits(model, torch.from_numpy(pixels.reshape(-1, 28, 28))).softmax(dim=1).numpy()
    names = [f"p{place}" for place in range(784)]
    profile = drift_profile.document(
        rows=ROWS,
        feature_order=names,
        features=[drift_profile.numeric("p300", pixels[:, 300])],
        representation=[drift_profile.pca("pca", names, pixels, one_scale=True)],
        **drift_profile.classifier(chances.round(images.DECIMALS), images.NAMES),
    )
    reference, counts = watch(profile, request, *images.predict(model, request, kind))
    check_outputs(reference, counts)
    assert counts.by_name["p300"].cells == reference.features[0].counts
    assert (counts.by_name["pca"].rows, counts.by_name["pca"].missing) == (ROWS, 0)


@pytest.mark.parametrize("kind", ["text/csv", "application/json"])
def test_the_flights_model(kind: str, tmp_path: Path) -> None:
    model = flights.load(str(tiny_flights.write_model(tmp_path / "m")))
    random = np.random.default_rng(1)
    rows = [
        [str(random.integers(-9, 99)), "6", random.choice(["UA", "B6"]), str(random.integers(1, 9))]
        for _ in range(ROWS)
    ]
    request = ("\n".join(map(",".join, rows)) if kind == "text/csv" else json.dumps({"instances": rows})).encode()
    columns = dict(zip(model.features, map(list, zip(*rows, strict=True)), strict=True))
    numbers = {name: flights.to_numbers(name, columns[name]) for name in ("dep_delay", "visib")}
    profile = drift_profile.document(
        rows=ROWS,
        feature_order=model.features,
        features=[
            *map(drift_profile.numeric, numbers, numbers.values()),
            drift_profile.categorical("carrier", columns["carrier"]),
        ],
        representation=[drift_profile.pca("pca", list(numbers), np.stack([*numbers.values()], axis=1))],
        **drift_profile.classifier(model.probabilities(columns).round(flights.DIGITS), ["0", "1"]),
    )
    reference, counts = watch(profile, request, *flights.predict(model, request, kind))
    check_outputs(reference, counts)
    assert counts.by_name["dep_delay"].cells == reference.features[0].counts
    assert counts.by_name["pca"].rows == ROWS


def test_the_speaker_model() -> None:
    code = handler("audio_speakers")
    torch.manual_seed(0)
    model = code.Network(4, 1, 0.0).eval()
    random = np.random.default_rng(2)
    spoken = [random.normal(size=(random.integers(5, 20), 12)).astype(np.float32) for _ in range(ROWS)]
    described = [code.describe(frames) for frames in spoken]
    instances = [{"frames": f.tolist(), "features": d} for f, d in zip(spoken, described, strict=True)]
    request = json.dumps({"instances": instances}).encode()
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(frames) for frames in spoken], batch_first=True)
    chances = code.logits(model, padded, torch.tensor([len(frames) for frames in spoken])).softmax(dim=1).numpy()
    table = np.array([[*each.values()] for each in described])
    profile = drift_profile.document(
        rows=ROWS,
        feature_order=code.FEATURES,
        features=[drift_profile.numeric(*pair) for pair in zip(code.FEATURES, table.T, strict=True)],
        representation=[drift_profile.pca("pca", code.FEATURES, table)],
        **drift_profile.classifier(chances.round(code.DECIMALS), code.NAMES),
    )
    reference, counts = watch(profile, request, *code.predict(model, request, "application/json"))
    check_outputs(reference, counts)
    assert counts.by_name["length"].cells == reference.features[0].counts


def test_the_sentiment_model_with_its_vectors() -> None:
    code = handler("text_sentiment")
    torch.manual_seed(0)
    model = code.Model([f"word{letter}" for letter in "abcdefgh"], {"embed": 4, "hidden": 4, "dropout": 0.0})
    model.network.eval()
    random = np.random.default_rng(3)
    texts = [" ".join(f"word{letter}" for letter in random.choice([*"abcdefghij"], 6)) for _ in range(ROWS)]
    described = [code.describe(model.vocabulary, text) for text in texts]
    instances = [{"text": text, "features": each} for text, each in zip(texts, described, strict=True)]
    request = json.dumps({"instances": instances, "embedding": True}).encode()
    places = torch.tensor([code.numbers(model.vocabulary, text) for text in texts])
    ratings, vectors = code.answers(model.network, places, torch.full((ROWS,), places.shape[1]))
    profile = drift_profile.document(
        rows=ROWS,
        feature_order=code.FEATURES,
        features=[drift_profile.numeric("unknown", np.array([each["unknown"] for each in described]))],
        embeddings=[drift_embedding.embedding("embedding", vectors.numpy(), pairs=32)],
        **drift_profile.regressor(ratings.numpy().round(code.DECIMALS)),
    )
    reference, counts = watch(profile, request, *code.predict(model, request, "application/json"))
    check_outputs(reference, counts)
    assert counts.by_name["unknown"].cells == reference.features[0].counts
    assert (counts.embeddings[0].rows, counts.embeddings[0].missing) == (ROWS, 0)
