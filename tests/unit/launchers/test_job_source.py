"""Code is published once under the digest of its content, with the program that starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_dlaws.errors import ServiceRefused, SpecificationError
from airflow_dlaws.launchers import source as job_source
from airflow_dlaws.launchers.source import read_source
from airflow_dlaws.storage import ObjectStore, S3Uri

DESTINATION = S3Uri("bucket", "models/code")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of code with things that are none."""
    (tmp_path / "model").mkdir()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "train.py").write_text("import model.net")
    (tmp_path / "model" / "net.py").write_text("layers = 3")
    (tmp_path / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"x")
    return tmp_path


def published(aws: Any, source: str, *dependencies: str) -> dict[str, bytes]:
    bundle = read_source(aws("s3"), source=source, entry_point="train.py", dependencies=dependencies)
    bundle.publish(aws("s3"), DESTINATION)
    prefix, store = bundle.location(DESTINATION), ObjectStore(aws("s3"))
    return {row.uri.key.removeprefix(prefix.key): store.read(row.uri) for row in store.list(prefix)}


def test_a_folder_is_published_with_the_entry_program_and_without_caches(aws: Any, folder: Path) -> None:
    files = published(aws, str(folder))
    assert sorted(files) == ["dlaws_entry.py", "model/net.py", "train.py"]
    assert files["model/net.py"] == b"layers = 3"
    assert files["dlaws_entry.py"] == job_source.entry_program()


def test_the_same_code_has_the_same_location_and_other_code_another(aws: Any, folder: Path) -> None:
    def location() -> S3Uri:
        return read_source(aws("s3"), source=str(folder), entry_point="train.py").location(DESTINATION)

    first = location()
    assert location() == first
    (folder / "model" / "net.py").write_text("layers = 4")
    assert location() != first


