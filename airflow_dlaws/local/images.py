"""Container images of the local AWS: a URI pattern, and the folder of programs that stands for the image.

A job finds its programs (`train`, `serve`, `python3`, ...) in that folder first, then in the system's. The built-in
image `*/dlaws-torch:*` runs this very Python, serves models with `training_scripts/serve.py`, and runs the code channel
with `training_scripts/train` where a job names no program.
"""

from __future__ import annotations

import fnmatch
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from airflow_dlaws.errors import SpecificationError

#: Matches 123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13.
BUILT_IN_PATTERN = "*/dlaws-torch:*"
#: What a container would have behind its own folders.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImageRegistry:
    """Image patterns and their folders; the last one registered wins."""

    def __init__(self, folders: Mapping[str, Path] | None = None) -> None:
        self._folders: dict[str, Path] = {}
        for pattern, folder in (folders or {}).items():
            self.register(pattern, folder)

    def register(self, pattern: str, folder: Path) -> None:
        """Let image URIs that match `pattern` (shell style) be run from `folder`.

        :raises SpecificationError: the folder does not exist.
        """
        if not folder.is_dir():
            raise SpecificationError(f"image {pattern!r}: {str(folder)!r} is no folder; give a folder of programs")
        self._folders[pattern] = folder.resolve()

    def folder(self, image: str) -> Path | None:
        """Return the folder of programs for an image URI, or None where no pattern matches."""
        matching = [folder for pattern, folder in self._folders.items() if fnmatch.fnmatchcase(image, pattern)]
        return matching[-1] if matching else None

    def program(self, image: str, name: str) -> Path | None:
        """Return the executable `name` of the image itself (not of the system), or None."""
        folder = self.folder(image)
        path = folder / name if folder else None
        return path if path and path.is_file() and os.access(path, os.X_OK) else None

    def patterns(self) -> list[str]:
        """Return the registered patterns."""
        return list(self._folders)

    def how_to_register(self, image: str) -> str:
        """Say what to do about an image that nothing matches."""
        return (
            f"the local AWS knows no image {image!r}, only {self.patterns()}; "
            f"start it with: dlaws local up --image 'PATTERN=FOLDER_OF_PROGRAMS'"
        )


def make_built_in_image(folder: Path) -> Path:
    """Write the programs of the built-in image; each runs this Python. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    python = shlex.quote(sys.executable)
    programs = {"python": python, "python3": python, "torchrun": f"{python} -m torch.distributed.run"}
    if serve := find_script("serve.py"):
        programs["serve"] = f"{python} {shlex.quote(str(serve))}"
    if train := find_script("train"):
        programs["train"] = f"/bin/sh {shlex.quote(str(train))}"
    for name, command in programs.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)
    return folder


def find_script(name: str) -> Path | None:
    """Return a program of the image: from the checkout, or from the installed wheel."""
    package = Path(__file__).parent.parent
    places = (package.parent / "training_scripts" / name, package / "templates" / "training_scripts" / name)
    return next((place for place in places if place.is_file()), None)
