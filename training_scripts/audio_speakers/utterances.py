"""Channels of utterances: .npz files with `frames` (float32, n x longest x 12), `lengths` and `labels` (n)."""

import pathlib
from dataclasses import dataclass

import numpy as np
import torch

from inference import CEPSTRA, LONGEST, SPEAKERS
from sm_runtime import package


@dataclass
class Utterances:
    """The utterances of a channel: frames (n x longest x 12), lengths, speakers (both int64[n]), and their files."""

    frames: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    files: list[dict]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def spoken(self) -> list[np.ndarray]:
        """Each utterance without what fills it up (length x 12)."""
        return [frames[:length].numpy() for frames, length in zip(self.frames, self.lengths.tolist(), strict=True)]


def read(folder: str) -> Utterances:
    """Read every *.npz under `folder`, in the order of their paths."""
    root = pathlib.Path(folder)
    paths = sorted(root.rglob("*.npz"))
    if not paths:
        raise SystemExit(f"there is no .npz file under {root}: the channel is empty, or its S3 prefix is wrong")
    parts, files = [read_file(path) for path in paths], []
    for path, part in zip(paths, parts, strict=True):
        name = str(path.relative_to(root))
        files.append({"path": name, "utterances": len(part["labels"]), "sha256": package.digest(path)})
    longest = max(part["frames"].shape[1] for part in parts)
    padded = [np.pad(part["frames"], ((0, 0), (0, longest - part["frames"].shape[1]), (0, 0))) for part in parts]
    frames, lengths, labels = padded, [part["lengths"] for part in parts], [part["labels"] for part in parts]
    tensors = [torch.from_numpy(np.concatenate(values)) for values in (frames, lengths, labels)]
    return Utterances(tensors[0], tensors[1].long(), tensors[2].long(), files)


def read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the three arrays of a file; end with the reason where they are not what training expects."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in ("frames", "lengths", "labels")}
    except Exception as error:  # numpy, zipfile and zlib have many names for broken bytes
        raise SystemExit(f"{path} does not hold the arrays frames, lengths and labels: {error}") from None
    frames, lengths, labels = found["frames"], found["lengths"], found["labels"]
    count = len(labels)
    if frames.ndim != 3 or frames.shape[2] != CEPSTRA or not 1 <= frames.shape[1] <= LONGEST or not count:
        raise SystemExit(
            f"{path}: frames are {list(frames.shape)}; expected n x 1 to {LONGEST} x {CEPSTRA}, n at least 1"
        )
    if frames.dtype != np.float32 or not np.isfinite(frames).all():
        raise SystemExit(f"{path}: frames must be float32 and finite; they are {frames.dtype}")
    if (
        lengths.shape != labels.shape
        or len(frames) != count
        or not ((lengths >= 1) & (lengths <= frames.shape[1])).all()
    ):
        raise SystemExit(f"{path}: {count} labels need as many lengths from 1 to {frames.shape[1]}, and as many frames")
    if (largest := int(labels.max())) >= SPEAKERS or labels.min() < 0:
        raise SystemExit(f"{path} has the label {largest}; the speakers are 0 to {SPEAKERS - 1}")
    return found
