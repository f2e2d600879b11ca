"""Image patterns and their folders of programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.local.images import BUILT_IN_PATTERN, ImageRegistry, make_built_in_image

URI = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"


def test_an_image_is_found_by_its_pattern_and_the_last_registration_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    images = ImageRegistry({BUILT_IN_PATTERN: first})
    assert images.folder(URI) == first
    images.register("*:2.13", second)
    assert images.folder(URI) == second
    assert images.folder("other:1") is None


def test_the_way_out_of_an_unknown_image_is_told() -> None:
    assert "dlaws local up --image" in ImageRegistry().how_to_register(URI)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="nowhere"):
        ImageRegistry({"*": tmp_path / "nowhere"})


def test_only_executables_are_programs(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("")
    images = ImageRegistry({"*": tmp_path})
    assert images.program(URI, "train") is None
    (tmp_path / "train").chmod(0o755)
    assert images.program(URI, "train") == tmp_path / "train"


def test_the_built_in_image_runs_this_python(tmp_path: Path) -> None:
    folder = make_built_in_image(tmp_path / "image")
    shown = subprocess.run(
        [folder / "python3", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == sys.prefix
    assert {path.name for path in folder.iterdir()} == {"python", "python3", "torchrun", "serve", "train"}
