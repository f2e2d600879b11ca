"""The data of the recurrent examples: complete, and divided so that nothing of one split is in another."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from airflow_dlaws.local.demo import snippets, vowels

CACHE = Path(__file__).parent.parent.parent / ".dlaws" / "cache"


def test_every_utterance_is_in_one_split_and_the_test_split_is_the_published_one() -> None:
    seen: set[bytes] = set()
    counts = {}
    for split, path in vowels.split_files(CACHE).items():
        with np.load(path) as file:
            frames, lengths, labels = file["frames"], file["lengths"], file["labels"]
        counts[split] = np.bincount(labels).tolist()
        assert all((row[length:] == 0).all() for row, length in zip(frames, lengths, strict=True))
        seen |= {row.tobytes() for row in frames}
    assert counts["train"] == [25] * 9
    assert counts["validation"] == [5] * 9
    assert counts["test"] == [31, 35, 88, 44, 29, 24, 40, 50, 29]  # as UCI publishes them
    assert len(seen) == 640


def test_every_text_is_in_one_split_and_reviews_are_not_cut_apart() -> None:
    texts: dict[str, set[str]] = {}
    for split, path in snippets.split_files(CACHE).items():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        texts[split] = {row["text"] for row in rows}
        assert len(texts[split]) == len(rows)
        assert all(-4 <= float(row["rating"]) <= 4 and row["source"] in snippets.SOURCES for row in rows)
    assert sum(map(len, texts.values())) == len(set.union(*texts.values())) == 23_619
    groups: dict[str, set[str]] = {}
    for snippet in snippets.read_archive(snippets.ARCHIVE.download(CACHE)):
        groups.setdefault(snippet.group, set()).add(snippets.split_of(snippet))
    assert all(len(splits) == 1 for splits in groups.values())
