"""ModelEvaluationOperator: a real job scores two models on the same rows, and the task ends as the verdict says."""

from __future__ import annotations

import asyncio
import io
import json
import math
import random
import tarfile
import time
import uuid
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from running_task import RunningTask, aws_environment, resumed

from airflow_dlaws.data.snapshot import DataSnapshot, publish
from airflow_dlaws.evaluation.report import EvaluationReport, EvaluationResult
from airflow_dlaws.evaluation.verdict import Verdict
from airflow_dlaws.jobs import wire
from airflow_dlaws.operators.evaluation import ModelEvaluationOperator
from airflow_dlaws.storage import ObjectStore, S3Uri

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"

#: A model is one number: how much of the truth it knows. Scores are computed in the job, from the channels.
SCORING_SCRIPT = """
import csv, json, math, os, pathlib, tarfile
channel = lambda name: pathlib.Path(os.environ["SM_CHANNEL_" + name.upper()])
rows = list(csv.DictReader((channel("evaluation") / "rows.csv").open()))
def weight(name):
    with tarfile.open(channel(name) / "model.tar.gz") as archive:
        return json.load(archive.extractfile("model.json"))["weight"]
names = ["challenger"] + ["champion"] * ("SM_CHANNEL_CHAMPION" in os.environ)
weights = {name: weight(name) for name in names}
with open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "scores.csv"), "w") as out:
    print("row", "label", *names, sep=",", file=out)
    for number, row in enumerate(rows):
        scores = [1 / (1 + math.exp(-weights[name] * float(row["truth"]))) for name in names]
        print(number, row["label"], *scores, sep=",", file=out)
"""

HANDLER = """
def load(model_dir):
    return None
def predict(model, body, content_type):
    return b"0.5\\n" * len(body.decode().splitlines()), "text/csv"
"""


def archive(members):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return body.getvalue()


def rows(count, seed=1):
    draw = random.Random(seed)
    lines = ["label,truth"]
    for _ in range(count):
        truth = draw.gauss(0, 1.5)
        lines.append(f"{int(draw.random() < 1 / (1 + math.exp(-truth)))},{truth:.6f}")
    return "\n".join(lines) + "\n"


class Comparison:
    """Models and rows of one bucket, and the operator that compares them."""

    def __init__(self, aws, bucket, source):
        self.aws, self.bucket, self.source = aws, bucket, source
        self.s3, self.sagemaker = aws.client("s3"), aws.client("sagemaker")
        self.task = RunningTask("evaluate")
        (source / "evaluate.py").write_text(SCORING_SCRIPT)
        self.put("rows/rows.csv", rows(1500).encode())

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def model(self, name, weight):
        members = {"model.json": json.dumps({"weight": weight}), "code/inference.py": HANDLER}
        return self.put(f"models/{name}/model.tar.gz", archive(members))

    def operator(self, challenger, **options):
        return ModelEvaluationOperator(
            task_id="evaluate",
            aws_conn_id=None,
            poll_interval=0.2,
            image=IMAGE,
            source=self.source,
            challenger_artifact=challenger,
            evaluation_data=f"s3://{self.bucket}/rows/",
            output_s3_uri=f"s3://{self.bucket}/evaluations",
            role_arn=ROLE,
            instance_type="ml.m5.large",
            **({"deferrable": False} | options),
        )

    def run(self, challenger, **options):
        return wire.from_json(EvaluationResult, self.operator(challenger, **options).execute(self.task.context))

    def report(self, uri):
        body = self.s3.get_object(Bucket=self.bucket, Key=uri.removeprefix(f"s3://{self.bucket}/"))["Body"].read()
        return wire.from_json(EvaluationReport, json.loads(body))

    def jobs(self):
        """The names of the jobs that have left something in this bucket."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="evaluations/")["Contents"]
        return {row["Key"].split("/")[1] for row in listed if row["Key"].endswith("output.tar.gz")}

    def deploy(self, artifact):
        """Serve a model; return the endpoint's name."""
        name = f"e-{uuid.uuid4().hex[:8]}"
        container = {"Image": IMAGE, "ModelDataUrl": artifact}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large"}
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
        )
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        deadline = time.monotonic() + 60
        while (status := self.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]) != "InService":
            assert status == "Creating"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return name


