"""Reading channels, splitting rows, measuring probabilities, and what training learns from rows before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import measures
import preprocessing
import tables
from airflow_dlaws.evaluation.metrics import auc as plain_auc
from airflow_dlaws.jobs.metric_line import parse_line
from sm_runtime import optimizers


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_files_in_any_subfolder_are_read_in_order_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path / "month=2013-02" / "flights.csv", "late,delay,carrier", "1,40,UA")
    write(tmp_path / "month=2013-01" / "flights.csv", "late,delay,carrier", "0,-2,B6", "0,,DL")
    write(tmp_path / "notes.txt", "not a table")
    table = tables.read(str(tmp_path))
    assert table.label == "late"
    assert table.labels.tolist() == [0, 0, 1]
    assert table.columns == {"delay": ["-2", "", "40"], "carrier": ["B6", "DL", "UA"]}
    assert [(file["path"], file["rows"]) for file in table.files] == [
        ("month=2013-01/flights.csv", 2),
        ("month=2013-02/flights.csv", 1),
    ]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "no .csv file under"),
        ([""], "0 rows of []"),
        (["late,delay"], "0 rows of ['late', 'delay']"),
        (["late,delay", "1,2", "0"], "row 3: 1 values for the 2 columns"),
        (["delay,late", "33,1"], "the first column, 'delay', must be a label of 0 or 1; it has ['33']"),
    ],
)
def test_a_channel_that_cannot_be_trained_on_is_refused(tmp_path: Path, lines: list[str], told: str) -> None:
    if lines:
        write(tmp_path / "a.csv", *lines)
    with pytest.raises(SystemExit) as caught:
        tables.read(str(tmp_path))
    assert told in str(caught.value)


def test_a_value_in_quotes_may_have_lines_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufefflate,delay,carrier\r\n1,2,"U\nA"\r\n0,3,B\u20286\r\n'.encode())
    table = tables.read(str(tmp_path))
    assert (table.label, table.columns) == ("late", {"delay": ["2", "3"], "carrier": ["U\nA", "B\u20286"]})


@pytest.mark.parametrize("content", [b"late,delay\n1,\xe9\n", b"late,delay\n1," + b"9" * 200_000])
def test_a_file_that_is_no_csv_in_utf_8_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SystemExit, match=r"a\.csv is no CSV file in UTF-8"):
        tables.read(str(tmp_path))


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "late,delay", "1,2")
    write(tmp_path / "b.csv", "late,distance", "1,2")
    with pytest.raises(SystemExit, match="expected at least one of"):
        tables.read(str(tmp_path))


def test_a_row_falls_on_the_same_side_whatever_rows_stand_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "late,number", *(f"{number % 2},{number}" for number in range(2000)))
    table = tables.read(str(tmp_path))
    kept, held_out = tables.split(table, 0.1)
    assert len(kept) + len(held_out) == 2000
    assert len(held_out) == pytest.approx(200, abs=60)
    assert set(kept.columns["number"]).isdisjoint(held_out.columns["number"])
    half = table.where(np.arange(2000) < 1000)
    assert set(tables.split(half, 0.1)[1].columns["number"]) <= set(held_out.columns["number"])


def test_auc_agrees_with_the_count_of_pairs_and_handles_ties() -> None:
    generator = np.random.default_rng(1)
    labels, scores = generator.integers(0, 2, 500), generator.integers(0, 20, 500) / 20
    assert measures.auc(labels, scores) == pytest.approx(plain_auc(labels.tolist(), scores.tolist()))


def test_log_loss_of_a_coin_is_one_bit() -> None:
    assert measures.log_loss(np.array([0, 1]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))


def test_reported_metrics_are_read_by_the_operator(capsys: pytest.CaptureFixture[str]) -> None:
    measures.report({"epoch": 2, "validation:loss": 0.25, "validation:auc": float("nan")})
    assert parse_line(capsys.readouterr().out) == {"epoch": 2, "validation:loss": 0.25}


def prepared(columns: dict[str, list[str]], categorical: str) -> dict:
    rows = tables.Table("late", np.zeros(len(next(iter(columns.values())))), columns, [])
    names = [name for name in categorical.split(",") if name]
    return preprocessing.learn(rows, names, {"hidden": [4], "embed": 2, "dropout": 0.0})


def test_preprocessing_is_plain_json_learnt_from_the_rows() -> None:
    learnt = prepared({"delay": ["1", "", "3"], "carrier": ["UA", "", "B6"]}, "carrier")
    assert json.loads(json.dumps(learnt)) == learnt
    assert learnt["numeric"]["delay"] == {"mean": 2.0, "edges": [1.0, 2.0, 3.0]}
    assert learnt["categorical"] == {"carrier": ["B6", "UA"]}


@pytest.mark.parametrize(
    ("columns", "categorical", "told"),
    [
        ({"delay": ["1"]}, "carrier", "--categorical names ['carrier']; the features are ['delay']"),
        ({"carrier": ["UA"]}, "", "carrier is 'UA', which is no number: list it in --categorical"),
        ({"delay": ["", ""]}, "", "delay is missing in all 2 training rows"),
    ],
)
def test_features_that_cannot_be_learnt_are_refused(columns: dict, categorical: str, told: str) -> None:
    with pytest.raises(SystemExit) as caught:
        prepared(columns, categorical)
    assert told in str(caught.value)


def test_the_learning_rate_warms_up_to_its_highest_and_decays_to_almost_nothing() -> None:
    optimizer = optimizers.make("sgd", [torch.nn.Parameter(torch.zeros(1))], learning_rate=1.0)
    schedule = optimizers.warm_up_and_decay(optimizer, 100)
    rates = []
    for _ in range(100):
        rates += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert max(rates) == 1
    assert rates.index(1) in range(5, 15)
    assert rates[-1] < 0.01
