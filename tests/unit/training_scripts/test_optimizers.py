"""Optimizers by name: each makes its own update, and refuses what cannot work."""

from __future__ import annotations

import math

import pytest
import torch

from sm_runtime import optimizers


def steps(name: str, gradients: list[float], **settings: float) -> float:
    """Return where a weight of 1 is after steps with these gradients."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = optimizers.make(name, [weight], learning_rate=0.1, **settings)
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return weight.item()


def test_each_name_is_the_update_its_source_states() -> None:
    assert steps("sgd", [2.0, 1.0]) == pytest.approx(1 - 0.1 * 2 - 0.1 * 1)
    assert steps("momentum", [2.0, 1.0], momentum=0.5) == pytest.approx(1 - 0.1 * 2 - 0.1 * (0.5 * 2 + 1))
    assert steps("adagrad", [2.0, 1.0]) == pytest.approx(1 - 0.1 - 0.1 * 1 / math.sqrt(5))
    # Bias-corrected, the first step of Adam is the learning rate, whatever the gradient.
    assert steps("adam", [2.0]) == pytest.approx(0.9)
    second = (0.9 * 0.2 + 0.1) / (1 - 0.9**2) / math.sqrt((0.999 * 0.004 + 0.001) / (1 - 0.999**2))
    assert steps("adam", [2.0, 1.0]) == pytest.approx(0.9 - 0.1 * second)
    assert steps("adamw", [2.0], weight_decay=0.5) == pytest.approx(1 - 0.1 * 0.5 - 0.1)
    assert steps("gadam", [2.0, 1.0]) == steps("adam", [2.0, 1.0])


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("lion", {}, "optimizer 'lion' is unknown: choose one of sgd, momentum, adagrad"),
        ("sgd", {"learning_rate": 0.0}, "learning_rate is 0.0; it must be finite and above 0"),
        ("sgd", {"learning_rate": math.nan}, "learning_rate is nan"),
        ("adam", {"weight_decay": -1.0}, "weight_decay is -1.0; it must be finite and at least 0"),
        ("momentum", {"momentum": 1.0}, "momentum is 1.0; it must be finite and at least 0 and below 1"),
    ],
)
def test_what_cannot_be_an_optimizer_is_refused(name: str, settings: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match="is") as caught:
        optimizers.make(name, [torch.nn.Parameter(torch.ones(1))], **{"learning_rate": 0.1, **settings})
    assert told in str(caught.value)
