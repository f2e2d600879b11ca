"""Tells whether a job has left a model behind: an archive may be there and be empty."""

from __future__ import annotations

import io
import tarfile
import zlib
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.launchers.aws_errors import error_code, service_errors
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Enough for the archive's first entries, whatever the size of the model.
_HEAD_BYTES = 64 * 1024
_MISSING = frozenset({"404", "NoSuchBucket", "NoSuchKey"})


def holds_files(s3: Any, archive: S3Uri) -> bool:
    """Read the beginning of a .tar.gz in S3, or of a listing where the model is stored file by file (a prefix).

    Tell whether it is there and has a file in it.
    """
    if archive.key.endswith("/"):
        with service_errors(f"list {archive}"):
            return any(not row.uri.key.endswith("/") for row in ObjectStore(s3).list(archive))
    with service_errors(f"read {archive}"):
        try:
            answer = s3.get_object(Bucket=archive.bucket, Key=archive.key, Range=f"bytes=0-{_HEAD_BYTES - 1}")
        except ClientError as error:
            if error_code(error) in _MISSING:
                return False
            raise
        head: bytes = answer["Body"].read()
    return _has_file(zlib.decompressobj(wbits=31).decompress(head))


def _has_file(beginning: bytes) -> bool:
    try:
        with tarfile.open(fileobj=io.BytesIO(beginning), mode="r:") as archive:
            return any(member.isfile() for member in iter(archive.next, None))
    except tarfile.ReadError:  # an archive without a single entry
        return False
