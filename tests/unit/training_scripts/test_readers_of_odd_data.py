"""Data as they are found: odd columns, empty files, namesakes, many files, and how much of them is read and held."""

import datetime
import gzip
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from data_files import recordio
from PIL import Image

import sm_runtime
from sm_runtime.readers import DataCorrupt, DataRefused, Field, ReaderError, open_dataset, strings
from sm_runtime.readers.tables import ParquetShard


def text_files(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_columns_that_are_not_asked_for_may_be_of_any_type(format, tmp_path):
    day = datetime.date(2013, 2, 1)
    table = pa.table({"x": [1.0, 2.0], "day": [day, day], "gaps": pa.array([None, 1])})
    write_table = {"csv": pa.csv.write_csv, "parquet": pa.parquet.write_table}[format]
    write_table(table, tmp_path / f"a.{format}")
    assert open_dataset(tmp_path, columns=["x"]).batch(np.arange(2))["x"].tolist() == [1, 2]
    with pytest.raises(DataRefused, match=r"'day' is date32|of 'gaps' are null"):
        open_dataset(tmp_path)
    with pytest.raises(DataRefused, match="'z'"):
        open_dataset(tmp_path, columns=["z"])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("piece", [1, 2, 7, 100])
def test_empty_lines_of_csv_are_no_rows(end, piece, tmp_path, monkeypatch):
    monkeypatch.setattr("sm_runtime.readers.tables.SCAN_BYTES", piece)  # so that lines end at every place of a piece
    lines = ["", "x,y", "1,2", "", "", '3,"4', '5"', "6,7", "", ""]
    text_files(tmp_path, a=end.join(lines))
    batch = open_dataset(tmp_path, fields={"y": Field(ragged=True)}).batch(np.arange(3))
    assert batch["x"].tolist() == [1, 3, 6]
    assert strings(batch, "y") == ["2", f"4{end}5", "7"]


def test_a_csv_file_may_have_no_rows_also_if_it_is_the_first(tmp_path):
    data = open_dataset(text_files(tmp_path, a="x,y\n", b="x,y\n1,2\n", c="x,y\n"))
    assert data.batch(np.arange(1))["y"].tolist() == [2]
    with pytest.raises(DataRefused, match="hold no sample"):
        open_dataset(text_files(tmp_path, b="x,y\n"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('x,y\n1,5" pipe\n2,6" pipe\n', "2 rows in 1 lines: a value that holds a quote"),
        ("x,x\n1,2\n", "several columns of one name"),
    ],
)
def test_csv_that_can_be_read_in_two_ways_is_refused(text, told, tmp_path):
    with pytest.raises(ReaderError, match=told):
        open_dataset(text_files(tmp_path, a=text))


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.list_(pa.string(), 2), pa.list_(pa.list_(pa.int8()))])
def test_lists_of_what_differs_in_length_are_refused(kind, tmp_path):
    rows = [[[1], [2, 3]]] if pa.types.is_list(kind.value_type) else [["a", "bc"]]
    pa.parquet.write_table(pa.table({"tokens": pa.array(rows, kind)}), tmp_path / "a.parquet")
    with pytest.raises(DataRefused, match=r"column 'tokens' is .*list<.*differs in length: flatten it"):
        open_dataset(tmp_path)


def test_a_file_that_lacks_a_field_is_named(tmp_path):
    pa.parquet.write_table(pa.table({"x": [1], "label": [0]}), tmp_path / "a.parquet")
    pa.parquet.write_table(pa.table({"x": [2]}), tmp_path / "b.parquet")
    with pytest.raises(DataRefused, match=r"b\.parquet lacks the fields \['label'\]"):
        open_dataset(tmp_path).batch(np.array([1]))


