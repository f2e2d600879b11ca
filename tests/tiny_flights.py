"""A model of four columns with weights drawn at random: enough to ask the handler everything."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import torch

import inference

FEATURES = [
    {"name": "dep_delay", "kind": "numeric"},
    {"name": "hour", "kind": "categorical"},
    {"name": "carrier", "kind": "categorical"},
    {"name": "visib", "kind": "numeric"},
]
PREPROCESSING = {
    "numeric": {
        "dep_delay": {"mean": 10.0, "edges": [-20.0, 0.0, 15.0, 600.0]},
        "visib": {"mean": 9.0, "edges": [0.0, 9.5, 10.0]},
    },
    "categorical": {"hour": ["5", "6"], "carrier": ["B6", "DL", "UA"]},
    "network": {"hidden": [8], "embed": 2, "dropout": 0.5},
}


def write_model(
    folder: Path, features: list[dict[str, str]] = FEATURES, preprocessing: dict[str, Any] = PREPROCESSING
) -> Path:
    """Write a model that inference.load() accepts."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_bytes(Path(inference.__file__).read_bytes())
    (folder / "input_schema.json").write_text(json.dumps({"label": "late", "features": features}))
    (folder / "preprocessing.json").write_text(json.dumps(preprocessing))
    torch.manual_seed(0)
    torch.save(inference.Model(features, preprocessing).network.state_dict(), folder / "model.pt")
    return folder


def pack(model: Path) -> bytes:
    """Return a model's folder as the archive that a training job leaves."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(model, arcname=".")
    return content.getvalue()