@pytest.fixture
def comparison(local_aws, bucket, tmp_path, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    return Comparison(local_aws, bucket, tmp_path)


def test_a_better_challenger_passes_with_a_report_of_both_models(comparison):
    good, poor = comparison.model("good", 1.0), comparison.model("poor", 0.1)

    result = comparison.run(good, champion_artifact=poor)
    report = comparison.report(result.report_uri)

    assert (result.verdict, result.passed, result.rows) == (Verdict.BETTER, True, 1500)
    assert result.challenger.log_loss < result.champion.log_loss
    assert 0 < result.improvement_low < result.improvement < result.improvement_high
    assert (result.challenger_artifact, result.champion_artifact) == (good, poor)
    assert report.evaluation.challenger == result.challenger
    assert report.champion.artifact_uri == poor
    assert result.job_name in report.scores_uri
    page = comparison.s3.get_object(Bucket=comparison.bucket, Key=result.page_uri.split("/", 3)[3])
    assert page["ContentType"].startswith("text/html")
    assert "evaluation.html?" in comparison.task.pushed["_link_ReportLink"]


def test_a_worse_challenger_skips_what_follows_or_fails(comparison):
    good, poor = comparison.model("good", 1.0), comparison.model("poor", 0.1)

    with pytest.raises(AirflowSkipException, match=r"worse: log_loss improves by -.*Report: http"):
        comparison.run(poor, champion_artifact=good)
    assert comparison.task.pushed["evaluation_result"]["verdict"] == "worse"
    assert comparison.task.pushed["evaluation_result"]["passed"] is False
    with pytest.raises(AirflowFailException, match="worse: log_loss"):
        comparison.run(poor, champion_artifact=good, on_worse="fail")
    assert len(comparison.jobs()) == 1


def test_an_equal_challenger_is_inconclusive_unless_a_margin_lets_it_pass(comparison):
    first, second = comparison.model("first", 1.0), comparison.model("second", 1.0)

    with pytest.raises(AirflowSkipException, match="inconclusive"):
        comparison.run(first, champion_artifact=second)
    passed = comparison.run(first, champion_artifact=second, on_inconclusive="pass")
    within = comparison.run(first, champion_artifact=second, margin="0.01")

    assert (passed.verdict, passed.passed) == (Verdict.INCONCLUSIVE, True)
    assert (within.verdict, within.passed) == (Verdict.NOT_WORSE, True)


def test_the_first_model_has_no_champion_and_must_meet_the_requirements(comparison):
    only = comparison.model("only", 1.0)

    first = comparison.run(only, endpoint_name="not-there-yet", requirements={"max_log_loss": 0.69})

    assert (first.verdict, first.champion, first.champion_artifact) == (Verdict.NO_CHAMPION, None, None)
    with pytest.raises(AirflowSkipException, match=r"log_loss is 0\.\d+, and max_log_loss=0.1 is required"):
        comparison.run(only, endpoint_name="not-there-yet", requirements={"max_log_loss": 0.1})


def test_the_champion_is_the_live_model_and_stays_the_same_for_a_retry(comparison):
    good, poor = comparison.model("good", 1.0), comparison.model("poor", 0.1)
    endpoint = comparison.deploy(poor)

    first = comparison.run(good, endpoint_name=endpoint)
    comparison.sagemaker.delete_endpoint(EndpointName=endpoint)
    comparison.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig={"Delay": 1})
    comparison.task = RunningTask("evaluate", try_number=2)
    retried = comparison.run(good, endpoint_name=endpoint)
    comparison.task = RunningTask("evaluate", max_tries=1)
    cleared = comparison.run(good, endpoint_name=endpoint)

    assert (first.verdict, first.champion_artifact, first.champion_endpoint_config) == (Verdict.BETTER, poor, endpoint)
    assert retried == first
    assert (cleared.verdict, cleared.champion_artifact) == (Verdict.NO_CHAMPION, None)
    assert comparison.jobs() == {first.job_name, cleared.job_name}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("pass", "holds no scores.csv|left no output"),
        (SCORING_SCRIPT.replace('row["label"], *scores', '"late", *scores'), "line 2: label 'late' is neither 0 nor 1"),
        (
            SCORING_SCRIPT.replace("in os.environ)", "in ())"),
            "was given a champion, and its scores.csv has no champion",
        ),
        ("raise SystemExit('the champion needs a column')", "the champion needs a column"),
    ],
)
def test_a_script_that_does_not_score_as_agreed_fails_with_the_reason(comparison, script, message):
    (comparison.source / "evaluate.py").write_text(script)
    good, poor = comparison.model("good", 1.0), comparison.model("poor", 0.1)

    with pytest.raises(AirflowFailException, match=message):
        comparison.run(good, champion_artifact=poor)


