"""Copies of the templates for those who want to change them: never over what a user has changed, unless asked to."""

from __future__ import annotations

import enum
from pathlib import Path

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.template_files import TemplateFile, template_files


class CopyState(enum.StrEnum):
    """What became of one file of a copy."""

    WRITTEN = "written"
    #: It was there already, byte for byte.
    UNCHANGED = "unchanged"
    #: It was there with another content (`force`).
    OVERWRITTEN = "overwritten"


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
