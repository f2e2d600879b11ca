"""Every format gives back real images as another library wrote them; no sample is lost; broken bytes are noticed."""

import contextlib
import random
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from data_files import MAGIC, recordio, write
from hypothesis import given, settings
from hypothesis import strategies as st
from tfrecord import example_pb2
from tfrecord.writer import TFRecordWriter

from airflow_dlaws.local.demo import mnist
from sm_runtime.readers import (
    FORMATS,
    DataCorrupt,
    DataRefused,
    Dataset,
    Field,
    Loader,
    ReaderError,
    open_dataset,
    shuffled_windows,
    strings,
)
from sm_runtime.readers.records import unpack_recordio
from sm_runtime.readers.wire import WireError, message, varints
from sm_runtime.sampler import Sampler

SAMPLES, SIDE = 301, mnist.SIDE
LAYOUT = np.dtype([("label", "<i8"), ("image", "u1", (SIDE, SIDE))])
IMAGE = {"image": Field(shape=(SIDE, SIDE))}
OPTIONS = {
    "parquet": {"fields": IMAGE},
    "tfrecord": {"fields": IMAGE},
    "recordio": {"fields": {"data": Field(shape=(SIDE, SIDE))}},
    "lmdb": {"codec": LAYOUT},
    "images": {"image_mode": "L"},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = mnist.split_files(Path(__file__).parents[3] / ".dlaws" / "cache")["test"]
    with np.load(path) as archive:
        return archive["images"][:SAMPLES], archive["labels"][:SAMPLES].astype(np.int64)


@pytest.fixture(scope="module")
def folders(digits, tmp_path_factory):
    root = tmp_path_factory.mktemp("formats")
    for name in FORMATS:
        write(name, root / name, *digits)
    return root


def opened(folders: Path, name: str) -> Dataset:
    return open_dataset(folders / name, **OPTIONS.get(name, {}))


def pixels(batch: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels whatever the format calls them."""
    labels = batch["label"].long().numpy()
    if "pixel0" in batch:
        images = np.stack([batch[f"pixel{at}"].numpy() for at in range(SIDE * SIDE)], 1).reshape(-1, SIDE, SIDE)
    else:
        images = (batch["image"] if "image" in batch else batch["data"]).numpy()
    return images.astype(np.uint8), labels


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_gives_back_what_another_library_wrote(name, folders, digits):
    images, labels = digits
    order = np.arange(SAMPLES)
    if name == "images":  # sorted by class, then by name
        halves = np.arange(SAMPLES) >= SAMPLES // 3
        order = np.array(sorted(order, key=lambda at: (labels[at], halves[at], at)))
    with_all = opened(folders, name)
    assert len(with_all) == SAMPLES == sum(shard.samples for shard in with_all.shards)
    for indices in (np.arange(SAMPLES), np.random.default_rng(0).permutation(SAMPLES), np.array([7, 7, 0])):
        got, of = pixels(with_all.batch(indices))
        np.testing.assert_array_equal(got, images[order[indices]])
        np.testing.assert_array_equal(of, labels[order[indices]])


@pytest.mark.parametrize("name", FORMATS)
def test_no_sample_is_lost_or_repeated_when_another_number_of_processes_goes_on(name, folders):
    data = opened(folders, name)
    whole = data.batch(np.arange(SAMPLES))
    row = np.concatenate([tensor.reshape(SAMPLES, -1).numpy() for tensor in whole.values()], 1)
    for before in (1, 2, 3, 4, 5):
        order, seen, state = data.order(seed=before, window=2), [], None
        for size, steps in ((before, 3), (before % 5 + 1, None)):
            states = []
            for rank in range(size):
                loader = Loader(data, 40, order=order, rank=rank, size=size, ahead=rank % 2 * 2)
                if state:
                    loader.load_state_dict(state)
                for step, batch in enumerate(loader, 1):
                    columns = [tensor.reshape(len(tensor), -1).numpy() for tensor in batch.values()]
                    seen.append(np.concatenate(columns, 1))
                    if step == steps:
                        break
                states.append(loader.state_dict())
            assert all(other == states[0] for other in states)
            state = states[0]
        got = np.concatenate(seen)
        assert len(got) == SAMPLES
        np.testing.assert_array_equal(got[np.lexsort(got.T)], row[np.lexsort(row.T)])


@pytest.mark.parametrize("name", ["tfrecord", "npz", "pth", "images", "parquet", "hdf5", "n5"])
def test_a_flipped_bit_is_noticed_where_the_format_has_a_checksum(name, folders, digits, tmp_path):
    data = opened(folders, name)
    good = data.batch(np.arange(SAMPLES))
    generator = random.Random(0)
    for case in range(12):
        files = sorted(path for path in (folders / name).rglob("*") if path.is_file() and path.suffix != ".json")
        path = generator.choice(files)
        content = bytearray(path.read_bytes())
        at = generator.randrange(len(content))
        content[at] ^= 1 << generator.randrange(8)
        whole = path.read_bytes()
        path.write_bytes(content)
        try:
            batch = opened(folders, name).batch(np.arange(SAMPLES))
            # Bytes that no checksum covers (padding, file metadata) may change; then the samples must not.
            assert name != "tfrecord", f"case {case}: byte {at} of {path} went unnoticed"
            assert all(torch.equal(batch[key], good[key]) for key in good), f"case {case}: byte {at} of {path}"
        except ReaderError:
            pass
        finally:
            path.write_bytes(whole)


@pytest.mark.parametrize("name", ["tfrecord", "recordio", "npz", "npy", "pth", "parquet", "hdf5", "images"])
def test_a_file_that_is_cut_off_is_noticed(name, folders):
    path = sorted(path for path in (folders / name).rglob("*") if path.is_file())[-1]
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) * 2 // 3 - 1])
        with pytest.raises(DataCorrupt, match=path.name):
            opened(folders, name).batch(np.arange(SAMPLES))
    finally:
        path.write_bytes(whole)


def test_a_broken_record_is_named_with_its_number_and_place(folders):
    path = folders / "tfrecord" / "1.tfrecord"
    whole = path.read_bytes()
    (length,) = struct.unpack_from("<Q", whole)
    try:
        path.write_bytes(whole[: length + 16 + 100] + b"!!!!" + whole[length + 16 + 104 :])
        with pytest.raises(DataCorrupt, match=rf"1.tfrecord, record 1 at byte {length + 16}: .*CRC-32C"):
            opened(folders, "tfrecord").batch(np.arange(SAMPLES))
    finally:
        path.write_bytes(whole)


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_a_pth_file_with_code_is_refused(tmp_path):
    torch.save({"image": Hostile()}, tmp_path / "a.pth")
    with pytest.raises(DataRefused, match="could run code"):
        open_dataset(tmp_path)


def test_an_npy_file_with_python_objects_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object))
    with pytest.raises(DataRefused, match="could run code"):
        open_dataset(tmp_path)


def test_text_is_padded_and_its_lengths_are_kept(tmp_path):
    names = ["JFK", "a, b", 'two\nlines "x"', "é"] * 3000
    table = pa.table({"name": names, "delay": np.arange(12000) / 2})
    pa.csv.write_csv(table, tmp_path / "a.csv")
    data = open_dataset(tmp_path, fields={"name": Field(ragged=True)})
    chosen = np.random.default_rng(0).permutation(12000)[:500]
    batch = data.batch(chosen)
    assert strings(batch, "name") == [names[at] for at in chosen]
    assert batch["delay"].tolist() == (chosen / 2).tolist()


def test_rows_of_unequal_length_ask_to_be_declared(tmp_path):
    pa.parquet.write_table(pa.table({"tokens": [[1], [2, 3]]}), tmp_path / "a.parquet")
    with pytest.raises(DataRefused, match="Field"):
        open_dataset(tmp_path).batch(np.arange(2))
    data = open_dataset(tmp_path, fields={"tokens": Field(ragged=True)})
    batch = data.batch(np.arange(2))
    assert batch["tokens"].tolist() == [[1, 0], [2, 3]]
    assert batch["tokens.length"].tolist() == [1, 2]


def test_several_formats_in_one_folder_are_named(folders):
    with pytest.raises(DataRefused, match="several formats"):
        open_dataset(folders)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_numbers_of_an_example_survive(values):
    packed = example_pb2.Int64List(value=values).SerializeToString()
    ((_, _, start, end),) = message(packed, 0, len(packed))
    assert varints(np.frombuffer(packed[start:end], np.uint8)[None])[0].tolist() == values


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(min_size=5, max_size=5)), min_size=1, max_size=9))
def test_examples_of_many_shapes_are_read_in_order(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("examples")
    writer = TFRecordWriter(str(folder / "a.tfrecord"))
    for number, text in rows:
        writer.write({"number": (number, "int"), "text": (text, "byte"), "half": (0.5, "float")})
    writer.close()
    batch = open_dataset(folder).batch(np.arange(len(rows)))
    assert batch["number"].tolist() == [number for number, _ in rows]
    assert [bytes(row.tolist()) for row in batch["text"]] == [text for _, text in rows]
    assert set(batch["half"].tolist()) == {0.5}


@given(st.binary(max_size=60))
def test_no_bytes_break_the_parser_of_messages(data):
    with contextlib.suppress(WireError):
        assert all(0 <= start <= end <= len(data) for _, _, start, end in message(data, 0, len(data)))


@given(st.lists(st.sampled_from([MAGIC, b"abcd", b"xy"]), max_size=8).map(b"".join))
def test_a_record_that_holds_the_magic_number_is_joined_again(data):
    assert unpack_recordio([recordio(data), recordio(b"")]) == [data, b""]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 9), st.integers(1, 5))
def test_a_shuffle_in_windows_is_a_permutation_that_touches_few_blocks(sizes, seed, window):
    order = shuffled_windows(np.array(sizes), seed, window)(3)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    block = np.repeat(np.arange(len(sizes)), sizes)[order]
    switches = [block[block == number] for number in set(block.tolist())]
    assert len(switches) == len(sizes)
    assert Sampler(sum(sizes), 4, 1, order=shuffled_windows(np.array(sizes), seed, window)).next().count > 0
