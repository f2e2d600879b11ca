"""Data, network and loss of each training script, as its train.py sets them up: for training.py to measure."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from airflow_dlaws.local.demo import flights, mnist, snippets, vowels

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "training_scripts"
CACHE = ROOT / ".dlaws" / "cache"


@dataclass(frozen=True)
class Case:
    """A script's data, network and loss, as its train.py sets them up."""

    tensors: tuple[torch.Tensor, ...]
    network: Callable[[], torch.nn.Module]
    loss: Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], torch.Tensor]
    batch_size: int
    clip_norm: float | None


def folder_module(example: str, name: str) -> Any:
    """Import NAME.py of an example; every folder has an inference.py, so one after the other."""
    folder = str(SCRIPTS / example)
    sys.path.insert(0, folder)
    for other in ("inference", "tables", "preprocessing", "measures", "snippets", "utterances", "images", "baseline"):
        sys.modules.pop(other, None)
    try:
        spec = importlib.util.spec_from_file_location(f"{example}_{name}", f"{folder}/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(folder)


def image_classifier() -> Case:
    train = folder_module("image_classifier", "train")
    files = mnist.split_files(CACHE)
    data = train.images.read(str(files["train"].parent))
    tensors = torch.from_numpy(data.pixels), torch.from_numpy(data.labels)
    return Case(
        tensors,
        lambda: train.inference.Network(16, 0.25),
        lambda model, batch: cross_entropy(model(train.move(batch[0], 1)), batch[1], reduction="none"),
        64,
        None,
    )


def flight_delays() -> Case:
    train = folder_module("flight_delays", "train")
    month = flights.monthly_files(CACHE)["2013-01"].parent
    rows = train.tables.read(str(month))
    shape = {"hidden": [128, 64], "embed": 8, "dropout": 0.1}
    learned = train.preprocessing.learn(rows, ["hour", "weekday", "carrier", "origin", "dest"], shape)
    encoder = train.inference.Encoder(learned)
    tensors = (*encoder(rows.columns), torch.from_numpy(rows.labels))
    return Case(
        tensors,
        lambda: train.inference.Network(encoder.width, encoder.embeddings, len(encoder.places), **shape),
        lambda model, batch: binary_cross_entropy_with_logits(model(*batch[:2]), batch[2], reduction="none"),
        1024,
        None,
    )


def audio_speakers() -> Case:
    train = folder_module("audio_speakers", "train")
    files = vowels.split_files(CACHE)
    data = train.utterances.read(str(files["train"].parent))
    return Case(
        (data.frames, data.lengths, data.labels),
        lambda: train.inference.Network(32, 1, 0.3),
        lambda model, batch: train.loss(model, batch, 0.6),
        16,
        1.0,
    )


def text_sentiment() -> Case:
    train = folder_module("text_sentiment", "train")
    files = snippets.split_files(CACHE)
    data = train.snippets.read(str(files["train"].parent))
    vocabulary = train.snippets.choose_vocabulary(data.texts, 2)
    places, lengths = data.encode(vocabulary)
    few = slice(0, 4000)
    return Case(
        (places[few], lengths[few], data.ratings[few]),
        lambda: train.inference.Network(len(vocabulary) + 2, 64, 64, 0.4),
        lambda model, batch: mse_loss(model(batch[0][:, : int(batch[1].max())], batch[1]), batch[2], reduction="none"),
        64,
        1.0,
    )


CASES = {case.__name__: case for case in (flight_delays, image_classifier, audio_speakers, text_sentiment)}
