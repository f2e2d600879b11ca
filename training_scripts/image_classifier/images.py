"""Channels of images: .npz files with `images` (uint8, n x 28 x 28) and `labels` (uint8, n, the digits 0 to 9)."""

import hashlib
import io
import pathlib
from dataclasses import dataclass

import numpy as np

SIDE, DIGITS = 28, 10


@dataclass
class Images:
    """The images of a channel, their labels, and where they come from."""

    pixels: np.ndarray
    labels: np.ndarray
    files: list[dict]

    def __len__(self) -> int:
        return len(self.labels)


def read(folder: str) -> Images:
    """Read every *.npz under `folder`, in the order of their paths."""
    root = pathlib.Path(folder)
    paths = sorted(root.rglob("*.npz"))
    if not paths:
        raise SystemExit(f"there is no .npz file under {root}: the channel is empty, or its S3 prefix is wrong")
    pixels, labels, files = [], [], []
    for path in paths:
        content = path.read_bytes()
        found = read_file(path, content)
        pixels.append(found["images"])
        labels.append(found["labels"].astype(np.int64))
        digest = hashlib.sha256(content).hexdigest()
        files.append({"path": str(path.relative_to(root)), "images": len(labels[-1]), "sha256": digest})
    return Images(np.concatenate(pixels), np.concatenate(labels), files)


def read_file(path: pathlib.Path, content: bytes) -> dict[str, np.ndarray]:
    """Return the two arrays of a file; end with the reason where they are not what training expects."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            found = {name: archive[name] for name in ("images", "labels")}
    except Exception as error:  # numpy, zipfile and zlib have many names for broken bytes
        raise SystemExit(f"{path} does not hold the arrays images and labels: {error}") from None
    shapes = {name: f"{values.dtype}{list(values.shape)}" for name, values in found.items()}
    count = len(found["labels"]) if found["labels"].ndim == 1 else 0
    expected = {"images": f"uint8[{count}, {SIDE}, {SIDE}]", "labels": f"uint8[{count}]"}
    if not count or shapes != expected:
        raise SystemExit(f"{path} holds {shapes}; expected {expected} and at least one image")
    if (largest := found["labels"].max()) >= DIGITS:
        raise SystemExit(f"{path} has the label {largest}; the labels are the digits 0 to {DIGITS - 1}")
    return found
