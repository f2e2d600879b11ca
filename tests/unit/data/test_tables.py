"""Tables in files give the columns that are in them, in pieces."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from airflow_dlaws.data.coded import Coded
from airflow_dlaws.data.tables import arrow_column, open_table
from airflow_dlaws.errors import DlawsError, OutcomeUnacceptable, SpecificationError


def whole(table, names):
    """Return the columns of a table as lists."""
    found = {name: [] for name in names}
    for piece in table.pieces(names):
        for name, column in piece.items():
            found[name] += column.texts() if isinstance(column, Coded) else list(np.asarray(column).tolist())
    return found


@pytest.mark.parametrize("values", [[1.5, None, -2.0], [1, None, 3], [True, None, False], ["a", None, "b"], ["a", "a"]])
@pytest.mark.parametrize("cut", [0, 1])
def test_an_arrow_column_keeps_its_values_also_where_it_is_a_slice(values, cut):
    array = pa.array(values)
    for each in (array, array.dictionary_encode()):
        column = arrow_column(each[cut:])
        found = column.texts() if isinstance(column, Coded) else np.asarray(column, dtype=object).tolist()

        assert [None if value != value else value for value in found] == values[cut:]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.float16(), pa.float32(), pa.float64()])
def test_numbers_of_every_width_are_read_without_a_copy(kind):
    values = np.arange(100).astype(kind.to_pandas_dtype())

    column = arrow_column(pa.array(values, type=kind))

    assert column.dtype == values.dtype
    assert column.tolist() == values.tolist()


def test_vectors_of_a_fixed_length_become_a_matrix():
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype="f4")), 3)

    assert arrow_column(vectors[1:]).tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_parquet_is_read_in_pieces_over_row_groups_and_says_what_its_columns_are(tmp_path):
    rows = 300_000
    table = pa.table({
        "x": np.arange(rows, dtype=float), "c": pa.array(["a", "b", None] * (rows // 3)), "t": [True] * rows,
        "v": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * rows)), 2),
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=70_000)

    found = open_table(tmp_path / "t.parquet")

    assert (found.names, found.texts, found.vectors) == (("x", "c", "t", "v"), {"c", "t"}, {"v"})
    assert whole(found, ["x", "c"]) == {name: table.column(name).to_pylist() for name in ("x", "c")}
    assert max(len(piece["x"]) for piece in found.pieces(["x", "c"])) < rows / 2


def test_csv_keeps_texts_leaves_out_what_does_not_fit_and_counts_it(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["x", " c "], ["1.5", "a,b"], [], ["", "zwei\nZeilen"], ["1"], ["NaN", "b", "c"]])

    table = open_table(path)

    assert (table.names, table.texts) == (("x", "c"), {"c"})
    assert whole(table, ["c", "x"]) == {"c": ["a,b", "zwei\nZeilen"], "x": ["1.5", ""]}
    assert table.faults == {"wrong_column_count": 2}


def test_arrays_of_numpy_are_a_table(tmp_path):
    np.save(tmp_path / "m.npy", np.eye(3, dtype="f4"))
    np.savez(tmp_path / "t.npz", x=np.arange(3), c=np.array(["a", "b", "c"]), e=np.eye(3))

    matrix, table = open_table(tmp_path / "m.npy"), open_table(tmp_path / "t.npz")

    assert (matrix.names, matrix.vectors) == (("embedding",), {"embedding"})
    assert whole(matrix, ["embedding"]) == {"embedding": np.eye(3).tolist()}
    assert (table.texts, table.vectors) == ({"c"}, {"e"})
    assert whole(table, ["c", "x"]) == {"c": ["a", "b", "c"], "x": [0, 1, 2]}


def test_what_is_no_table_is_refused_by_name(tmp_path):
    files = {"t.parquet": b"no", "t.npy": b"no", "t.npz": b"no", "t.csv": b"", "t.txt": b"x"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DlawsError, match=name):
            open_table(tmp_path / name)
    np.savez(tmp_path / "uneven.npz", a=np.arange(3), b=np.arange(4))
    with pytest.raises(OutcomeUnacceptable, match="same number of rows"):
        open_table(tmp_path / "uneven.npz")
    with pytest.raises(SpecificationError, match=r"none\.parquet"):
        open_table(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("suffix", "fault"),
    [
        *((suffix, fault) for suffix in (".npy", ".npz") for fault in ("cut off", "empty", "Python objects")),
        (".npz", "a flipped bit"),  # the other format has no checksum
    ],
)
def test_arrays_that_cannot_be_read_are_refused_by_name(suffix, fault, tmp_path):
    path = tmp_path / f"broken{suffix}"
    values = np.array([None]) if fault == "Python objects" else np.arange(1000.0)
    (np.save if suffix == ".npy" else np.savez)(path, values)
    whole = bytearray(path.read_bytes())
    if fault == "a flipped bit":
        whole[3000] ^= 1
    path.write_bytes({"cut off": whole[: len(whole) // 2], "empty": b""}.get(fault, bytes(whole)))
    with pytest.raises(OutcomeUnacceptable, match=rf"broken{suffix} cannot be read as arrays of numpy"):
        list((table := open_table(path)).pieces(table.names))
