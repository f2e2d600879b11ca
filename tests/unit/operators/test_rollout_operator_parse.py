"""What BlueGreenRolloutOperator refuses when the DAG is parsed."""

from __future__ import annotations

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"canary_percent": 60}, "canary_percent"),
        ({"role_arn": "dlaws"}, "role_arn"),
        ({"instance_type": "m5.large"}, "instance_type"),
        ({"endpoint_name": "flight_delays"}, "endpoint_name"),
        ({"state_s3_uri": "bucket/state"}, "state_s3_uri"),
        ({"on_kill": "stop"}, "on_kill"),
        ({"timeout": 60, "wait_seconds": 600}, "timeout"),
    ],
)
def test_a_bad_argument_is_refused_when_the_dag_is_parsed(change: dict[str, object], named: str) -> None:
    arguments: dict[str, object] = {
        "task_id": "rollout",
        "endpoint_name": "flight-delays",
        "model_package_arn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/flights/1",
        "role_arn": "arn:aws:iam::123456789012:role/dlaws-sagemaker",
        "instance_type": "ml.m5.large",
        "state_s3_uri": "s3://bucket/state",
    }
    with pytest.raises(SpecificationError, match=named):
        BlueGreenRolloutOperator(**{**arguments, **change})  # type: ignore[arg-type]
