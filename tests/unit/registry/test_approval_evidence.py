"""The page that a person decides by."""

from __future__ import annotations

from typing import Any

from airflow_dlaws.registry.evidence import page

PACKAGE = {
    "ModelPackageArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/flights/3",
    "InferenceSpecification": {"Containers": [{"Image": "image:1", "ModelDataUrl": "s3://b/model.tar.gz"}]},
}
EVALUATION = {
    "reason": "better: log_loss improves by 0.02",
    "page_uri": "s3://b/evaluation.html",
    "challenger": {"log_loss": 0.30, "brier": 0.1, "accuracy": 0.9, "auc": None},
    "champion": {"log_loss": 0.32, "brier": 0.1, "accuracy": 0.91, "auc": None},
}


def shown(**parts: Any) -> str:
    """Return the page, with an address that a browser opens for every location."""
    empty: dict[str, Any] = {"package": PACKAGE, "evaluation": {}, "validation": {}, "drift": [], "details": {}}
    return page(**(empty | parts), link=lambda uri: uri.replace("s3://", "https://s3/"))


def test_metrics_stand_beside_the_champions_and_say_which_way_is_better() -> None:
    text = shown(evaluation=EVALUATION)
    assert "**Better: log_loss improves by 0.02.** ([report](https://s3/b/evaluation.html))" in text
    assert "| Log loss | 0.3000 | 0.3200 | -0.0200 (better) |" in text
    assert "| Brier score | 0.1000 | 0.1000 | +0.0000 (the same) |" in text
    assert "| Accuracy | 0.9000 | 0.9100 | -0.0100 (worse) |" in text
    assert "AUC" not in text


def test_a_first_model_has_nothing_beside_it() -> None:
    assert "| Log loss | 0.3000 | none |  |" in shown(evaluation={**EVALUATION, "champion": None})


def test_drift_data_plan_and_package_are_rows_of_one_table() -> None:
    event = {
        "sentence": "drift in 2 of 9 columns.",
        "features": ["dep_delay", "hour"],
        "report_html_uri": "s3://b/drift.html",
    }
    validation = {"rows": 12_000, "expectations": 6, "warnings": ["late | 0.7"], "data_docs_uri": "s3://b/docs"}
    lines = shown(drift=[event], validation=validation, details={"Rollout": "canary of 10 %"}).splitlines()
    assert (
        "| Started by drift | drift in 2 of 9 columns. Moved: dep_delay, hour. ([report](https://s3/b/drift.html)) |"
        in lines
    )
    assert (
        "| Training data | 12,000 rows met 6 expectations; 1 warning: late \\| 0.7 ([report](https://s3/b/docs)) |"
    ) in lines
    assert "| Rollout | canary of 10 % |" in lines
    assert f"| Model package | `{PACKAGE['ModelPackageArn']}` |" in lines


def test_a_page_without_an_evaluation_says_so() -> None:
    assert shown().startswith("**Nothing was compared:**")