def test_of_compressed_archives_no_more_are_unpacked_than_the_window_says(tmp_path):
    for number in range(12):
        np.savez_compressed(tmp_path / f"{number:02}.npz", x=np.full((100, 1000), number, np.float32))
    data = open_dataset(tmp_path)
    order = data.order(seed=0, window=2)(0)
    tracemalloc.start()
    found = [data.batch(chosen)["x"][:, 0] for chosen in np.array_split(order, 60)]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.cat(found).tolist() == (order // 100).tolist()
    assert most < 7 * 100 * 1000 * 4, "2 x window of the 12 files, and a batch"


def test_many_files_of_many_arrays_stay_within_what_a_process_may_hold_open(tmp_path):
    for number in range(150):
        np.savez(tmp_path / f"{number:03}.npz", **{name: np.full(1, number) for name in "abcd"})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + 300, before[1]))
    try:
        assert open_dataset(tmp_path).batch(np.arange(150))["d"].tolist() == list(range(150))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_index_of_a_file_is_not_that_of_its_namesake_in_another_folder(tmp_path):
    for folder, records in (("a", [b"1" * 8, b"2" * 8]), ("b", [b"3" * 24])):
        (tmp_path / "data" / folder).mkdir(parents=True)
        path = tmp_path / "data" / folder / "part-0.rec"
        path.write_bytes(b"".join(map(recordio, records)))
        os.utime(path, (1e9, 1e9))  # as S3 has it: whole seconds
    for _ in range(2):
        data = open_dataset(
            tmp_path / "data", codec="bytes", fields={"data": Field(ragged=True)}, index_folder=tmp_path / "index"
        )
        assert strings(data.batch(np.arange(3)), "data") == ["1" * 8, "2" * 8, "3" * 24]


def test_images_are_taken_from_folders_of_classes_all_of_them_and_nothing_else(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / name / "1.png")
    (tmp_path / "cat" / "._1.png").write_bytes(b"what a Mac leaves behind")
    assert open_dataset(tmp_path).batch(np.arange(2))["label"].tolist() == [0, 1]
    Image.new("RGB", (2, 2)).save(tmp_path / "stray.png")
    with pytest.raises(DataRefused, match=r"outside of the folders of classes: \['stray.png'\]; move them into one"):
        open_dataset(tmp_path)


def test_images_of_sixteen_bits_are_not_cut_off_at_eight(tmp_path):
    (tmp_path / "scan").mkdir()
    Image.fromarray(np.array([[0, 300], [600, 65535]], np.uint16)).save(tmp_path / "scan" / "1.png")
    with pytest.raises(DataRefused, match=r"1\.png: its pixels \(I;16\) have more than 8 bits, and RGB would cut"):
        open_dataset(tmp_path)
    pixels = open_dataset(tmp_path, image_mode="I;16").batch(np.arange(1))["image"]
    assert pixels.tolist() == [[[0, 300], [600, 65535]]]


def test_files_that_allow_no_random_access_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x\n1\n"))
    with pytest.raises(DataRefused, match="decompress them first"):
        open_dataset(tmp_path)
    with pytest.raises(DataRefused, match="File or FastFile"):
        open_dataset(tmp_path / "train")


def test_a_training_run_reads_each_block_about_once_an_epoch(tmp_path, monkeypatch):
    table = pa.table({"x": np.arange(4000, dtype=np.float32)})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    loaded, load = [], ParquetShard.load
    monkeypatch.setattr(ParquetShard, "load", lambda shard, block: loaded.append(block) or load(shard, block))
    task = sm_runtime.Task(
        model=torch.nn.Linear(1, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0),
        data=open_dataset(tmp_path),
        loss=lambda model, batch: model(batch["x"][:, None]).squeeze(1),
    )
    group = sm_runtime.Group(sm_runtime.read_environment({"OMP_NUM_THREADS": "1"}))
    loaded.clear()
    sm_runtime.fit(sm_runtime.Plan(epochs=2, batch_size=64), group, task)
    assert set(loaded) == set(range(40))
    assert len(loaded) <= 2 * 40


def test_one_byte_a_sample_is_a_number_that_may_be_converted(tmp_path):
    np.save(tmp_path / "label.npy", np.arange(16, dtype=np.uint8))
    labels = open_dataset(tmp_path, fields={"label": Field(dtype="int64")}).batch(np.arange(16))["label"]
    assert labels.tolist() == list(range(16))


def test_headers_that_cannot_be_parsed_are_broken_files_and_no_crash(tmp_path):
    npy, csv = tmp_path / "npy", tmp_path / "csv"
    npy.mkdir()
    csv.mkdir()
    np.save(npy / "x.npy", np.arange(9))
    whole = (npy / "x.npy").read_bytes()
    (npy / "x.npy").write_bytes(whole.replace(b"'fortran_order'", b"'fortran_order("))
    (csv / "a.csv").write_bytes(b"x,\xe9\n1,2\n")
    for folder, told in ((npy, "no whole npy file"), (csv, "the header line is not UTF-8")):
        with pytest.raises(DataCorrupt, match=told):
            open_dataset(folder)
