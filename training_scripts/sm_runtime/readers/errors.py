"""What goes wrong with data, and the one door through which the libraries of the formats are imported."""

import importlib
from pathlib import Path
from typing import Any


class ReaderError(Exception):
    """Data cannot be read. Says where, why, and the way out."""


class DataCorrupt(ReaderError):
    """Bytes are not what was written: a checksum, a length or a structure is wrong, or the file ends too early.

    :param record: number of the sample or record within the file, from 0.
    :param offset: where it begins, in bytes from the start of the file.
    """

    def __init__(self, path: Path, what: str, *, record: int | None = None, offset: int | None = None) -> None:
        self.path, self.record, self.offset = path, record, offset
        place = "" if record is None else f", record {record}"
        place += "" if offset is None else f" at byte {offset}"
        super().__init__(f"{path}{place}: {what}")


class DataRefused(ReaderError):
    """The data is whole, but not something that this package reads; the message says what to do about it."""


class LibraryMissing(ReaderError):
    """The library of a format is not installed."""


def library(module: str, package: str, what: str) -> Any:
    """Import the library of a format, when a file of that format is opened and not before."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LibraryMissing(
            f"{what} needs the library {module}: add `pip install {package}` to the job's image ({error})"
        ) from error
