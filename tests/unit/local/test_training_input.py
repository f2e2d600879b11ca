"""Where objects of a prefix lie in a channel."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_dlaws.local.training_input import InputFault, _inside, _local_name


@pytest.mark.parametrize(
    ("key", "prefix", "name"),
    [
        ("train/a.csv", "train/", "a.csv"),
        ("train/a.csv", "train", "a.csv"),
        ("train/x/a.csv", "train", "x/a.csv"),
        ("train/x/a.csv", "", "train/x/a.csv"),
        ("data/train/a.csv", "data/train/a.csv", "a.csv"),
        ("data/train1/a.csv", "data/train", "train1/a.csv"),
        ("train1.csv", "train", "train1.csv"),
    ],
)
def test_a_key_keeps_what_follows_the_prefix(key: str, prefix: str, name: str) -> None:
    assert _local_name(key, prefix) == name


def test_a_key_cannot_climb_out_of_its_channel(tmp_path: Path) -> None:
    assert _inside(tmp_path, "a/b") == tmp_path / "a/b"
    with pytest.raises(InputFault, match="outside its channel"):
        _inside(tmp_path, "a/../../b")
