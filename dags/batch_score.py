"""Score a month of flights with the model in service, or the latest approved one: on a calendar, by hand, backfilled.

Each run scores the month in which its data interval begins, or the one named in the form. It is green if every flight
has its prediction; a row that cannot be scored is named by its line. Copy this file, set the knobs or their variables.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_dlaws.operators.batch_inference import BatchInferenceOperator
from airflow_dlaws.operators.validation import DataValidationOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "my-bucket")
ROLE_ARN = os.environ.get("DLAWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sagemaker-execution")
ENDPOINT = os.environ.get("DLAWS_ENDPOINT", "flight-delays")
MODEL_GROUP = os.environ.get("DLAWS_MODEL_GROUP", "flight-delays")
CRON = os.environ.get("DLAWS_SCORE_CRON", "0 6 1 * *")  # on the first the month before is whole; empty: only by hand
EPOCH = datetime(2013, 1, 1)  # of the data: the earliest month that can be asked for
POLL_SECONDS = float(os.environ.get("DLAWS_POLL_SECONDS", "30"))

COLUMNS = {  # of the model, in its order; the label is not among them
    "dep_delay": "number",
    "hour": "text",
    "weekday": "text",
    "distance": "number",
    "carrier": "text",
    "origin": "text",
    "dest": "text",
    "wind_speed": "number",
    "precip": "number",
    "visib": "number",
}
AIRPORTS = {"column": "origin", "value_set": ["EWR", "JFK", "LGA"]}
SUITE = [
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "dep_delay"}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": AIRPORTS, "severity": "warning"},
]
PARAMS = {
    "bucket": Param(BUCKET, type="string", title="Bucket", description="Data, rows to score and predictions."),
    "data_prefix": Param("flights/", type="string", title="Data", description="Holds month=YYYY-MM/*.csv."),
    "month": Param("", type="string", pattern=r"^(\d{4}-\d{2})?$", title="Month", description="Empty: the interval's."),
    "score_with": Param("endpoint", type="string", enum=["endpoint", "latest approved"], title="Model"),
    "endpoint_name": Param(ENDPOINT, type="string", title="Endpoint"),
    "model_package_group": Param(MODEL_GROUP, type="string", title="Model package group"),
    "instance_type": Param("ml.m5.xlarge", type="string", title="Instances"),
    "instance_count": Param(1, type="integer", minimum=1, maximum=100, title="Number of instances"),
}


@task
def choose_month() -> dict[str, Any]:
    """Find the files of the month, and say where its rows and its predictions go."""
    from airflow_dlaws.hooks.aws import AwsClients, AwsConnection
    from airflow_dlaws.storage import ObjectStore, S3Uri

    context = get_current_context()
    params, since = context["params"], context.get("data_interval_start")
    month = params["month"] or (f"{since:%Y-%m}" if since else "(none: name one in the form)")
    data = S3Uri.parse(f"s3://{params['bucket']}/{params['data_prefix']}")
    rows = ObjectStore(AwsClients(AwsConnection()).client("s3")).list(data / f"month={month}/")
    files = [str(row.uri) for row in rows if row.uri.key.endswith(".csv")]
    if not files:
        raise ValueError(f"no month={month}/*.csv under {data}")
    root, run = f"s3://{params['bucket']}", context["dag_run"].run_id
    return {"files": files, "rows": f"{root}/scoring/{run}/", "output": f"{root}/scores/month={month}/"}


@task
def choose_model() -> dict[str, str]:
    """Name the model that the endpoint serves now, or the latest version that somebody has approved."""
    from airflow_dlaws.hooks.aws import AwsClients, AwsConnection
    from airflow_dlaws.registry.champion import live_model

    params, sagemaker = get_current_context()["params"], AwsClients(AwsConnection()).client("sagemaker")
    if params["score_with"] == "endpoint":
        live = live_model(sagemaker, params["endpoint_name"])
        if live is None:
            raise ValueError(f"there is no endpoint {params['endpoint_name']!r}: score with the latest approved model")
        return {"model_name": live.model_name, "model_package_arn": ""}
    approved = sagemaker.list_model_packages(
        ModelPackageGroupName=params["model_package_group"],
        ModelApprovalStatus="Approved",
        SortBy="CreationTime",
        SortOrder="Descending",
        MaxResults=1,
    )["ModelPackageSummaryList"]
    if not approved:
        raise ValueError(f"no version of {params['model_package_group']!r} is approved: approve one first")
    return {"model_name": "", "model_package_arn": approved[0]["ModelPackageArn"]}


@task
def write_rows(month: dict[str, Any]) -> str:
    """Write the rows as a transform job reads them: no header, the model's columns in its order."""
    import csv
    import tempfile

    from airflow_dlaws.hooks.aws import AwsClients, AwsConnection
    from airflow_dlaws.storage import S3Uri

    client = AwsClients(AwsConnection()).client("s3")
    for source in map(S3Uri.parse, month["files"]):
        target = S3Uri.parse(month["rows"]) / source.key.rpartition("/")[2]
        lines = client.get_object(Bucket=source.bucket, Key=source.key)["Body"].iter_lines()
        with tempfile.NamedTemporaryFile("w", newline="") as file:
            rows = ([row[name] for name in COLUMNS] for row in csv.DictReader(line.decode() for line in lines))
            csv.writer(file, lineterminator="\n").writerows(rows)
            file.flush()
            client.upload_file(file.name, target.bucket, target.key)
    return str(month["rows"])


DEFAULTS = {"retries": 2, "retry_delay": timedelta(seconds=POLL_SECONDS)}
SCHEDULE = CronDataIntervalTimetable(CRON, "UTC") if CRON else None


@dag(schedule=SCHEDULE, start_date=EPOCH, catchup=False, params=PARAMS, default_args=DEFAULTS, doc_md=__doc__)
def batch_score() -> None:
    """One month in, one probability for each flight out, line for line."""
    month, model = choose_month(), choose_model()
    validate = DataValidationOperator(
        task_id="validate", data=month["files"], suite=SUITE, report_s3_uri="s3://{{ params.bucket }}/reports/scoring"
    )
    score = BatchInferenceOperator(
        task_id="score",
        model_name=model["model_name"],
        model_package_arn=model["model_package_arn"],
        role_arn=ROLE_ARN,
        data=write_rows(month),
        columns=COLUMNS,
        output_s3_uri=month["output"],
        state_s3_uri="s3://{{ params.bucket }}/scoring",
        instance_type="{{ params.instance_type }}",
        instance_count="{{ params.instance_count }}",
        poll_interval=POLL_SECONDS,
    )
    validate >> score


batch_score()
