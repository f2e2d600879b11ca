"""One checkpoint is one file that is whole or not there, and says what it is.

A line of JSON (padded to HEADER bytes): step, size and digest. Then what torch.save writes: the state, and what made
it. It is written beside its place, synced, and moved there: a reader finds the former file or the new one. The digest
finds what went wrong after that, on its way to S3 and back.

Files take turns in `keep` places (checkpoint-0.pt, checkpoint-1.pt, ...), as SageMaker deletes nothing in S3: a name
for each step would leave a file for each step there, and every restart would fetch them all.
"""

import hashlib
import json
import math
import os
import pathlib
import sys
from dataclasses import dataclass
from typing import BinaryIO

import torch

FORMAT = "dlaws-checkpoint/1"
HEADER = 512
_FIELDS = {"format", "step", "size", "sha256"}


@dataclass(frozen=True)
class Found:
    """A checkpoint that is whole.

    :param state: nested dicts, lists, numbers and tensors (on processors).
    """

    path: pathlib.Path
    step: int
    identity: str
    state: dict


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, folder: str, keep: int) -> None:
        self.folder, self._keep = pathlib.Path(folder), keep
        # Whose content `newest` has found broken, though the header says a late step: the next to be overwritten.
        self._broken: set[pathlib.Path] = set()

    def write(self, state: dict, *, step: int, identity: str) -> pathlib.Path:
        """Write a checkpoint in place of the oldest one; return when it is on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._oldest_place()
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            file.write(b" " * HEADER)
            digesting = _Digesting(file)
            torch.save({"identity": identity, "state": state}, digesting)
            header = {"format": FORMAT, "step": step, "size": digesting.size}
            digesting.digest.update(_digested(header))
            file.seek(0)
            file.write(_line({**header, "sha256": digesting.digest.hexdigest()}))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        self._broken.discard(path)
        _sync_folder(self.folder)
        return path

    def newest(self) -> Found | None:
        """Return the newest checkpoint that is whole; None where there is none at all.

        Raises SystemExit where there are checkpoints and none of them is whole.
        """
        headers = {path: read_header(path) for path in self._paths()}
        # What is broken comes first, so that it is told.
        for path in sorted(headers, key=lambda path: (headers[path] or {}).get("step", math.inf), reverse=True):
            header = headers[path]
            content = _read_content(path, header) if header else None
            if header and content is not None:
                return Found(path, header["step"], content["identity"], content["state"])
            self._broken.add(path)
            print(f"{path} is not whole: going back to another one", file=sys.stderr, flush=True)
        if headers:
            raise SystemExit(
                f"none of the checkpoints {sorted(map(str, headers))} is whole: remove them to start from the beginning"
            )
        return None

    def _paths(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))

    def _oldest_place(self) -> pathlib.Path:
        """Return the place that is free, or whose file is broken, or is of the earliest step."""
        places = [self.folder / f"checkpoint-{number}.pt" for number in range(self._keep)]
        headers = {path: None if path in self._broken else read_header(path) for path in places}
        return min(places, key=lambda path: header["step"] if (header := headers[path]) else -1)


def read_header(path: pathlib.Path) -> dict | None:
    """Return what a file says it is; None where it says nothing that makes sense."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER))
        whole = header["format"] == FORMAT and path.stat().st_size == HEADER + header["size"]
        return header if whole and header.keys() == _FIELDS else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _line(header: dict) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def _digested(header: dict) -> bytes:
    """Return what the digest covers beside the state."""
    return _line({name: value for name, value in header.items() if name != "sha256"})


def _read_content(path: pathlib.Path, header: dict) -> dict | None:
    """Return what torch.save has written; None where the digest is another. No more than one copy is in memory."""
    with path.open("rb") as file:
        file.seek(HEADER)
        digest = hashlib.file_digest(file, "sha256")
        digest.update(_digested(header))
        if digest.hexdigest() != header["sha256"]:
            return None
        file.seek(HEADER)
        return torch.load(file, map_location="cpu", weights_only=True)


def _sync_folder(folder: pathlib.Path) -> None:
    """Make the new name last as well."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Digesting:
    """A file that takes the digest of what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.size += len(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()
