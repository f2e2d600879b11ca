"""The output side of /opt/ml: model and output archives, checkpoints, the failure file."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_dlaws.local.isolation import OPT_ML
from airflow_dlaws.storage import ObjectStore, S3Uri

#: AWS reads no more than this of /opt/ml/output/failure.
_FAILURE_CHARACTERS = 1024


def failure_text(folder: Path, name: str = "failure") -> str:
    """Return what a host wrote to /opt/ml/output/failure (a processing job: message), or nothing."""
    try:
        return (folder / "output" / name).read_text(errors="replace")[:_FAILURE_CHARACTERS].strip()
    except OSError:
        return ""


class Artifacts:
    """Uploads what all hosts left in one of their folders, as one archive or file by file."""

    def __init__(self, s3: Any, request: Mapping[str, Any]) -> None:
        self._s3 = s3
        output = request["OutputDataConfig"]
        self._compress = output.get("CompressionType", "GZIP") == "GZIP"
        self._target = S3Uri.parse(output["S3OutputPath"].rstrip("/")) / request["TrainingJobName"] / "output"

    def upload(self, folders: Iterable[Path], name: str) -> str:
        """Upload `folders` (one for each host) as `name` ("model", "output"); return the location.

        The files of all hosts are merged; where two have the same name, the first host's stays.
        """
        files: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    files.setdefault(str(path.relative_to(folder)), path)
        return self._archive(files, name) if self._compress else self._plain(files, name)

    def _archive(self, files: Mapping[str, Path], name: str) -> str:
        target = self._target / f"{name}.tar.gz"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
            for inside, path in files.items():
                archive.add(path, inside)
        buffer.seek(0)
        self._s3.upload_fileobj(buffer, target.bucket, target.key)
        return str(target)

    def _plain(self, files: Mapping[str, Path], name: str) -> str:
        for inside, path in files.items():
            target = self._target / name / inside
            self._s3.upload_file(str(path), target.bucket, target.key)
        return f"{self._target / name}/"


class SyncedFolders:
    """Uploads what changes in one folder of every host to one location in S3. Nothing is ever deleted there.

    :param inside: where the folder lies, as the container sees it (under /opt/ml).
    """

    def __init__(self, s3: Any, uri: str, inside: str, folders: Sequence[Path]) -> None:
        self._s3 = s3
        self._uri = S3Uri.parse(uri.rstrip("/"))
        self.folders = [folder / inside.removeprefix(OPT_ML).strip("/") for folder in folders]
        self._uploaded: dict[Path, tuple[int, int]] = {}

    def upload_changes(self) -> None:
        """Upload files that are new or changed since the last call."""
        for folder in self.folders:
            for path in sorted(folder.rglob("*")):
                # A file may be renamed or removed under our hands: it is looked at again next time.
                with contextlib.suppress(FileNotFoundError):
                    self._upload(path, self._uri / str(path.relative_to(folder)))

    def _upload(self, path: Path, target: S3Uri) -> None:
        if not path.is_file() or self._uploaded.get(path) == _version(path):
            return
        version = _version(path)
        self._s3.put_object(Bucket=target.bucket, Key=target.key, Body=path.read_bytes())
        self._uploaded[path] = version


class Checkpoints(SyncedFolders):
    """Keeps the checkpoint folder of every host and its location in S3 in step."""

    def __init__(self, s3: Any, configuration: Mapping[str, Any], folders: Sequence[Path]) -> None:
        super().__init__(s3, configuration["S3Uri"], configuration.get("LocalPath", f"{OPT_ML}/checkpoints"), folders)

    def restore(self) -> None:
        """Copy what is in S3 to every host, before training starts."""
        prefix = f"{self._uri.key}/" if self._uri.key else ""
        rows = [row.uri for row in ObjectStore(self._s3).list(S3Uri(self._uri.bucket, prefix))]
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
            for uri in rows:
                path = folder / uri.key[len(prefix) :]
                if uri.key.endswith("/") or not path.resolve().is_relative_to(folder.resolve()):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                self._s3.download_file(uri.bucket, uri.key, str(path))
                self._uploaded[path] = _version(path)


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
