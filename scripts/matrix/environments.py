"""Builds the wheel and one virtual environment for each target, and keeps the environments for the next run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from scripts.matrix.targets import ROOT, Target

#: Written when an environment is complete; holds how long its parts took.
_MARK = "dlaws-matrix.json"


class MatrixError(Exception):
    """An environment could not be made."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An installed environment. Seconds are those of the installation, be it of this run or of an earlier one."""

    target: Target
    folder: Path
    base_seconds: float
    #: What MWAA's limit of nine minutes is about.
    wheel_seconds: float
    cached: bool

    @property
    def python(self) -> str:
        """Its Python."""
        return str(self.folder / "bin" / "python")


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the working tree into `folder`, alone there."""
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)], cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def find_python(version: str) -> str:
    """Return a Python of `version` ("3.12"): from PYTHON312, the PATH, pyenv, or the one that runs this.

    :raises MatrixError: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    variable = f"PYTHON{version.replace('.', '')}"
    found = [os.environ.get(variable), sys.executable, shutil.which(f"python{version}")]
    candidates = [*found, *(str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in candidates:
        if candidate and _version_of(candidate) == version:
            return candidate
    raise MatrixError(f"no Python {version} on the PATH or in {pyenv}: install one, or name it in {variable}")


def environment_for(target: Target, wheel: Path, cache: Path) -> Environment:
    """Return the target's environment with this wheel in it; only what has changed since the last run is installed.

    :raises MatrixError: pip could not install it.
    """
    folder = cache / f"{target.name}-{_key(target, wheel)}"
    cached = (folder / _MARK).exists()
    if not cached:
        for outdated in cache.glob(f"{target.name}-*"):
            shutil.rmtree(outdated)
        _make(target, wheel, folder)
    else:  # the same dependencies; the code may have changed
        _pip(folder, "--force-reinstall", "--no-deps", str(wheel))
    times = json.loads((folder / _MARK).read_text())
    return Environment(target=target, folder=folder, cached=cached, **times)


def _make(target: Target, wheel: Path, folder: Path) -> None:
    python = find_python(target.python)
    _run([python, "-m", "venv", str(folder)])
    started = time.monotonic()
    base = [*target.base, *target.constraint_arguments]
    uv = shutil.which("uv")
    if uv:
        _run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *base])
    else:
        _pip(folder, *base)
    between = time.monotonic()
    _pip(folder, "--find-links", str(wheel.parent), *target.wheel_arguments)
    times = {"base_seconds": round(between - started, 1), "wheel_seconds": round(time.monotonic() - between, 1)}
    # Bytecode halves every start of Airflow; pip may have been told not to write it. Some packages ship files for other
    # versions of Python, which do not compile.
    subprocess.run(
        [folder / "bin" / "python", "-m", "compileall", "-q", "-j", "0", folder / "lib"], capture_output=True
    )
    _run([str(folder / "bin" / "python"), "-m", "pip", "check"])
    (folder / _MARK).write_text(json.dumps(times))


def _pip(folder: Path, *arguments: str) -> None:
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *arguments])


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise MatrixError(f"{' '.join(command)} failed:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")


def _key(target: Target, wheel: Path) -> str:
    """Digest what the installed dependencies follow from."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        requires = [line for line in archive.read(metadata).splitlines() if line.startswith((b"Requires", b"Version"))]
    digest = hashlib.sha256(repr((target.python, target.base, target.wheel_arguments)).encode() + b"\n".join(requires))
    for path in (*target.constraints, *filter(None, [target.requirements])):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _version_of(python: str) -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()
