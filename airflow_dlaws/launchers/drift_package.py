"""The part of this package that a drift check needs, as one zip that any Python 3.11 with numpy runs."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import airflow_dlaws
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.storage import ObjectStore, S3Uri

ZIP_NAME = "airflow_dlaws.zip"

#: What drift/container.py imports, directly or not; a test runs the zip where nothing else of this package is.
_PARTS = ("__init__.py", "errors.py", "page.py", "data", "drift", "jobs")
_MAIN = b"import sys\n\nfrom airflow_dlaws.drift.container import main\n\nsys.exit(main(sys.argv[1:]))\n"
#: Zip files keep times; the same code must give the same bytes, or each worker would publish another zip.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def package_zip() -> bytes:
    """Return the zip; the same code gives the same bytes."""
    root = Path(airflow_dlaws.__file__).parent
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for path in sorted(_files(root)):
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
    return body.getvalue()


def publish_package(store: ObjectStore, destination: S3Uri) -> S3Uri:
    """Put the zip under the digest of its content, unless it is there already; return the folder that holds it."""
    body = package_zip()
    folder = destination / hashlib.sha256(body).hexdigest()[:16]
    with service_errors(f"upload the code of the check to {folder}"):
        if not store.exists(folder / ZIP_NAME):
            store.write(folder / ZIP_NAME, body, content_type="application/zip")
    return S3Uri(folder.bucket, f"{folder.key}/")


def _files(root: Path) -> Iterator[Path]:
    for part in _PARTS:
        path = root / part
        yield from [path] if path.is_file() else path.rglob("*.py")
