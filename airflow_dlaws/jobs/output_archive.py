"""Reading single files out of the archives a training job leaves in S3 (`output.tar.gz`, `model.tar.gz`)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import IO

from airflow_dlaws.errors import SpecificationError


def read_members(archive: IO[bytes], names: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes of those of `names` that a gzipped tar archive holds at its top level.

    :param archive: an open file, read once from its present position.
    :raises SpecificationError: it is no such archive, or it is cut off.
    """
    wanted, found = set(names), {}
    try:
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                content = tar.extractfile(member) if name in wanted else None
                if content is not None:
                    found[name] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SpecificationError(f"not a readable gzipped tar archive: {error}") from error
    return found
