"""ChooseDataOperator against the local AWS: which months a run of each kind gets, and what it leaves for the others."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException
from running_task import RunningTask, aws_environment

from airflow_dlaws.data.snapshot import ChosenData, DataSnapshot
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.operators.data import ChooseDataOperator
from airflow_dlaws.storage import ObjectStore, S3Uri

MONTHS = ("2013-01", "2013-02", "2013-03", "2013-04")


class Choice:
    """One bucket with four months of two objects each; chooses for one run after the other."""

    def __init__(self, aws, bucket):
        self.s3, self.bucket, self.store = aws.client("s3"), bucket, ObjectStore(aws.client("s3"))

    def fill(self, *months):
        for month in months:
            for part in (0, 1):
                self.s3.put_object(Bucket=self.bucket, Key=f"flights/month={month}/{part}.csv", Body=month.encode())

    def choose(self, task=None, *, until=None, **options):
        task = task or RunningTask("choose_data")
        defaults = {"data_s3_uri": f"s3://{self.bucket}/flights/", "runs_s3_uri": f"s3://{self.bucket}/runs"}
        operator = ChooseDataOperator(
            task_id="choose_data", aws_conn_id=None, **(defaults | {"train_months": 2} | options)
        )
        context = {**task.context, **({"data_interval_end": datetime.fromisoformat(until)} if until else {})}
        return wire.from_json(ChosenData, operator.execute(context))

    def snapshot(self, chosen):
        return wire.from_json(DataSnapshot, self.store.read_json(S3Uri.parse(chosen.snapshot)))


@pytest.fixture
def choice(local_aws, bucket, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    choice = Choice(local_aws, bucket)
    choice.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    choice.fill(*MONTHS)
    return choice


@pytest.mark.parametrize(
    ("run_type", "until", "training", "evaluation"),
    [
        ("scheduled", "2013-05-02T06:00:00+00:00", ("2013-02", "2013-03"), "2013-04"),
        ("backfill", "2013-04-01T00:00:00+00:00", ("2013-01", "2013-02"), "2013-03"),
        ("asset_triggered", None, ("2013-02", "2013-03"), "2013-04"),
        ("manual", None, ("2013-02", "2013-03"), "2013-04"),
        ("manual", "2013-04-17T00:00:00+00:00", ("2013-01", "2013-02"), "2013-03"),
        ("manual", "2026-11-24T00:00:00+00:00", ("2013-02", "2013-03"), "2013-04"),
    ],
)
def test_each_kind_of_run_gets_its_months(choice, run_type, until, training, evaluation):
    chosen = choice.choose(RunningTask("choose_data", run_type=run_type), until=until)

    assert (chosen.training_months, chosen.evaluation_month) == (training, evaluation)
    keys = [f"flights/month={month}/{part}.csv" for month in training for part in (0, 1)]
    assert choice.store.read_json(S3Uri.parse(chosen.train)) == [{"prefix": f"s3://{choice.bucket}/"}, *keys]
    assert len(choice.store.read_json(S3Uri.parse(chosen.evaluate))) == 3
    snapshot = choice.snapshot(chosen)
    assert chosen.object_count == len(snapshot.objects) == 6
    assert all(each == choice.store.stat(S3Uri.parse(each.uri)) for each in snapshot.objects)
    assert all(each.version_id for each in snapshot.objects)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_a_run_of_an_interval_whose_month_is_not_there_fails_and_takes_no_other(choice, run_type):
    with pytest.raises(AirflowFailException, match="there are no data of 2013-05: this run is judged on 2013-05"):
        choice.choose(RunningTask("choose_data", run_type=run_type), until="2013-06-01T00:00:00+00:00")


def test_a_month_that_is_not_over_is_left_out(choice):
    this_month = f"{datetime.now(UTC):%Y-%m}"
    choice.fill(this_month)
    assert choice.choose().evaluation_month == "2013-04"


def test_months_end_in_the_time_zone_of_the_timetable(choice):
    backfill, until = RunningTask("choose_data", run_type="backfill"), "2013-03-31T22:00:00+00:00"
    assert choice.choose(backfill, until=until, train_months=1, timezone="Europe/Berlin").evaluation_month == "2013-03"
    assert choice.choose(backfill, until=until, train_months=1).evaluation_month == "2013-02"


def test_runs_side_by_side_and_lives_of_one_run_write_in_folders_of_their_own(choice):
    tasks = [RunningTask("choose_data", run_id="a"), RunningTask("choose_data", run_id="b")]
    tasks.append(RunningTask("choose_data", run_id="a", max_tries=3))
    assert len({choice.choose(task).snapshot for task in tasks}) == 3
    retry = RunningTask("choose_data", run_id="a", try_number=2)
    assert choice.choose(retry) == choice.choose(tasks[0])


def test_without_versioning_the_etags_are_noted_and_it_can_be_refused(choice, local_aws):
    other = Choice(local_aws, f"{choice.bucket}-plain")
    other.s3.create_bucket(Bucket=other.bucket)
    other.fill(*MONTHS)

    chosen = other.choose()
    assert chosen.versioned is False
    assert {(each.version_id, bool(each.etag)) for each in other.snapshot(chosen).objects} == {(None, True)}
    with pytest.raises(AirflowFailException, match="6 of 6 objects have no version id"):
        other.choose(require_versions=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_months": 0}, "train_months=0 must be a whole number of at least 1"),
        ({"train_months": "two"}, "train_months='two'"),
        ({"timezone": "Mars/Olympus"}, "timezone='Mars/Olympus' is not known"),
        ({"data_s3_uri": "flights/"}, "no S3 location"),
    ],
)
def test_what_is_known_to_be_wrong_fails_when_the_dag_is_parsed(options, message):
    defaults = {"data_s3_uri": "s3://bucket/flights/", "runs_s3_uri": "s3://bucket/runs"}
    with pytest.raises(SpecificationError, match=message):
        ChooseDataOperator(task_id="choose_data", **(defaults | options))