def test_an_upgrade_of_this_package_moves_the_code_and_leaves_its_checkpoints_where_they_are(
    aws: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code() -> job_source.SourceBundle:
        return read_source(aws("s3"), source=str(folder), entry_point="train.py")

    before, place = code().digest, code().location(DESTINATION)
    monkeypatch.setattr(job_source, "entry_program", lambda: b"print('newer')")
    assert (code().digest, code().location(DESTINATION) == place) == (before, False)
    (folder / "train.py").write_text("import model.net  # another")
    assert code().digest != before


def test_code_published_before_is_not_uploaded_again(aws: Any, folder: Path) -> None:
    bundle = read_source(aws("s3"), source=str(folder), entry_point="train.py")
    bundle.publish(aws("s3"), DESTINATION)
    before = [row.last_modified for row in ObjectStore(aws("s3")).list(bundle.location(DESTINATION))]
    bundle.publish(aws("s3"), DESTINATION)
    assert [row.last_modified for row in ObjectStore(aws("s3")).list(bundle.location(DESTINATION))] == before


def test_an_upload_that_was_cut_off_is_completed(aws: Any, folder: Path) -> None:
    bundle = read_source(aws("s3"), source=str(folder), entry_point="train.py")
    bundle.publish(aws("s3"), DESTINATION)
    prefix = bundle.location(DESTINATION)
    ObjectStore(aws("s3")).delete(S3Uri(prefix.bucket, prefix.key + "train.py"))
    assert "train.py" in published(aws, str(folder))


def test_code_in_s3_is_copied_so_that_it_cannot_change_under_the_job(aws: Any) -> None:
    store = ObjectStore(aws("s3"))
    store.write(S3Uri("bucket", "git/main/train.py"), b"first")
    files = published(aws, "s3://bucket/git/main")
    assert files == {"train.py": b"first", "dlaws_entry.py": job_source.entry_program()}
    store.write(S3Uri("bucket", "git/main/train.py"), b"second")
    assert published(aws, "s3://bucket/git/main/")["train.py"] == b"second"


def test_a_missing_folder_is_refused_by_name(aws: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match=r"no-such-folder.* is no folder"):
        read_source(aws("s3"), source=str(tmp_path / "no-such-folder"), entry_point="train.py")


@pytest.mark.parametrize("in_s3", [True, False])
def test_a_missing_entry_point_is_refused_with_what_is_there(aws: Any, folder: Path, in_s3: bool) -> None:
    ObjectStore(aws("s3")).write(S3Uri("bucket", "other/train.py"), b"")
    source = "s3://bucket/other" if in_s3 else str(folder)
    with pytest.raises(SpecificationError, match=r"entry_point='trian.py' is not in .*'train.py'"):
        read_source(aws("s3"), source=source, entry_point="trian.py")


def test_data_in_the_source_folder_is_refused(aws: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_source, "SIZE_LIMIT", 2**20)
    (folder / "data.bin").write_bytes(b"0" * (2 * 2**20))
    with pytest.raises(SpecificationError, match="2 MB, at most 1 MB are allowed: pass data as a channel"):
        read_source(aws("s3"), source=str(folder), entry_point="train.py")


def test_a_missing_bucket_of_code_is_refused_by_name(aws: Any) -> None:
    with pytest.raises(ServiceRefused, match="s3://no-such-bucket/code/"):
        read_source(aws("s3"), source="s3://no-such-bucket/code", entry_point="train.py")


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of code that several scripts share."""
    folder = tmp_path_factory.mktemp("shared") / "runtime"
    (folder / "inside").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inside" / "loop.py").write_text("while True: ...")
    return folder


def test_dependencies_lie_beside_the_code_under_their_own_names(aws: Any, folder: Path, runtime: Path) -> None:
    files = published(aws, str(folder), str(runtime))
    assert sorted(files) == [
        "dlaws_entry.py",
        "model/net.py",
        "runtime/__init__.py",
        "runtime/inside/loop.py",
        "train.py",
    ]
    assert files["runtime/inside/loop.py"] == b"while True: ..."


@pytest.mark.parametrize("source_in_s3", [True, False])
@pytest.mark.parametrize("runtime_in_s3", [True, False])
def test_code_and_dependencies_may_be_in_s3_or_here(
    aws: Any, folder: Path, runtime: Path, source_in_s3: bool, runtime_in_s3: bool
) -> None:
    store = ObjectStore(aws("s3"))
    store.write(S3Uri("bucket", "mixed/train.py"), b"import model.net")
    store.write(S3Uri("bucket", "shared/runtime/inside/loop.py"), b"while True: ...")
    source = "s3://bucket/mixed" if source_in_s3 else str(folder)
    files = published(aws, source, "s3://bucket/shared/runtime/" if runtime_in_s3 else str(runtime))
    assert files["train.py"] == b"import model.net"
    assert files["runtime/inside/loop.py"] == b"while True: ..."
    assert files["dlaws_entry.py"] == job_source.entry_program()


@pytest.mark.parametrize("in_s3", [True, False])
def test_other_dependencies_have_another_location(aws: Any, folder: Path, runtime: Path, in_s3: bool) -> None:
    def location() -> S3Uri:
        shared = "s3://bucket/changing/runtime" if in_s3 else str(runtime)
        bundle = read_source(aws("s3"), source=str(folder), entry_point="train.py", dependencies=[shared])
        return bundle.location(DESTINATION)

    store = ObjectStore(aws("s3"))
    store.write(S3Uri("bucket", "changing/runtime/loop.py"), b"first")
    alone = read_source(aws("s3"), source=str(folder), entry_point="train.py").location(DESTINATION)
    first = location()
    assert first != alone
    assert location() == first
    store.write(S3Uri("bucket", "changing/runtime/loop.py"), b"second")
    (runtime / "inside" / "loop.py").write_text("while False: ...")
    assert location() != first


def test_a_dependency_with_a_name_that_the_code_has_is_refused(aws: Any, folder: Path, tmp_path_factory: Any) -> None:
    other = tmp_path_factory.mktemp("other") / "model"
    other.mkdir()
    (other / "net.py").write_text("layers = 5")
    with pytest.raises(SpecificationError, match=r"beside the code as 'model', where 'model/net.py' is already"):
        published(aws, str(folder), str(other))


@pytest.mark.parametrize("missing", ["/no/such/folder", "s3://bucket/nothing/here"])
def test_a_missing_dependency_is_refused_by_name(aws: Any, folder: Path, missing: str) -> None:
    with pytest.raises(SpecificationError, match=f"dependencies='{missing}"):
        published(aws, str(folder), missing)


def test_large_dependencies_count_too(aws: Any, folder: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_source, "SIZE_LIMIT", 2**20)
    for place in (folder, runtime):
        (place / "weights.bin").write_bytes(b"0" * (700 * 1024))
    with pytest.raises(SpecificationError, match=r"hold 1 MB, at most 1 MB are allowed"):
        published(aws, str(folder), str(runtime))