def test_a_deferred_task_judges_the_job_it_has_started(comparison):
    good, poor = comparison.model("good", 1.0), comparison.model("poor", 0.1)
    operator = comparison.operator(good, champion_artifact=poor, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(comparison.task.context)
    (event,) = asyncio.run(events_of(deferred.value.trigger))

    # Another process goes on, with nothing but what Airflow has stored.
    other = comparison.operator(good, champion_artifact=poor, deferrable=True)
    document = resumed(other, deferred.value, event.payload, comparison.task.context)

    assert wire.from_json(EvaluationResult, document).verdict is Verdict.BETTER
    assert len(comparison.jobs()) == 1


async def events_of(trigger):
    return [event async for event in trigger.run()]


def test_missing_evaluation_data_are_named_before_a_job_is_started(comparison):
    good = comparison.model("good", 1.0)
    operator = comparison.operator(good)
    operator.evaluation_data = f"s3://{comparison.bucket}/no-rows/"

    with pytest.raises(AirflowFailException, match="no-rows"):
        operator.execute(comparison.task.context)
    assert comparison.jobs() == set()


def test_the_model_in_service_is_no_champion_for_a_backfill_unless_asked(comparison):
    good, poor = comparison.model("good", 1.0), comparison.model("poor", 0.1)
    endpoint = comparison.deploy(good)
    comparison.task = RunningTask("evaluate", run_type="backfill")

    alone = comparison.run(poor, endpoint_name=endpoint)
    assert (alone.verdict, alone.champion_artifact) == (Verdict.NO_CHAMPION, None)
    assert alone.billable_seconds > 0
    compared = comparison.run(poor, endpoint_name=endpoint, allow_backfill="true", on_worse="fail", margin=9)
    assert compared.champion_artifact == good


def test_rows_that_have_changed_since_they_were_chosen_judge_nobody(comparison):
    store, rows_uri = ObjectStore(comparison.s3), S3Uri(comparison.bucket, "rows/rows.csv")
    snapshot = DataSnapshot(
        training_months=("2013-02",),
        evaluation_month="2013-03",
        training=(store.stat(rows_uri),),
        evaluation=(store.stat(rows_uri),),
        versioned=False,
        taken_at=datetime(2013, 4, 1, tzinfo=UTC),
    )
    chosen = publish(store, S3Uri(comparison.bucket, "runs/1"), snapshot)
    good = comparison.model("good", 1.0)

    assert comparison.run(good, data_snapshot=chosen.snapshot).passed
    comparison.put("rows/rows.csv", rows(900, seed=2).encode())
    with pytest.raises(AirflowFailException, match=r"rows that judge have changed .*rows.csv was etag"):
        comparison.run(good, data_snapshot=chosen.snapshot)
