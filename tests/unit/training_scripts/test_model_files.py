"""The files that belong to a model: profiles as the drift package makes them, and files that are whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from airflow_dlaws.drift import profile
from sm_runtime import package


@pytest.mark.parametrize("kind", ["normal", "poisson", "constant"])
def test_a_profile_is_the_one_that_the_drift_package_makes(kind: str) -> None:
    generator = np.random.default_rng(1)
    values = {
        "normal": generator.normal(size=501),
        "poisson": generator.poisson(1.5, 700).astype(float),
        "constant": np.zeros(50),
    }[kind]
    values[3] = np.nan
    ours, theirs = package.numeric_profile("x", values), profile.numeric_profile("x", values.tolist())
    assert ours["edges"] == pytest.approx(list(theirs.edges))
    assert {**ours, "edges": 0} == {**theirs.document(), "edges": 0}
    texts = ["a", " b", "", "a"]
    assert package.categorical_profile("y", texts) == profile.categorical_profile("y", texts).document()


def test_a_model_is_written_whole_and_again_over_itself(tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("def load(): ...\n")
    reference = package.drift_reference(
        rows=3, feature_order=["x"], features=[package.numeric_profile("x", np.arange(3.0))], prediction=np.arange(2.0)
    )
    card = package.model_card(
        model="m", label="y", data={}, metrics={"loss": 1.0}, hyperparameters={}, seed=1, processes=2, device="cpu", x=5
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
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {"loss": 1.0}
    assert profile.parse_profile((tmp_path / "model" / "drift_reference.json").read_text()).rows == 3
