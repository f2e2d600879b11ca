"""DriftCheckOperator on data in S3: on the worker, and as a processing job."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from batch_bench import PROCESSING_IMAGE
from captured_traffic import captured, lines
from running_task import RunningTask, aws_environment
from serving import ROLE

import drift_table as tables
from airflow_dlaws.data.snapshot import DataSnapshot, publish
from airflow_dlaws.drift.report import DriftReport, DriftSummary
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.operators.drift import DriftCheckOperator
from airflow_dlaws.storage import ObjectStore, S3Uri

ASSET = Asset("drift")
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


class Event:
    """An outlet's event, as Airflow hands it to a task."""

    extra: dict = {}


class Check:
    """One task in one bucket, tried as often as a test likes."""

    def __init__(self, aws, bucket):
        self.aws, self.bucket, self.s3 = aws, bucket, aws.client("s3")
        self.store = ObjectStore(self.s3)
        self.run_id = uuid.uuid4().hex
        self.put("model/drift_reference.json", json.dumps(tables.reference().document()))
        self.task = self.context = None

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def uri(self, key):
        return f"s3://{self.bucket}/{key}"

    def operator(self, **changes):
        arguments = {
            "task_id": "check",
            "aws_conn_id": None,
            "reference_s3_uri": self.uri("model/drift_reference.json"),
            "report_s3_uri": self.uri("reports"),
            "min_rows": 100,
            "outlets": [ASSET] if changes.get("on_drift", "event") == "event" else [],
        }
        ways = {"data", "data_manifest_s3_uri", "data_snapshot", "athena_query_id", "capture_s3_uri", "evidence"}
        if not ways & set(changes):
            arguments["data"] = self.uri("data/")
        return DriftCheckOperator(**{**arguments, **changes})

    def prepared(self, **moments):
        """Return the context of the next try."""
        self.task = RunningTask("check", run_id=self.run_id)
        self.context = {**self.task.context, "outlet_events": {ASSET: Event()}, **moments}
        return self.context

    def run(self, moments=None, **changes) -> DriftSummary:
        document = self.operator(**changes).execute(self.prepared(**(moments or {})))
        return from_json(DriftSummary, json.loads(json.dumps(document)))

    def ends(self, error, moments=None, **changes):
        """Run a task that does not succeed; return its message and the summary that it leaves, if any."""
        with pytest.raises(error) as ended:
            self.operator(**changes).execute(self.prepared(**(moments or {})))
        left = self.task.pushed.get("drift_result")
        return str(ended.value), left and from_json(DriftSummary, left)

    def report(self, summary) -> DriftReport:
        return from_json(DriftReport, self.store.read_json(S3Uri.parse(summary.report_uri)))


