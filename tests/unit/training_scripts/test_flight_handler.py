"""What the flight-delays handler answers, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tiny_flights
import torch

import inference


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> inference.Model:
    return inference.load(str(tiny_flights.write_model(tmp_path_factory.mktemp("model") / "m")))


def answers(model: inference.Model, body: str) -> list[float]:
    answer, kind = inference.predict(model, body.encode(), "text/csv; charset=utf-8")
    assert kind == "text/csv"
    return [float(line) for line in answer.decode().splitlines()]


def test_each_row_gets_one_probability(model: inference.Model) -> None:
    scores = answers(model, "5,5,UA,10\n120,6,DL,2.5\r\n-3,6,B6,10\n")
    assert len(scores) == len(set(scores)) == 3
    assert all(0 < score < 1 for score in scores)


def test_a_row_scores_the_same_alone_and_among_others(model: inference.Model) -> None:
    rows = ["5,5,UA,10", "120,6,DL,2.5", ",,,"]
    assert answers(model, "\n".join(rows)) == pytest.approx([answers(model, row)[0] for row in rows], abs=1e-7)


def test_csv_json_lists_and_json_objects_mean_the_same(model: inference.Model) -> None:
    names = [feature["name"] for feature in tiny_flights.FEATURES]
    rows = [[5, 5, "UA", 10], [None, 6, "B6", 2.5]]
    expected = answers(model, "5,5,UA,10\n,6,B6,2.5")
    backwards = [dict(reversed(list(zip(names, row, strict=True)))) for row in rows]
    for document in ({"instances": rows}, backwards, {"instances": backwards}):
        answer, kind = inference.predict(model, json.dumps(document).encode(), "application/json")
        assert kind == "application/json"
        assert json.loads(answer)["predictions"] == pytest.approx(expected)


def test_a_missing_number_counts_as_missing_and_not_as_the_mean(model: inference.Model) -> None:
    columns = {"dep_delay": ["", "nan", "10"], "hour": ["5"] * 3, "carrier": ["UA"] * 3, "visib": ["10"] * 3}
    numbers, _ = model.encoder(columns)
    flag = 3  # dep_delay has three bins before its flag
    assert numbers[:, flag].tolist() == [1, 1, 0]
    assert torch.equal(numbers[0, :flag], numbers[2, :flag])


def test_a_number_beyond_all_that_was_seen_moves_no_further_than_the_extreme(model: inference.Model) -> None:
    assert len(set(answers(model, "600,5,UA,10\n601,5,UA,10\n1e9,5,UA,10"))) == 1


def test_unknown_and_missing_categories_share_one_place(model: inference.Model) -> None:
    unknown, missing, known = answers(model, "5,5,ZZ,10\n5,5,,10\n5,5, UA ,10")
    assert unknown == missing != known
    assert known == answers(model, "5,5,UA,10")[0]


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        ("1,5,UA", "text/csv", "row 1 has 3 values, not 4: send dep_delay,hour,carrier,visib"),
        ("1,5,UA,10\n1,5,UA,10,7", "text/csv", "row 2 has 5 values, not 4"),
        ("", "text/csv", "the request has no rows"),
        ("soon,5,UA,10", "text/csv", "row 1: dep_delay is 'soon', which is no number"),
        ("1,5,UA,10\nsoon,5,UA,10", "text/csv", "row 2: dep_delay is 'soon', which is no number"),
        ("1,5,UA,10\ninf,5,UA,10", "text/csv", "row 2: dep_delay is infinite"),
        ("inf,5,UA,10", "text/csv", "dep_delay is infinite"),
        ("1,5,UA,10", "application/x-parquet", "content type 'application/x-parquet' is unknown: send text/csv or"),
        ("1,5,UA,10", "", "content type '' is unknown"),
        ("{", "application/json", "the body is not JSON"),
        ('{"rows": []}', "application/json", "expected {\"instances\""),
        ('{"instances": [3]}', "application/json", "expected {\"instances\""),
        ('[{"dep_delay": 1}]', "application/json", "row 1 lacks ['carrier', 'hour', 'visib'] and has unknown []"),
        ('{"instances": [[1, 5, "UA"]]}', "application/json", "row 1 has 3 values, not 4"),
    ],
)  # fmt: skip
def test_a_request_at_fault_is_refused_with_the_way_out(
    model: inference.Model, body: str, kind: str, told: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        inference.predict(model, body.encode(), kind)


def test_a_body_that_is_no_text_is_refused(model: inference.Model) -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        inference.predict(model, b"\xff\xfe1,2", "text/csv")


def test_weights_of_another_shape_do_not_load(tmp_path: Path) -> None:
    folder = tiny_flights.write_model(tmp_path / "m")
    weights = torch.load(folder / "model.pt", weights_only=True)
    del weights["embedding.weight"]
    torch.save(weights, folder / "model.pt")
    with pytest.raises(RuntimeError, match=r"embedding\.weight"):
        inference.load(str(folder))
