"""The models whose traffic is watched: an MLP for the digits, a small CNN for MNIST. CPU, one thread, seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from drift_data import Images

EPOCHS = {"digits": 60, "mnist5k": 12}
#: FGSM tries these step sizes in turn and keeps the first that fools the model, as the attack of Failing Loudly does.
STEPS = np.linspace(0.02, 1, 50)


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained model, the rows it has never seen, and how well it does on them."""

    network: nn.Module
    trained: np.ndarray
    others: np.ndarray
    accuracy: float

    def softmax(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probabilities (n x 10)."""
        with torch.no_grad():
            return torch.softmax(self.network(torch.from_numpy(pixels)), 1).numpy().astype(float)

    def adversarial(self, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the images after the fast gradient sign method (arXiv 1412.6572), each with its least step."""
        inputs = torch.from_numpy(pixels.copy()).requires_grad_()
        nn.functional.cross_entropy(self.network(inputs), torch.from_numpy(labels), reduction="sum").backward()
        assert inputs.grad is not None
        direction, out = inputs.grad.sign().numpy(), pixels.copy()
        left = self.softmax(pixels).argmax(1) == labels
        for step in STEPS:
            moved = np.clip(pixels[left] + step * direction[left], 0, 1).astype(np.float32)
            fooled = self.softmax(moved).argmax(1) != labels[left]
            places = np.flatnonzero(left)[fooled]
            out[places] = moved[fooled]
            left[places] = False
            if not left.any():
                break
        return out


def _network(images: Images) -> nn.Module:
    if images.side == 8:
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    return nn.Sequential(
        nn.Unflatten(1, (1, images.side, images.side)),
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 10),
    )  # fmt: skip


def train(images: Images, seed: int) -> Classifier:
    """Train on one part of the images."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    trained, others = images.parts(seed)
    network = _network(images)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    pixels, labels = torch.from_numpy(images.pixels[trained]), torch.from_numpy(images.labels[trained])
    network.train()
    for _ in range(EPOCHS[images.name]):
        for part in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixels[part]), labels[part]).backward()
            optimizer.step()
    network.eval()
    model = Classifier(network=network, trained=trained, others=others, accuracy=0.0)
    right = model.softmax(images.pixels[others]).argmax(1) == images.labels[others]
    return Classifier(network=network, trained=trained, others=others, accuracy=float(right.mean()))
