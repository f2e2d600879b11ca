"""ModelEvaluationOperator: what is refused when the DAG is parsed, and what is left for the task."""

from __future__ import annotations

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.operators.evaluation import ModelEvaluationOperator

OPTIONS = {
    "task_id": "evaluate",
    "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
    "source": "scripts",
    "challenger_artifact": "s3://bucket/new/model.tar.gz",
    "evaluation_data": "s3://bucket/rows/",
    "output_s3_uri": "s3://bucket/evaluations",
    "role_arn": "arn:aws:iam::123456789012:role/dlaws-sagemaker",
    "instance_type": "ml.m5.large",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "f1"}, "metric='f1'"),
        ({"margin": "much"}, "margin='much' must be a number"),
        ({"margin": -1}, "margin=-1.0 is negative"),
        ({"requirements": {"max_loss": 1}}, r"requirements name \['max_loss'\]"),
        ({"on_worse": "pass"}, r"on_worse='pass' is none of \['skip', 'fail'\]"),
        ({"on_inconclusive": "promote"}, "on_inconclusive='promote'"),
        ({"champion_artifact": "s3://bucket/m.tar.gz", "endpoint_name": "e"}, "one champion, not two"),
        ({"champion_artifact": "m.tar.gz"}, "'m.tar.gz' is no S3 location"),
        ({"max_runtime_s": 0}, "max_runtime_s=0"),
        ({"role_arn": "sagemaker"}, "role_arn='sagemaker' is no role ARN"),
        ({"evaluation_data": "rows"}, "rows"),
        ({"instance_type": "m5.large"}, "instance_type='m5.large'"),
    ],
)
def test_arguments_that_cannot_work_are_refused_when_the_dag_is_parsed(changes, message):
    with pytest.raises(SpecificationError, match=message):
        ModelEvaluationOperator(**(OPTIONS | changes))


def test_templates_are_left_for_the_task():
    late = dict.fromkeys(
        ("metric", "margin", "alpha", "on_worse", "on_inconclusive", "endpoint_name", "challenger_artifact"),
        "{{ params.x }}",
    )

    assert ModelEvaluationOperator(**(OPTIONS | late)).margin == "{{ params.x }}"
