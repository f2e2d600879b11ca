"""What does the detector say about handwritten digits that were changed, and does the model suffer?

    python benchmarks/image_drift.py [--seed 0] [--rows 750]

Trains the image classifier with its own script, then shows it the test images as they are and changed in ways that
scanners and people change them. Prints the table of training_scripts/image_classifier/README.md: what the model gets
wrong, what its confidence says it would, and what the detector says, once, at 5 % false alarms of the whole decision.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "training_scripts" / "image_classifier"
sys.path.insert(0, str(SCRIPTS))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from airflow_dlaws.drift.columns import count_columns  # noqa: E402
from airflow_dlaws.drift.comparison import Family  # noqa: E402
from airflow_dlaws.drift.outputs import answer_columns  # noqa: E402
from airflow_dlaws.drift.profile import ReferenceProfile, parse_profile  # noqa: E402
from airflow_dlaws.drift.settings import DriftSettings  # noqa: E402
from airflow_dlaws.drift.verdict import DriftVerdict, assess  # noqa: E402
from airflow_dlaws.local.demo import mnist  # noqa: E402

#: One decision about one batch; the sensor's default of 1,000 rows is for traffic that goes on.
SETTINGS = DriftSettings(min_rows=50)


def changes(random: np.random.Generator) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Yield what is done to images (n x 28 x 28, 0 to 255), by name."""
    yield "as they are", lambda images: images
    yield "30 % paler", lambda images: 0.7 * images
    yield "noise (standard deviation 40)", lambda images: images + random.normal(0, 40, images.shape)
    yield (
        "the same noise on every tenth image",
        lambda images: images + random.normal(0, 40, images.shape) * every_tenth(images),
    )
    yield "blurred", blur
    yield "without zeros", lambda images: images
    yield "only zeros and ones", lambda images: images
    yield "moved by 2 pixels", lambda images: np.roll(images, 2, axis=2)
    yield "moved by 4 pixels", lambda images: np.roll(images, 4, axis=2)
    yield "turned by 90 degrees", lambda images: np.rot90(images, axes=(1, 2))
    yield "black and white swapped", lambda images: 255 - images


#: Changes of which digits are written, and not of how.
WRITTEN = {"without zeros": range(1, 10), "only zeros and ones": range(2)}


def every_tenth(images: np.ndarray) -> np.ndarray:
    return (np.arange(len(images)) % 10 == 0)[:, None, None]


def blur(images: np.ndarray) -> np.ndarray:
    """Return the mean of each pixel and its eight neighbours."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, row : row + 28, column : column + 28] for row in range(3) for column in range(3)]
    return np.mean(shifted, axis=0)


class Trained:
    """The model and its reference, of the script in a process of its own."""

    def __init__(self, splits: dict[str, Path], seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            folders = [word for name in ("train", "validation") for word in (f"--{name}", str(splits[name].parent))]
            command = [sys.executable, "train.py", *folders, "--model-dir", folder, "--seed", str(seed)]
            environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
            subprocess.run(command, cwd=SCRIPTS, env=environment, check=True, stdout=subprocess.DEVNULL)
            spec = importlib.util.spec_from_file_location("inference", Path(folder, "code", "inference.py"))
            assert spec is not None
            assert spec.loader is not None
            self.code = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.code)
            self.model = self.code.load(folder)
            text = Path(folder, "drift_reference.json").read_text()
        self.reference, self.bytes = parse_profile(text), len(text)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return n x 10, as the handler answers them."""
        logits = self.code.logits(self.model, torch.from_numpy(images.astype(np.float32)))
        return logits.softmax(dim=1).numpy().round(self.code.DECIMALS)


def judge(reference: ReferenceProfile, images: np.ndarray, probabilities: np.ndarray) -> DriftVerdict:
    """Return the verdict on these requests and answers."""
    pixels = dict(zip(reference.feature_order, images.reshape(len(images), -1).T, strict=True))
    return assess(
        reference, count_columns(reference, pixels, answer_columns(probabilities, reference.classes)), SETTINGS
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=750, help="of the 750 test images, drawn at random")
    args = parser.parse_args()
    splits = mnist.split_files(ROOT / ".dlaws" / "cache")
    trained = Trained(splits, args.seed)
    random = np.random.default_rng(args.seed)
    with np.load(splits["test"]) as file:
        chosen = random.permutation(len(file["labels"]))[: args.rows]
        images, labels = file["images"][chosen].astype(float), file["labels"][chosen].astype(int)
    print(f"seed {args.seed}; the reference has {trained.bytes} bytes\n")
    print("| test images | wrong | estimated without labels | verdict | by | most significant |")
    print("|---" * 6 + "|")
    for name, change in changes(random):
        kept = np.isin(labels, WRITTEN.get(name, range(10)))
        seen = np.clip(change(images[kept]), 0, 255).round()
        print(row(name, trained, seen, labels[kept]), flush=True)


def row(name: str, trained: Trained, images: np.ndarray, labels: np.ndarray) -> str:
    probabilities = trained.probabilities(images)
    verdict = judge(trained.reference, images, probabilities)
    wrong = (probabilities.argmax(axis=1) != labels).mean()
    accuracy = verdict.accuracy
    estimated = (
        "" if accuracy is None else f"{1 - accuracy.estimate:.1%} ({1 - accuracy.high:.1%} to {1 - accuracy.low:.1%})"
    )
    families = [
        family for family in Family if any(each.drifted and each.family is family for each in verdict.comparisons)
    ]
    strongest = verdict.comparisons[0]
    cells = [
        f"{name} ({len(images)})", f"{wrong:.1%}", estimated, verdict.outcome.replace("_", " "),
        ", ".join(families), f"{strongest.feature} {strongest.note}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
