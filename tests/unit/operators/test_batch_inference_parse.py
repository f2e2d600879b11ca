"""What a DAG file can get wrong about batch inference is said when it is parsed, if it can be known by then."""

from __future__ import annotations

import re
import runpy
from datetime import datetime
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from airflow.sdk import DAG
from botocore.validate import ParamValidator

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.transform import TransformSpec
from airflow_dlaws.launchers.transform_request import transform_request
from airflow_dlaws.local.demo import flights
from airflow_dlaws.operators.batch_inference import BatchInferenceOperator

ROOT = Path(__file__).parent.parent.parent.parent
TRAIN = ROOT / "training_scripts" / "flight_delays" / "train.py"
GOOD: dict[str, Any] = {
    "task_id": "score",
    "model_name": "flights",
    "data": "s3://bucket/rows/",
    "output_s3_uri": "s3://bucket/scores",
    "instance_type": "ml.m5.xlarge",
}


def rendered(values: dict[str, Any] | None = None, **changes: Any) -> TransformSpec:
    """Return the specification of a task in a DAG once its templates are rendered."""
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1)):
        operator = BatchInferenceOperator(**{**GOOD, **changes})
    operator.render_template_fields(values or {})
    return operator.specification({})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_name": None}, "nothing given: say what scores"),
        ({"model_package_arn": "arn:aws:x"}, "exactly one of model_name, model_package_arn, or artifact_uri and image"),
        ({"model_name": None, "artifact_uri": "s3://bucket/m.tar.gz"}, "belong together"),
        ({"model_name": None, "model_package_arn": "arn:aws:x", "role_arn": "dlaws"}, "role_arn='dlaws' is no role"),
        ({"data": "bucket/rows"}, "is no S3 location"),
        ({"data": {"url": "s3://bucket/rows"}}, "'url'"),
        ({"output_s3_uri": "s3://bucket/rows/scores"}, "lies in the data"),
        ({"output_s3_uri": "s3://bucket/rows"}, "lies in the data"),
        ({"instance_type": "m5.xlarge"}, "instance_type='m5.xlarge'"),
        ({"split": "RecordIO"}, "split='RecordIO' must be one of"),
        ({"strategy": "multi"}, "strategy='multi' must be one of"),
        ({"max_payload_mb": 101}, "from 1 to 100"),
        ({"max_payload_mb": 60, "max_concurrent": 2}, "is over 100 MB"),
        ({"max_concurrent": "two"}, "must be an integer"),
        ({"columns": {"dep_delay": "float"}}, "must map each column"),
        ({"environment": {f"K{number}": "v" for number in range(17)}}, "a transform job takes 16"),
    ],
)
def test_a_bad_value_is_refused_when_the_dag_is_parsed(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        BatchInferenceOperator(**{**GOOD, **change})


def test_a_value_with_a_template_is_judged_once_it_is_rendered() -> None:
    spec = rendered({"count": 3, "month": "2013-01"}, instance_count="{{ count }}", data="s3://bucket/m={{ month }}/")
    assert (spec.instance_count, spec.data.uri) == (3, "s3://bucket/m=2013-01/")
    with pytest.raises(SpecificationError, match="lies in the data"):
        rendered({"out": "s3://bucket/rows/x"}, output_s3_uri="{{ out }}")
    with pytest.raises(SpecificationError, match="nothing given"):
        rendered({"model": ""}, model_name="{{ model }}")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"split": "None", "accept": "text/csv", "kms_key_id": "key"},
        {"join_input": True, "max_concurrent": 4, "environment": {"A": "b"}, "strategy": "SingleRecord"},
    ],
)
def test_the_request_satisfies_the_service_model(changes: dict[str, Any]) -> None:
    shape = (
        botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTransformJob").input_shape
    )
    request = {"TransformJobName": "n", "Tags": [], **transform_request(rendered(**changes), "flights")}
    assert ParamValidator().validate(request, shape).generate_report() == ""
    assert ("DataProcessing" in request) is bool(changes.get("join_input"))


def test_the_template_s_columns_are_those_of_the_monthly_files_in_their_order() -> None:
    """The flight model's features are the files' columns behind the label, and numbers unless --categorical says so."""
    columns = runpy.run_path(str(ROOT / "dags" / "batch_score.py"))["COLUMNS"]
    assert tuple(columns) == flights.FLIGHT_COLUMNS + flights.WEATHER_COLUMNS
    categorical = re.search(r'"--categorical", default="([^"]+)"', TRAIN.read_text())
    assert categorical is not None
    assert {name for name, kind in columns.items() if kind == "text"} == set(categorical.group(1).split(","))
