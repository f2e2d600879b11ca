"""The template DAGs and training scripts: where they lie, and what files they are.

They lie beside the package in a checkout, and inside it in an installed wheel. Nothing here runs or imports them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_dlaws.errors import SpecificationError

#: The folders stay side by side in every copy: a DAG names its scripts by "../training_scripts/NAME".
FOLDERS = ("dags", "training_scripts")
#: Keeps the DAG processor away from the scripts where a copy lies in Airflow's DAGs folder.
IGNORE_FILE, IGNORED = ".airflowignore", b"training_scripts/\n"

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class TemplateFile:
    """One file, by its path below the folder that copies go to."""

    path: str
    content: bytes

    @property
    def summary(self) -> str:
        """The first line of a Python file's docstring; empty for other files."""
        if not self.path.endswith(".py"):
            return ""
        return (ast.get_docstring(ast.parse(self.content)) or "").partition("\n")[0]


def templates_folder(name: str) -> Path:
    """Return the folder `name` ("dags" or "training_scripts").

    :raises SpecificationError: this installation has no such folder.
    """
    places = (_PACKAGE.parent / name, _PACKAGE / "templates" / name)
    for place in places:
        if place.is_dir():
            return place
    raise SpecificationError(f"no folder {name!r} at {[str(place) for place in places]}: install airflow-dlaws again")


def template_files() -> list[TemplateFile]:
    """Return all template files, those of `dags` first, and the file that hides the scripts from Airflow last."""
    found = [each for name in FOLDERS for each in _files_below(templates_folder(name))]
    return [*found, TemplateFile(path=IGNORE_FILE, content=IGNORED)]


def _files_below(folder: Path) -> Iterator[TemplateFile]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder.parent)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            yield TemplateFile(path=relative.as_posix(), content=path.read_bytes())
