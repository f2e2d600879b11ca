"""`dlaws drift` as a user types it, on files."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from airflow_dlaws.cli import main
from airflow_dlaws.data.tables import open_table
from airflow_dlaws.drift.build import categorical_profile
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.model_monitor_export import statistics_document
from airflow_dlaws.drift.profile import parse_profile
from airflow_dlaws.drift.whole_table import count_table, profile_table
from tests.captured_traffic import capture_file, healthy_rows, reference


def table(seed, rows=4000, shift=0.0):
    random = np.random.default_rng(seed)
    x = random.standard_normal(rows)
    return pa.table({
        "x": x + shift, "y": x + random.standard_normal(rows), "n": random.integers(0, 9, rows),
        "c": random.choice(["a", "b", "c"], rows),
    })  # fmt: skip


@pytest.fixture
def data(tmp_path):
    for name, seed, shift in (("ref", 1, 0.0), ("same", 2, 0.0), ("moved", 3, 0.8)):
        parquet.write_table(table(seed, shift=shift), tmp_path / f"{name}.parquet")
    assert main(["drift", "profile", str(tmp_path / "ref.parquet"), "-o", str(tmp_path / "ref.json")]) == 0
    return tmp_path


def compare(folder, reference, current, *more):
    return main(["drift", "compare", str(folder / reference), str(folder / current), *more])


def test_the_exit_status_tells_drift_from_none_and_from_no_answer(data, capsys):
    assert compare(data, "ref.json", "same.parquet") == 0
    assert "NO DRIFT" in capsys.readouterr().out
    assert compare(data, "ref.json", "moved.parquet") == 1
    assert "DRIFT: " in capsys.readouterr().out
    parquet.write_table(table(4, rows=20), data / "few.parquet")
    assert compare(data, "ref.json", "few.parquet") == 3
    assert "INCONCLUSIVE" in capsys.readouterr().out
    assert compare(data, "ref.json", "none.parquet") == 2
    assert compare(data, "none.json", "same.parquet") == 2
    assert compare(data, "ref.json", "same.parquet", "--features", "nothing") == 2
    assert compare(data, "ref.json", "same.parquet", "--alpha", "7") == 2
    assert "alpha=7.0" in capsys.readouterr().err


def test_json_names_what_drifted_and_the_page_is_written(data, capsys):
    page = data / "page.html"

    assert compare(data, "ref.json", "moved.parquet", "--json", "--html", str(page)) == 1

    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["outcome"], verdict["rows"]) == ("drift", 4000)
    assert {"x", "pca"} <= {test["feature"] for test in verdict["comparisons"]}
    assert "x" in verdict["drifted"]
    assert "<svg" in page.read_text()


def test_every_kind_of_file_gives_the_same_counts(data):
    profile, current = parse_profile((data / "ref.json").read_text()), table(2)
    columns = {name: current.column(name).to_pylist() for name in current.column_names}
    rows = ["x,y,n,c", *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (data / "same.csv").write_text("\n".join(rows))
    np.savez(data / "same.npz", **{name: current.column(name).to_numpy() for name in "xyn"}, c=np.array(columns["c"]))
    expected = count_columns(profile, columns)

    for name in ("same.parquet", "same.csv", "same.npz"):
        assert count_table(profile, open_table(data / name)) == expected, name


def test_texts_are_counted_over_row_groups_with_lists_of_their_own(tmp_path):
    values = ["a", "b", None, "a"] * 100 + ["c", "b", "b", None] * 100
    parquet.write_table(pa.table({"c": values}), tmp_path / "c.parquet", row_group_size=400)

    profile = profile_table(open_table(tmp_path / "c.parquet"), created=datetime(2026, 1, 1, tzinfo=UTC))

    assert profile.features == (categorical_profile("c", values),)


def test_a_reference_may_be_data_and_current_data_a_folder(data, capsys):
    folder = data / "current"
    folder.mkdir()
    for part in range(2):
        parquet.write_table(table(5 + part), folder / f"part-{part}.parquet")
    (folder / "_SUCCESS").write_text("")

    assert compare(data, "ref.parquet", "current", "--json", "--categorical", "n") == 0

    assert json.loads(capsys.readouterr().out)["rows"] == 8000


def test_a_column_that_is_gone_is_missing_and_data_without_any_are_an_error(data, capsys):
    parquet.write_table(table(6).drop_columns(["y"]), data / "less.parquet")
    parquet.write_table(pa.table({"other": [1.0] * 100}), data / "other.parquet")

    assert compare(data, "ref.json", "less.parquet", "--json") == 1
    assert "y" in json.loads(capsys.readouterr().out)["drifted"]
    assert compare(data, "ref.json", "other.parquet") == 2
    assert "no column of the reference" in capsys.readouterr().err


def test_captured_requests_are_compared_with_the_reference_of_a_training_job(tmp_path, capsys):
    (tmp_path / "ref.json").write_text(json.dumps(reference().document()))
    for name, delay in (("same", 0.0), ("moved", 6.0)):
        folder = tmp_path / name / "2013" / "07"
        folder.mkdir(parents=True)
        for part in range(2):
            (folder / f"{part}.jsonl").write_bytes(capture_file(*healthy_rows(1000, seed=7 + part, delay=delay)))

    assert compare(tmp_path, "ref.json", "same", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2000
    assert compare(tmp_path, "ref.json", "moved") == 1
    again = tmp_path / "same" / "again.jsonl"
    again.write_bytes((tmp_path / "same" / "2013" / "07" / "0.jsonl").read_bytes())
    assert compare(tmp_path, "ref.json", "same", "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["rows"], told["faults"]["duplicate"]) == (2000, 50)


def test_a_baseline_of_model_monitor_is_a_reference(data, capsys):
    profile = parse_profile((data / "ref.json").read_text())
    (data / "statistics.json").write_text(json.dumps(statistics_document(profile)))

    assert compare(data, "statistics.json", "same.parquet") == 0
    assert compare(data, "statistics.json", "moved.parquet") == 1


def test_a_matrix_is_compared_as_an_embedding(tmp_path, capsys):
    random = np.random.default_rng(0)
    for name, shift in (("ref", 0.0), ("same", 0.0), ("moved", 0.3)):
        np.save(tmp_path / f"{name}.npy", (random.standard_normal((2000, 16)) + shift).astype("f4"))
    assert main(["drift", "profile", str(tmp_path / "ref.npy"), "-o", str(tmp_path / "ref.json")]) == 0

    assert compare(tmp_path, "ref.json", "same.npy") == 0
    assert compare(tmp_path, "ref.json", "moved.npy") == 1
    assert "embedding" in capsys.readouterr().out


def test_outputs_and_ignored_columns_are_no_columns_of_a_request(data):
    target = data / "outputs.json"
    parquet.write_table(table(8).append_column("prediction", pa.array(np.random.rand(4000))), data / "o.parquet")

    assert main(["drift", "profile", str(data / "o.parquet"), "-o", str(target), "--outputs", "prediction",
                 "--ignore", "y,c", "--components", "0"]) == 0  # fmt: skip

    profile = parse_profile(target.read_text())
    assert profile.feature_order == ("x", "n")
    assert [each.name for each in profile.watched] == ["x", "n", "prediction"]
    assert main(["drift", "profile", str(data / "o.parquet"), "-o", str(target), "--ignore", "zzz"]) == 2


def test_the_command_loads_neither_airflow_nor_pandas_nor_boto3(data):
    code = (
        "import sys\nfrom airflow_dlaws.cli import main\n"
        f"main(['drift', 'compare', {str(data / 'ref.json')!r}, {str(data / 'same.parquet')!r}])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'airflow', 'pandas', 'boto3', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
