"""How does it sound? 23,619 snippets of text, each with the mean of 20 people's ratings from -4 to 4.

    python -m airflow_dlaws.local.demo.snippets FOLDER        (or as a function: split_files)

Source: the source archive of the PyPI package vaderSentiment 3.3.2 (MIT), which holds the ground truth of Hutto and
Gilbert (ICWSM 2014): tweets, sentences of film reviews (rotten.tomatoes.com), of product reviews (amazon.com) and of
editorials (New York Times). Only these text files are read; its Python modules are never imported.

    train/snippets.csv, validation/snippets.csv, test/snippets.csv      about 70, 15 and 15 per cent

The columns are `rating,source,text`. Sentences of one review or editorial fall into one split, and so do equal texts.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_dlaws.local.demo.packages import PackageArchive

ARCHIVE = PackageArchive(
    requirement="vaderSentiment==3.3.2",
    file="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {
    "tweets": "tweets",
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
COLUMNS = ("rating", "source", "text")
#: Upper ends of the splits' shares.
SPLITS = {"train": 0.7, "validation": 0.85, "test": 1.0}
#: Part of the folder's name: change it where the files would be written differently, or others would be taken for them.
SEED = "snippets-split-1"


@dataclass(frozen=True)
class Snippet:
    """A text, what people make of it, and the review or editorial it is from."""

    group: str
    rating: float
    source: str
    text: str


def split_files(cache: Path) -> dict[str, Path]:
    """Return the file of each split ("train": path) under `cache`, downloading the package at the first call.

    :raises ServiceUnavailable: the package index cannot be reached.
    """
    files = {split: cache / SEED / split / "snippets.csv" for split in SPLITS}
    if not all(path.exists() for path in files.values()):
        rows: dict[str, list[Snippet]] = {split: [] for split in SPLITS}
        seen: set[str] = set()
        for snippet in read_archive(ARCHIVE.download(cache)):
            if snippet.text not in seen:
                rows[split_of(snippet)].append(snippet)
            seen.add(snippet.text)
        for split, snippets in rows.items():
            _write(files[split], snippets)
    return files


def read_archive(path: Path) -> Iterator[Snippet]:
    """Yield the snippets in the order of the package: a line is id, mean rating, text between tabs."""
    with tarfile.open(path) as outer, tarfile.open(fileobj=outer.extractfile(INNER)) as inner:
        for source, stem in SOURCES.items():
            content = inner.extractfile(f"hutto_ICWSM_2014/{stem}_GroundTruth.txt")
            if content is None:
                raise ValueError(f"{path} holds no {stem}_GroundTruth.txt")
            for line in io.TextIOWrapper(content, encoding="utf-8"):
                number, rating, text = line.rstrip("\r\n").split("\t")
                # Of products and editorials the number is REVIEW_SENTENCE.
                group = f"{source}-{number.partition('_')[0]}"
                yield Snippet(group, float(rating), source, " ".join(html.unescape(text).split()))


def split_of(snippet: Snippet) -> str:
    """Return the split that the snippet's group falls into, by its hash: no generator has to stay the same."""
    place = int.from_bytes(hashlib.sha256(f"{SEED}/{snippet.group}".encode()).digest()[:8], "big") / 2**64
    return next(split for split, end in SPLITS.items() if place < end)


def _write(path: Path, snippets: list[Snippet]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((f"{snippet.rating:.6f}", snippet.source, snippet.text) for snippet in snippets)
    unfinished.replace(path)


if __name__ == "__main__":
    for name, place in split_files(Path(sys.argv[1])).items():
        print(f"{name}: {place.parent}")
