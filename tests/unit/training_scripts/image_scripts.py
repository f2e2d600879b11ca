"""The image classifier's modules and a model with weights drawn at random.

They are loaded by path under names of their own: another folder of training scripts has an inference.py too.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import torch

FOLDER = Path(__file__).parent.parent.parent.parent / "training_scripts" / "image_classifier"


def load(name: str) -> ModuleType:
    """Import `name`.py of the folder as image_classifier_NAME."""
    spec = importlib.util.spec_from_file_location(f"image_classifier_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


images, inference = load("images"), load("inference")


def write_model(folder: Path) -> Path:
    """Write a model that inference.load() accepts."""
    folder.mkdir(parents=True)
    shape = {"width": 2, "dropout": 0.5}
    (folder / "network.json").write_text(json.dumps(shape))
    torch.manual_seed(0)
    torch.save(inference.Network(**shape).state_dict(), folder / "model.pt")
    return folder
