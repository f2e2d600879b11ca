"""Ten thousand flights through a transform job and through an endpoint: the same model, the same predictions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tiny_flights
from airflow.sdk.exceptions import AirflowFailException
from batch_bench import Batches
from running_task import aws_environment
from scoring_task import ScoringTask
from serving import ROLE, Serving, unique

from airflow_dlaws.local.process import LocalAws

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
COLUMNS = {"dep_delay": "number", "hour": "text", "carrier": "text", "visib": "number"}
OBJECTS, ROWS = 4, 2500


def flights(seed: int) -> list[str]:
    """Return rows with the values the model knows, some it does not, and missing ones."""
    chance = random.Random(seed)
    return [
        f"{chance.gauss(10, 40):.3f},{chance.randint(4, 7)},{chance.choice(['B6', 'DL', 'UA', 'ZZ', ''])},"
        f"{chance.choice(['', f'{chance.uniform(0, 10):.2f}'])}"
        for _ in range(ROWS)
    ]


@pytest.fixture
def scoring(serving: Serving, batches: Batches, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> ScoringTask:
    """A task of its own."""
    aws_environment(monkeypatch, local_aws)
    return ScoringTask(serving, batches)


@pytest.fixture
def model(serving: Serving, tmp_path: Path) -> str:
    """The flight model with weights drawn at random, behind the serving program of the built-in image."""
    archive = tiny_flights.pack(tiny_flights.write_model(tmp_path / "model"))
    serving.s3.put_object(Bucket=serving.bucket, Key="model.tar.gz", Body=archive)
    name = unique("flights")
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{serving.bucket}/model.tar.gz"}
    serving.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    return name


def test_ten_thousand_rows_give_as_many_predictions_in_order_and_equal_to_the_endpoint_s(
    scoring: ScoringTask, model: str
) -> None:
    rows = {f"part-{number}.csv": flights(number) for number in range(OBJECTS)}
    for name, content in rows.items():
        scoring.batches.put(f"in/{name}", "\n".join(content))
    result = scoring.score(model_name=model, columns=COLUMNS)
    assert (result["objects"], result["records"]) == (OBJECTS, OBJECTS * ROWS)

    endpoint = scoring.serving.endpoint(scoring.serving.config(model))
    stored = scoring.batches.stored("out/")
    predictions = []
    for name, content in rows.items():
        served = scoring.serving.invoke(endpoint, "\n".join(content).encode())["Body"].decode()
        assert stored[f"{name}.out"] == served
        predictions += stored[f"{name}.out"].splitlines()
    assert len(predictions) == 10_000
    assert len(set(predictions)) > 5_000  # so that an order that is not the input's would show
    # Row by row, in other company: the same but for the last digits, which depend on the size of a matrix product.
    for row in range(0, ROWS, 500):
        alone = scoring.serving.invoke(endpoint, rows["part-2.csv"][row].encode())["Body"]
        assert float(alone) == pytest.approx(float(predictions[2 * ROWS + row]), abs=1e-6)


def test_a_corrupt_row_is_reported_by_line_by_the_check_and_by_the_model(scoring: ScoringTask, model: str) -> None:
    content = flights(0)
    content[1233] = "abc,5,UA,10"
    place = scoring.batches.put("in/part-3.csv", "\n".join(content))
    scoring.batches.put("in/part-4.csv", "\n".join(flights(1)))
    with pytest.raises(AirflowFailException) as failed:
        scoring.operator(model_name=model, columns=COLUMNS).execute(scoring.task().context)
    assert f"{place} line 1,234: 'dep_delay' = 'abc' is no number" in str(failed.value)
    assert scoring.jobs() == []

    with pytest.raises(AirflowFailException) as failed:
        scoring.score(model_name=model, check_rows=False)
    assert f"{place} line 1,234: row 1234: dep_delay is 'abc', which is no number" in str(failed.value)
    assert "part-4" not in str(failed.value)
    assert list(scoring.batches.stored("out/")) == ["part-4.csv.out"]
    assert scoring.jobs() == ["Failed"]
