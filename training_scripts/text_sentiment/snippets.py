"""Channels of rated texts: CSV files with the columns `rating` (-4 to 4) and `text`; further columns are left alone."""

import collections
import csv
import math
import pathlib
from dataclasses import dataclass

import torch

import inference
from sm_runtime import package


@dataclass
class Snippets:
    """The texts of a channel, their ratings (float32[n]), and where they come from."""

    texts: list[str]
    ratings: torch.Tensor
    files: list[dict]

    def __len__(self) -> int:
        return len(self.texts)

    def encode(self, vocabulary: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the words' places (int64, n x longest, filled up with 0) and how many there are (int64[n])."""
        places = {word: place for place, word in enumerate(vocabulary, start=inference.UNKNOWN + 1)}
        found = [torch.tensor(inference.numbers(places, text)) for text in self.texts]
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True), torch.tensor([len(row) for row in found])


def read(folder: str) -> Snippets:
    """Read every *.csv under `folder`, in the order of their paths."""
    root = pathlib.Path(folder)
    paths = sorted(root.rglob("*.csv"))
    if not paths:
        raise SystemExit(f"there is no .csv file under {root}: the channel is empty, or its S3 prefix is wrong")
    texts, ratings, files = [], [], []
    for path in paths:
        before = len(texts)
        with path.open(newline="", encoding="utf-8-sig") as file:
            try:
                for row in csv.DictReader(file):
                    texts.append(row.get("text") or "")
                    ratings.append(to_rating(path, len(texts) - before, row))
            except (UnicodeDecodeError, csv.Error) as error:
                raise SystemExit(f"{path} is no CSV file in UTF-8: {error}") from None
        if len(texts) == before:
            raise SystemExit(f"{path} has no rows")
        name = str(path.relative_to(root))
        files.append({"path": name, "texts": len(texts) - before, "sha256": package.digest(path)})
    return Snippets(texts, torch.tensor(ratings), files)


def to_rating(path: pathlib.Path, number: int, row: dict) -> float:
    """Return the rating of a row; end with the reason where there is none."""
    try:
        rating = float(row["rating"])
    except (KeyError, TypeError, ValueError):
        rating = math.nan
    if not abs(rating) <= inference.SCALE or not row.get("text"):
        raise SystemExit(f"{path}, row {number}: {row}; expected a rating from -4 to 4 and a text")
    return rating


def choose_vocabulary(texts: list[str], least: int) -> list[str]:
    """Return the words that `least` texts or more have, the most frequent first, equally frequent by alphabet."""
    counts = collections.Counter(word for text in texts for word in set(inference.words(text)))
    return sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
