"""`dlaws templates list|copy` as a user types it: copies that never overwrite what a user has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_dlaws.cli import main
from airflow_dlaws.template_files import FOLDERS, IGNORE_FILE, template_files

ROOT = Path(__file__).parent.parent.parent
#: A file that users are told to change.
DAG = "dags/retrain_on_drift.py"


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_has_every_dag_and_every_script(tmp_path: Path) -> None:
    assert main(["templates", "copy", str(tmp_path / "mine")]) == 0
    copied = files_below(tmp_path / "mine")
    for name in FOLDERS:
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert copied.pop(path.relative_to(ROOT).as_posix()) == path.read_bytes()
    assert set(copied) == {IGNORE_FILE}


def test_copying_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["templates", "copy", str(tmp_path)])
    capsys.readouterr()
    assert main(["templates", "copy", str(tmp_path), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["files"].values()) == {"unchanged"}


def test_a_changed_file_is_named_and_nothing_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["templates", "copy", str(tmp_path)])
    (tmp_path / DAG).write_text("# mine\n")
    (tmp_path / "dags/monitor_endpoint.py").unlink()
    assert main(["templates", "copy", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"['{DAG}']" in message
    assert "--force" in message
    assert (tmp_path / DAG).read_text() == "# mine\n"
    assert not (tmp_path / "dags/monitor_endpoint.py").exists()


def test_force_overwrites_what_differs_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["templates", "copy", str(tmp_path)])
    (tmp_path / DAG).write_text("# mine\n")
    capsys.readouterr()
    assert main(["templates", "copy", str(tmp_path), "--force", "--json"]) == 0
    states = json.loads(capsys.readouterr().out)["files"]
    assert [path for path, state in states.items() if state != "unchanged"] == [DAG]
    assert (tmp_path / DAG).read_bytes() == (ROOT / DAG).read_bytes()


def test_files_of_the_users_own_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/mine.py").write_text("# mine\n")
    assert main(["templates", "copy", str(tmp_path)]) == 0
    assert (tmp_path / "dags/mine.py").read_text() == "# mine\n"


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["templates", "copy", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_the_list_says_what_each_dag_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["templates", "list", "--json"]) == 0
    rows = {row["path"]: row for row in json.loads(capsys.readouterr().out)["files"]}
    assert rows.keys() == {file.path for file in template_files()}
    assert all(row["summary"] for path, row in rows.items() if path.startswith("dags/"))
