"""A model archive counts only if there is a file in it."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any

import pytest

from airflow_dlaws.launchers.artifact import holds_files
from airflow_dlaws.storage import S3Uri


def archive(*names: str, size: int = 10) -> bytes:
    """Return a .tar.gz with these files; a name that ends with a slash is a folder."""
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = 0 if name.endswith("/") else size
            tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    return stored.getvalue()


@pytest.mark.parametrize(
    ("names", "size", "held"),
    [
        ((), 10, False),
        (("./",), 10, False),
        (("./", "code/"), 10, False),
        (("model.pt",), 10, True),
        (("./", "code/", "code/inference.py"), 10, True),
        (("model.pt", "other.pt"), 3_000_000, True),
    ],
)
def test_an_archive_without_a_file_holds_no_model(aws: Any, names: tuple[str, ...], size: int, held: bool) -> None:
    aws("s3").put_object(Bucket="bucket", Key="model.tar.gz", Body=archive(*names, size=size))
    assert holds_files(aws("s3"), S3Uri("bucket", "model.tar.gz")) is held


def test_a_missing_archive_holds_no_model(aws: Any) -> None:
    assert not holds_files(aws("s3"), S3Uri("bucket", "missing.tar.gz"))
