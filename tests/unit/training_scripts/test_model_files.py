"""The files that belong to a model are whole, also where they are written again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from airflow_dlaws.drift import profile
from sm_runtime import drift_profile, package


def test_a_model_is_written_whole_and_again_over_itself(tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("def load(): ...\n")
    reference = drift_profile.document(
        rows=3,
        feature_order=["x"],
        features=[drift_profile.numeric("x", np.arange(3.0))],
        **drift_profile.regressor(np.arange(2.0)),
    )
    card = package.model_card(
        model="m",
        label="y",
        data={},
        metrics={"loss": 1.0, "correlation": math.nan},
        hyperparameters={},
        seed=1,
        processes=2,
        device="cpu",
        x=5,
    )
    for factor in (1, 2):
        package.write(
            tmp_path / "model",
            {"w": torch.full((2,), factor)},
            handler=handler,
            input_schema={"features": []},
            model_card=card,
            drift_reference=reference,
            documents={"network": {"width": 4}},
            output=tmp_path / "out",
        )
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    written = ["code/inference.py", "drift_reference.json", "input_schema.json", "model.pt", "model_card.json"]
    assert files == {f"model/{name}" for name in [*written, "network.json"]} | {
        "handler.py", "out/drift_reference.json", "out/metrics.json", "out/model_card.json",
    }  # fmt: skip
    assert torch.load(tmp_path / "model" / "model.pt", weights_only=True)["w"].tolist() == [2, 2]
    strict = json.loads((tmp_path / "out" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert strict == {"loss": 1.0, "correlation": None}
    assert profile.parse_profile((tmp_path / "model" / "drift_reference.json").read_text()).rows == 3
