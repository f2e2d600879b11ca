"""What a training script writes with its model: handler, input schema, model card, drift reference, weights.

    model.pt               the weights: load with `torch.load(..., weights_only=True)`
    code/inference.py      the handler that training_scripts/serve.py serves
    input_schema.json      label, features in the order of a request, content types
    model_card.json        data with digests, metrics, hyperparameters, seed, processes, device, versions
    drift_reference.json   what the traffic of a healthy model looks like, as drift_profile.py builds it
    NAME.json              whatever else the handler needs to build the network

model_card.json, drift_reference.json and metrics.json also go to the job's output, where the registry finds them.
"""

import hashlib
import json
import math
import pathlib
import platform
import shutil
from collections.abc import Mapping

import numpy as np
import torch


def digest(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def served(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], device: torch.device) -> torch.nn.Module:
    """Fill a new network with weights, to ask it in one process: of a sharded model all processes must ask together."""
    network.load_state_dict(weights)
    return network.to(device).eval()


def write(
    folder: str | pathlib.Path,
    weights: Mapping[str, torch.Tensor],
    *,
    handler: str | pathlib.Path,
    input_schema: Mapping,
    model_card: Mapping,
    drift_reference: Mapping,
    documents: Mapping[str, Mapping] | None = None,
    output: str | pathlib.Path | None = None,
) -> None:
    """Write the model into `folder`, each file whole or not at all, the card last: with it the model is complete.

    :param documents: further JSON files that the handler reads, by name without ".json".
    :param output: the job's output folder, where there is one.
    """
    target = pathlib.Path(folder)
    (target / "code").mkdir(parents=True, exist_ok=True)
    for name, document in {
        **(documents or {}),
        "input_schema": input_schema,
        "drift_reference": drift_reference,
    }.items():
        _write_json(target / f"{name}.json", document)
    _replace(target / "code" / "inference.py", lambda path: shutil.copy(handler, path))
    tensors = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    _replace(target / "model.pt", lambda path: torch.save(tensors, path))
    _write_json(target / "model_card.json", model_card)
    if output:
        out = pathlib.Path(output)
        out.mkdir(parents=True, exist_ok=True)
        for name in ("drift_reference.json", "model_card.json"):
            _replace(out / name, lambda path, name=name: shutil.copy(target / name, path))
        _write_json(out / "metrics.json", model_card["metrics"])


def model_card(
    *,
    model: str,
    label: str,
    data: Mapping,
    metrics: Mapping[str, float],
    hyperparameters: Mapping,
    seed: int,
    processes: int,
    device: str,
    **more: object,
) -> dict:
    """Return the card. `data` names each file with its rows and SHA-256; `more` is what else the script knows."""
    return {
        "model": model,
        "label": label,
        "data": data,
        "metrics": metrics,
        "hyperparameters": hyperparameters,
        "seed": seed,
        "processes": processes,
        "device": device,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        **more,
    }


def _write_json(path: pathlib.Path, document: Mapping) -> None:
    text = json.dumps(_strict(document), indent=1, allow_nan=False)
    _replace(path, lambda unfinished: unfinished.write_text(text))


def _strict(document):
    """Return a document with null for numbers that JSON does not have, such as the correlation of constant answers."""
    if isinstance(document, float) and not math.isfinite(document):
        return None
    if isinstance(document, Mapping):
        return {name: _strict(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_strict(value) for value in document]
    return document


def _replace(path: pathlib.Path, write_to) -> None:
    """Write beside the file and move it into place, so that a reader never finds half of one."""
    unfinished = path.with_name(path.name + ".tmp")
    write_to(unfinished)
    unfinished.replace(path)
