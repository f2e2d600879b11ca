"""The template DAGs and training scripts: where they lie, and copies of them for those who want to change them.

They lie beside the package in a checkout, and inside it in an installed wheel. Nothing here runs or imports them.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_dlaws.errors import SpecificationError

#: The folders stay side by side in every copy: a DAG names its scripts by "../training_scripts/NAME".
FOLDERS = ("dags", "training_scripts")
#: Keeps the DAG processor away from the scripts where the copy lies in Airflow's DAGs folder.
IGNORE_FILE, IGNORED = ".airflowignore", b"training_scripts/\n"

_PACKAGE = Path(__file__).parent


class CopyState(enum.StrEnum):
    """What became of one file of a copy."""

    WRITTEN = "written"
    #: It was there already, byte for byte.
    UNCHANGED = "unchanged"
    #: It was there with another content (`force`).
    OVERWRITTEN = "overwritten"


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


def copy_templates(target: Path, *, force: bool = False) -> dict[str, CopyState]:
    """Copy all template files below `target`; return what became of each, by its path.

    :param force: overwrite files that differ from the templates.
    :raises SpecificationError: files differ and `force` is not set, or `target` cannot be written to. Nothing has been
        overwritten then.
    """
    files = template_files()
    plan = {file.path: _state(target / file.path, file) for file in files}
    changed = sorted(path for path, state in plan.items() if state is CopyState.OVERWRITTEN)
    if changed and not force:
        raise SpecificationError(
            f"{target} has other versions of {changed}: nothing was copied. Compare them with a copy in another "
            "folder, or overwrite them with --force"
        )
    try:
        for file in files:
            if plan[file.path] is not CopyState.UNCHANGED:
                place = target / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.content)
    except OSError as error:
        raise SpecificationError(f"cannot copy the templates to {target}: {error}") from error
    return plan


def _state(place: Path, file: TemplateFile) -> CopyState:
    if not place.exists():
        return CopyState.WRITTEN
    same = place.is_file() and place.read_bytes() == file.content
    return CopyState.UNCHANGED if same else CopyState.OVERWRITTEN


def _files_below(folder: Path) -> Iterator[TemplateFile]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder.parent)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            yield TemplateFile(path=relative.as_posix(), content=path.read_bytes())
