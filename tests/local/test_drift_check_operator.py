"""How DriftCheckOperator ends: what each outcome makes of the task, and what is refused."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from drift_check_bench import ASSET
from serving import ROLE

import drift_table as tables
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.storage import S3Uri


def test_drift_is_told_in_the_asset_event_with_its_report(drifted_check):
    summary = drifted_check.run()
    assert {"delay", "prediction"} <= {feature.name for feature in summary.features}
    assert (summary.outcome, summary.rows) == ("drift", 1500)
    extra = drifted_check.context["outlet_events"][ASSET].extra
    assert extra["report_uri"] == summary.report_uri
    assert extra["accuracy"]["low"] < extra["accuracy"]["estimate"] < extra["accuracy"]["high"]
    page = drifted_check.store.read(S3Uri.parse(summary.report_html_uri)).decode()
    assert "Drift: check" in page
    assert "drift.html?" in drifted_check.task.pushed["_link_ReportLink"]
    assert drifted_check.report(summary).files == 2


def test_without_drift_the_task_is_skipped_so_that_no_event_tells_of_drift(healthy_check):
    message, summary = healthy_check.ends(AirflowSkipException)
    assert message.startswith("No drift in 3000 rows")
    assert summary.outcome == "no_drift"
    assert healthy_check.context["outlet_events"][ASSET].extra == {}


def test_a_gate_fails_on_drift_and_succeeds_without(drift_check):
    drift_check.put("data/a.csv", tables.as_csv(tables.rows(3000, 2)))
    assert drift_check.run(on_drift="fail").outcome == "no_drift"
    drift_check.put("data/a.csv", tables.as_csv(tables.rows(3000, 2, shift=6)))
    message, summary = drift_check.ends(AirflowFailException, on_drift="fail")
    assert message.startswith("Drift in 3000 rows")
    assert summary.report_html_uri.rpartition("/")[2] in message


def test_too_few_rows_are_inconclusive_which_is_neither_pass_nor_drift(drift_check):
    drift_check.put("data/a.csv", tables.as_csv(tables.rows(30, 2)))
    message, summary = drift_check.ends(AirflowFailException, on_drift="return")
    assert "too few for a verdict" in message
    assert summary.outcome == "inconclusive"
    drift_check.ends(AirflowSkipException, on_inconclusive="skip")


def test_no_data_and_no_reference_are_errors_and_leave_no_verdict(drift_check):
    message, summary = drift_check.ends(AirflowFailException)
    assert "there are no data at" in message
    assert summary is None
    drift_check.put("data/a.csv", tables.as_csv(tables.rows(300, 2)))
    message, _ = drift_check.ends(AirflowFailException, reference_s3_uri=drift_check.uri("model/none.json"))
    assert "model/none.json" in message


def test_a_branch_goes_on_with_the_tasks_of_its_verdict(drift_check):
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    with DAG("dag", schedule=None):
        operator = drift_check.operator(on_drift="branch", follow_on_drift="retrain", follow_on_no_drift=["rest"])
        retrain, rest = (drift_check.operator(task_id=name, on_drift="return") for name in ("retrain", "rest"))
        operator >> [retrain, rest]
    for shift, skipped in ((6, "rest"), (0, "retrain")):
        drift_check.put("data/a.csv", tables.as_csv(tables.rows(3000, 2, shift=shift)))
        context = drift_check.prepared()
        drift_check.task.task, drift_check.task.map_index = operator, -1
        with pytest.raises(DownstreamTasksSkipped) as branched:
            operator.execute(context)
        assert [task for task, _ in branched.value.tasks] == [skipped]
        assert drift_check.task.pushed["return_value"]["outcome"] == ("drift" if shift else "no_drift")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on_drift": "panic"}, "is none of"),
        ({"on_drift": "return", "outlets": [ASSET]}, "succeeds without drift too"),
        ({"on_drift": "branch"}, "belong together"),
        ({"follow_on_drift": "retrain"}, "belong together"),
        ({"alpha": 2}, "alpha=2"),
        ({"report_s3_uri": "/tmp/x"}, "no S3 location"),
        ({"evidence": [{"kind": "gut"}]}, "is none of"),
        ({"execution": "sagemaker"}, "image=None"),
        ({"execution": "sagemaker", "image": "i:1", "role_arn": ROLE, "instance_type": "m5"}, "no SageMaker instance"),
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(drift_check, changes, message):
    with pytest.raises(SpecificationError, match=message):
        drift_check.operator(**changes)


def test_two_places_at_once_are_refused(drift_check):
    message, _ = drift_check.ends(AirflowFailException, data=drift_check.uri("data/"), athena_query_id="q")
    assert "['athena_query_id', 'data'] say in 2 ways" in message