@pytest.fixture
def check(local_aws, bucket, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    return Check(local_aws, bucket)


@pytest.fixture
def drifted(check):
    check.put("data/part-0.csv", tables.as_csv(tables.rows(1000, 2, shift=6)))
    check.put("data/part-1.csv", tables.as_csv(tables.rows(500, 3, shift=6)))
    return check


@pytest.fixture
def healthy(check):
    check.put("data/part-0.csv", tables.as_csv(tables.rows(3000, 2)))
    return check


def test_drift_is_told_in_the_asset_event_with_its_report(drifted):
    summary = drifted.run()
    assert {"delay", "prediction"} <= {feature.name for feature in summary.features}
    assert (summary.outcome, summary.rows) == ("drift", 1500)
    extra = drifted.context["outlet_events"][ASSET].extra
    assert extra["report_uri"] == summary.report_uri
    assert extra["accuracy"]["low"] < extra["accuracy"]["estimate"] < extra["accuracy"]["high"]
    page = drifted.store.read(S3Uri.parse(summary.report_html_uri)).decode()
    assert "Drift: check" in page
    assert drifted.task.pushed["_link_ReportLink"].endswith("drift.html")
    assert drifted.report(summary).files == 2


def test_without_drift_the_task_is_skipped_so_that_no_event_tells_of_drift(healthy):
    message, summary = healthy.ends(AirflowSkipException)
    assert message.startswith("No drift in 3000 rows")
    assert summary.outcome == "no_drift"
    assert healthy.context["outlet_events"][ASSET].extra == {}


def test_a_gate_fails_on_drift_and_succeeds_without(check):
    check.put("data/a.csv", tables.as_csv(tables.rows(3000, 2)))
    assert check.run(on_drift="fail").outcome == "no_drift"
    check.put("data/a.csv", tables.as_csv(tables.rows(3000, 2, shift=6)))
    message, summary = check.ends(AirflowFailException, on_drift="fail")
    assert message.startswith("Drift in 3000 rows")
    assert summary.report_html_uri.rpartition("/")[2] in message


def test_too_few_rows_are_inconclusive_which_is_neither_pass_nor_drift(check):
    check.put("data/a.csv", tables.as_csv(tables.rows(30, 2)))
    message, summary = check.ends(AirflowFailException, on_drift="return")
    assert "too few for a verdict" in message
    assert summary.outcome == "inconclusive"
    check.ends(AirflowSkipException, on_inconclusive="skip")


def test_no_data_and_no_reference_are_errors_and_leave_no_verdict(check):
    message, summary = check.ends(AirflowFailException)
    assert "there are no data at" in message
    assert summary is None
    check.put("data/a.csv", tables.as_csv(tables.rows(300, 2)))
    message, _ = check.ends(AirflowFailException, reference_s3_uri=check.uri("model/none.json"))
    assert "model/none.json" in message


@pytest.mark.parametrize(
    ("name", "write", "options"),
    [
        ("a.csv.gz", tables.as_gzip, {}),
        ("a.jsonl", tables.as_json_lines, {"format": "jsonlines"}),
        ("a.parquet", tables.as_parquet, {"format": "parquet"}),
    ],
)
def test_every_format_gives_the_same_verdict(check, name, write, options):
    table = tables.rows(1500, 2, shift=3)
    check.put("data/a.csv", tables.as_csv(table))
    check.put(f"other/{name}", write(table))
    verdicts = [
        check.report(check.run(data=check.uri(folder), **more)).verdict
        for folder, more in (("data/", {}), ("other/", options))
    ]
    assert verdicts[0] == verdicts[1]


def test_csv_without_a_header_has_the_columns_of_the_reference_in_order(check):
    table = {name: values for name, values in tables.rows(1500, 2, shift=6).items() if name in tables.FEATURES}
    check.put("data/a.csv", tables.as_csv(table, header=False))
    assert check.run(header=False).features[0].name == "delay"


def test_columns_with_other_names_are_found(check):
    table = tables.rows(1500, 2, shift=6)
    table["departure delay"] = table.pop("delay")
    check.put("data/a.csv", tables.as_csv(table))
    summary = check.run(columns={"delay": "departure delay"})
    assert {"delay", "prediction"} <= {feature.name for feature in summary.features}


def test_a_column_that_has_gone_is_told_and_its_values_are_missing(check):
    table = tables.rows(1500, 2)
    del table["temp"]
    check.put("data/a.csv", tables.as_csv(table))
    summary = check.run()
    assert any((each.name, each.aspect) == ("temp", "missing") for each in summary.features)
    assert "Column 'temp' is not in" in check.report(summary).notes[0]


def test_data_of_another_kind_are_refused_and_never_judged(check):
    check.put("data/a.csv", b"colour,shape\nred,round\n" * 200)
    message, _ = check.ends(AirflowFailException)
    assert "none of the reference's columns" in message


def test_hostile_rows_are_counted_and_part_of_the_verdict(check):
    good = tables.as_csv(tables.rows(2000, 2))
    junk = b"a,b\n" * 9 + b"x,not a number,inf,A,nan,late\n" * 7 + b"\xff\xfe,1,2,A,0.5,late\n"
    check.put("data/a.csv", good + junk)
    _, summary = check.ends(AirflowSkipException)
    assert (summary.rows, summary.lost_rows) == (2008, 9)
    faults = check.report(summary).window.faults
    assert faults["wrong_column_count"] == 9
    assert faults["not_a_number"] == 7

    check.put("data/a.csv", good + b"a,b\n" * 1000)
    message, summary = check.ends(AirflowFailException)
    assert "could not be read" in message
    assert summary.outcome == "inconclusive"


def test_the_versions_that_were_chosen_are_read_whatever_is_written_since(check):
    check.s3.put_bucket_versioning(Bucket=check.bucket, VersioningConfiguration={"Status": "Enabled"})
    check.put("data/a.csv", tables.as_csv(tables.rows(1500, 2, shift=6)))
    pinned = check.store.stat(S3Uri.parse(check.uri("data/a.csv")))
    snapshot = DataSnapshot(
        training_months=(), evaluation_month="2013-02", training=(pinned,), evaluation=(pinned,), versioned=True,
        taken_at=NOON,
    )  # fmt: skip
    chosen = publish(check.store, S3Uri.parse(check.uri("runs")), snapshot)
    check.put("data/a.csv", tables.as_csv(tables.rows(1500, 2)))
    assert check.run(data_snapshot=chosen.snapshot).outcome == "drift"
    check.ends(AirflowSkipException, data_manifest_s3_uri=chosen.evaluate)


def request(number, row, answer, *, at):
    """Return a captured request of one row that says who it is."""
    document = captured(",".join(map(str, row)), str(answer), time=at.isoformat())
    known = {"eventId": f"event-{number}", "inferenceId": f"id-{number}", "inferenceTime": at.isoformat()}
    return {**document, "eventMetadata": known}


def capture(check, count, seed, *, start, shift=0.0, first=0):
    """Put an hour's captured requests where SageMaker puts them; return the labels of each request."""
    table = tables.rows(count, seed, shift=shift)
    documents = []
    for n in range(count):
        row, at = [table[name][n] for name in tables.FEATURES], start + timedelta(seconds=n * 3600 / count)
        documents.append(request(first + n, row, table["prediction"][n], at=at))
    check.put(f"capture/flights/AllTraffic/{start:%Y/%m/%d/%H}/{seed}.jsonl", lines(*documents))
    return {"id": [f"id-{first + n}" for n in range(count)], "label": table["label"]}


def test_captured_requests_of_the_data_interval_are_judged_and_no_others(check):
    capture(check, 1000, 2, start=NOON - timedelta(hours=1))
    capture(check, 1000, 3, start=NOON, shift=6, first=1000)
    capture(check, 1000, 4, start=NOON + timedelta(hours=1), first=2000)
    there = {"capture_s3_uri": check.uri("capture"), "endpoint_name": "flights"}
    hour = {"data_interval_start": NOON, "data_interval_end": NOON + timedelta(hours=1)}
    summary = check.run(hour, **there)
    assert (summary.outcome, summary.rows, summary.endpoint_name) == ("drift", 1000, "flights")
    assert NOON <= summary.window_from <= summary.window_to < NOON + timedelta(hours=1)

    before = {"data_interval_start": NOON - timedelta(hours=1), "data_interval_end": NOON}
    _, summary = check.ends(AirflowSkipException, before, **there, min_effect=0.5)
    assert summary.rows == 1000

    _, summary = check.ends(AirflowFailException, {"logical_date": NOON - timedelta(days=9)}, **there)
    assert (summary.outcome, summary.rows) == ("inconclusive", 0)


def test_labels_that_came_later_measure_the_accuracy(check):
    table = tables.rows(2000, 2, shift=6)
    labels = {"id": table["id"][:1500], "label": table.pop("label")[:1500]}
    check.put("data/a.csv", tables.as_csv(table))
    check.put("labels/a.jsonl", tables.as_json_lines(labels))
    summary = check.run(labels={"data": check.uri("labels/"), "format": "jsonlines"})
    right = sum(
        (late > 0.5) == (label == "late") for late, label in zip(table["prediction"], labels["label"], strict=False)
    )
    measured = summary.measured_accuracy
    assert (measured.rows, measured.measured) == (1500, True)
    assert measured.estimate == pytest.approx(right / 1500)
    assert measured.low < measured.estimate < measured.high
    # The model is calibrated here, so what its confidence says should be near what came true.
    assert summary.estimated_accuracy.estimate == pytest.approx(measured.estimate, abs=0.04)


def test_labels_of_captured_requests_are_joined_by_inference_id(check):
    labels = capture(check, 1000, 3, start=NOON, shift=6)
    check.put("labels.csv", tables.as_csv(labels))
    summary = check.run(
        {"data_interval_start": NOON, "data_interval_end": NOON + timedelta(hours=1)},
        capture_s3_uri=check.uri("capture"), endpoint_name="flights", labels={"data": check.uri("labels.csv")},
    )  # fmt: skip
    assert summary.measured_accuracy.rows == 1000
    assert summary.measured_accuracy.estimate > 0.7


def test_what_model_monitor_found_is_told_and_decides_where_it_is_said_to(healthy):
    violations = {"violations": [{"feature_name": "temp", "constraint_check_type": "baseline_drift_check"}]}
    healthy.put("monitor/2013/07/01/12/statistics.json", "{}")
    there = {"kind": "model_monitor", "s3_uri": healthy.uri("monitor/")}
    data = {"data": healthy.uri("data/")}
    _, summary = healthy.ends(AirflowSkipException, **data, evidence=[there])
    assert summary.evidence[0].outcome == "within"

    healthy.put("monitor/2013/07/01/12/constraint_violations.json", json.dumps(violations))
    _, summary = healthy.ends(AirflowSkipException, **data, evidence=[there])
    assert (summary.outcome, summary.evidence[0].outcome) == ("no_drift", "crossed")
    assert healthy.run(**data, evidence=[{**there, "decides": True}]).outcome == "drift"
    # Alone, without data of one's own, it decides as well; and its silence is no pass.
    assert healthy.run(evidence=[there]).outcome == "drift"
    nowhere = [{"kind": "model_monitor", "s3_uri": healthy.uri("monitor-of-another/")}]
    message, _ = healthy.ends(AirflowFailException, evidence=nowhere)
    assert "has left no execution" in message


def test_a_metric_in_cloudwatch_is_asked_for_the_data_interval(healthy):
    cloudwatch, now = healthy.aws.client("cloudwatch"), datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    space = f"team/{uuid.uuid4().hex}"
    for hours, value in ((1, 0.4), (3, 0.1)):
        row = {"MetricName": "distance", "Timestamp": now - timedelta(hours=hours), "Value": value}
        cloudwatch.put_metric_data(Namespace=space, MetricData=[row])
    rule = [{"kind": "cloudwatch", "namespace": space, "metric": "distance", "above": 0.3}]
    recent = {"data_interval_start": now - timedelta(hours=2), "data_interval_end": now}
    assert healthy.run(recent, evidence=rule).outcome == "drift"
    past = {"data_interval_start": now - timedelta(hours=4), "data_interval_end": now - timedelta(hours=2)}
    _, summary = healthy.ends(AirflowSkipException, past, evidence=rule)
    assert summary.evidence[0].outcome == "within"


def test_a_branch_goes_on_with_the_tasks_of_its_verdict(check):
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    with DAG("dag", schedule=None):
        operator = check.operator(on_drift="branch", follow_on_drift="retrain", follow_on_no_drift=["rest"])
        retrain, rest = (check.operator(task_id=name, on_drift="return") for name in ("retrain", "rest"))
        operator >> [retrain, rest]
    for shift, skipped in ((6, "rest"), (0, "retrain")):
        check.put("data/a.csv", tables.as_csv(tables.rows(3000, 2, shift=shift)))
        context = check.prepared()
        check.task.task, check.task.map_index = operator, -1
        with pytest.raises(DownstreamTasksSkipped) as branched:
            operator.execute(context)
        assert [task for task, _ in branched.value.tasks] == [skipped]
        assert check.task.pushed["return_value"]["outcome"] == ("drift" if shift else "no_drift")


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
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(check, changes, message):
    with pytest.raises(SpecificationError, match=message):
        check.operator(**changes)


def test_two_places_at_once_are_refused(check):
    message, _ = check.ends(AirflowFailException, data=check.uri("data/"), athena_query_id="q")
    assert "['athena_query_id', 'data'] say in 2 ways" in message


JOB = {"execution": "sagemaker", "image": PROCESSING_IMAGE, "role_arn": ROLE, "instance_type": "ml.m5.large",
       "poll_interval": 0.2}  # fmt: skip


def jobs(check):
    listed = check.aws.client("sagemaker").list_processing_jobs(NameContains="dag-check", MaxResults=100)
    names = [row["ProcessingJobName"] for row in listed["ProcessingJobSummaries"]]
    described = [check.aws.client("sagemaker").describe_processing_job(ProcessingJobName=name) for name in names]
    return [job for job in described if check.bucket in json.dumps(job["ProcessingInputs"])]


def test_a_processing_job_finds_what_the_worker_finds(drifted):
    here = drifted.report(drifted.run())
    there = drifted.report(drifted.run(**JOB, deferrable=False))
    assert (there.verdict, there.window, there.files) == (here.verdict, here.window, 2)
    (job,) = jobs(drifted)
    assert job["NetworkConfig"] == {"EnableNetworkIsolation": True}


def test_a_deferred_check_goes_on_with_the_verdict_of_its_job_and_a_retry_adopts_it(drifted):
    operator, context = drifted.operator(**JOB), drifted.prepared()
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    # Data that come now belong to the next run: the job reads what was there when it was ordered.
    drifted.put("data/part-9.csv", tables.as_csv(tables.rows(9000, 5)))
    again = drifted.operator(**JOB, deferrable=False).execute(drifted.prepared())

    async def first():
        async for event in deferred.value.trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    event = asyncio.run(asyncio.wait_for(first(), 120))
    document = operator.resume(context, event, **deferred.value.kwargs)
    assert document == again
    assert (document["rows"], document["outcome"]) == (1500, "drift")
    assert len(jobs(drifted)) == 1


def test_data_that_were_replaced_under_the_job_give_no_verdict(drifted):
    operator, context = drifted.operator(**JOB), drifted.prepared()
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    drifted.put("data/part-1.csv", tables.as_csv(tables.rows(500, 9)))
    with pytest.raises(AirflowFailException, match="data have changed since the check began"):
        drifted.operator(**JOB, deferrable=False).execute(drifted.prepared())


def test_captured_requests_and_their_labels_are_judged_in_a_job_as_on_the_worker(check):
    check.put("labels.csv", tables.as_csv(capture(check, 1000, 3, start=NOON, shift=6)))
    options = {
        "capture_s3_uri": check.uri("capture"), "endpoint_name": "flights", "labels": {"data": check.uri("labels.csv")}
    }  # fmt: skip
    hour = {"data_interval_start": NOON, "data_interval_end": NOON + timedelta(hours=1)}
    here, there = check.run(hour, **options), check.run(hour, **options, **JOB, deferrable=False)
    assert to_json(here) == to_json(there)


def test_a_job_that_cannot_read_its_data_says_why(check):
    check.put("data/a.csv", b"colour,shape\nred,round\n")
    with pytest.raises((AirflowException, AirflowFailException), match="none of the reference's columns"):
        check.operator(**JOB, deferrable=False).execute(check.prepared())
