"""Where the template DAGs and training scripts lie: in the checkout, or in the installed wheel."""

from __future__ import annotations

from pathlib import Path

from airflow_dlaws.errors import SpecificationError

_PACKAGE = Path(__file__).parent.parent


def templates_folder(name: str) -> Path:
    """Return the folder `name` ("dags" or "training_scripts").

    :raises SpecificationError: this installation has no such folder.
    """
    places = (_PACKAGE.parent / name, _PACKAGE / "templates" / name)
    for place in places:
        if place.is_dir():
            return place
    raise SpecificationError(f"no folder {name!r} at {[str(place) for place in places]}: install airflow-dlaws again")
