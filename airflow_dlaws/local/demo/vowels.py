"""Nine speakers: 640 utterances of the Japanese vowels /ae/, as 12 LPC cepstra in each of 7 to 29 frames.

    python -m airflow_dlaws.local.demo.vowels FOLDER        (or as a function: split_files)

Source: the PyPI package aeon 1.6.0 (BSD-3-Clause), which holds the UCI set "Japanese Vowels" of Kudo, Toyama and Shimbo
(1999; CC BY 4.0). Only the two text files in its wheel are read; its Python modules are never imported or installed.

    train/vowels.npz        225 utterances, 25 of each speaker  (of the 270 published for training)
    validation/vowels.npz    45 utterances, 5 of each
    test/vowels.npz         370 utterances, as published

Each file holds `frames` (float32, n x 29 x 12; zeros after the end), `lengths` (int64, n) and `labels` (uint8, n: the
speakers 0 to 8).
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np

from airflow_dlaws.local.demo.packages import PackageArchive

ARCHIVE = PackageArchive(
    requirement="aeon==1.6.0",
    file="aeon-1.6.0-py3-none-any.whl",
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
)
DATA = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"
FRAMES, CEPSTRA, SPEAKERS = 29, 12, 9
#: Of each speaker's 30 published training utterances.
HELD_OUT = 5
SPLITS = ("train", "validation", "test")
#: Part of the folder's name: change it where the files would be written differently, or others would be taken for them.
SEED = "vowels-split-1"

#: Utterances, each frames x 12, and their speakers.
Utterances = tuple[list[np.ndarray], list[int]]


def split_files(cache: Path) -> dict[str, Path]:
    """Return the file of each split ("train": path) under `cache`, downloading the package at the first call.

    :raises ServiceUnavailable: the package index cannot be reached.
    """
    files = {split: cache / SEED / split / "vowels.npz" for split in SPLITS}
    if not all(path.exists() for path in files.values()):
        with zipfile.ZipFile(ARCHIVE.download(cache)) as archive:
            published, test = (parse(archive.read(DATA.format(part)).decode()) for part in ("TRAIN", "TEST"))
        held_out = choose_held_out(published)
        for split, chosen in (("train", ~held_out), ("validation", held_out)):
            places = np.flatnonzero(chosen)
            _write(files[split], ([published[0][place] for place in places], [published[1][place] for place in places]))
        _write(files["test"], test)
    return files


def parse(text: str) -> Utterances:
    """Read a .ts file: after @data a line for each utterance, its 12 dimensions and the label between colons."""
    utterances, labels = [], []
    for line in text.partition("@data")[2].splitlines():
        if line.strip():
            *dimensions, label = line.split(":")
            utterances.append(np.array([row.split(",") for row in dimensions], dtype=np.float32).T)
            labels.append(int(label) - 1)
    return utterances, labels


def choose_held_out(published: Utterances) -> np.ndarray:
    """Return a flag for each utterance: of each speaker the five whose hashes come first."""
    keys = [hashlib.sha256(SEED.encode() + utterance.tobytes()).digest() for utterance in published[0]]
    labels, chosen = np.array(published[1]), np.zeros(len(keys), dtype=bool)
    for speaker in range(SPEAKERS):
        places = sorted(np.flatnonzero(labels == speaker), key=keys.__getitem__)
        chosen[places[:HELD_OUT]] = True
    return chosen


def _write(path: Path, utterances: Utterances) -> None:
    frames = np.zeros((len(utterances[0]), FRAMES, CEPSTRA), dtype=np.float32)
    for row, utterance in zip(frames, utterances[0], strict=True):
        row[: len(utterance)] = utterance
    lengths = np.array([len(utterance) for utterance in utterances[0]])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, frames=frames, lengths=lengths, labels=np.array(utterances[1], dtype=np.uint8))
    unfinished.replace(path)


if __name__ == "__main__":
    for name, place in split_files(Path(sys.argv[1])).items():
        print(f"{name}: {place.parent}")
