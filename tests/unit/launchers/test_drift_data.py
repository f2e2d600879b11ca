"""Which objects a check reads. The local AWS has no Athena; moto plays it here."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto import mock_aws

from airflow_dlaws.errors import OutcomeUnacceptable, ServiceUnavailable, SpecificationError
from airflow_dlaws.launchers.drift_data import Source, find_current, opened
from airflow_dlaws.storage import ObjectStore, S3Uri

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
BUCKET = "bucket"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3", "us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield ObjectStore(client)


def keys(store: ObjectStore, source: Source) -> list[str]:
    athena = boto3.client("athena", "us-east-1")
    return [S3Uri.parse(each.uri).key for each in find_current(store, source, lambda: athena)]


def put(store: ObjectStore, *names: str) -> None:
    for name in names:
        store.write(S3Uri(BUCKET, name), name.encode())


def query(state: str = "SUCCEEDED") -> tuple[str, str]:
    """Run a query that ends so; return its id and the key of its result."""
    athena = boto3.client("athena", "us-east-1")
    result = {"OutputLocation": f"s3://{BUCKET}/athena/"}
    name = athena.start_query_execution(QueryString="SELECT 1", ResultConfiguration=result)["QueryExecutionId"]
    found = athena.get_query_execution(QueryExecutionId=name)["QueryExecution"]
    if state == "CANCELLED":
        athena.stop_query_execution(QueryExecutionId=name)
    return name, S3Uri.parse(found["ResultConfiguration"]["OutputLocation"]).key


def test_the_result_of_a_query_is_one_file_and_not_what_lies_beside_it(store: ObjectStore) -> None:
    name, key = query()
    put(store, key, f"{key}.metadata", "athena/other.csv")
    assert keys(store, Source(athena_query_id=name)) == [key]


def test_a_query_that_did_not_succeed_has_no_result_to_judge(store: ObjectStore) -> None:
    name, key = query("CANCELLED")
    put(store, key)
    with pytest.raises(OutcomeUnacceptable, match="is CANCELLED, not SUCCEEDED"):
        keys(store, Source(athena_query_id=name))


def test_captured_files_are_those_of_the_interval_and_of_the_hour_after_it(store: ObjectStore) -> None:
    hours = [NOON + timedelta(hours=shift) for shift in range(-2, 5)]
    put(store, *(f"capture/e/v/{hour:%Y/%m/%d/%H}/a.jsonl" for hour in hours))
    source = Source(capture=f"s3://{BUCKET}/capture/e/v", start=NOON, end=NOON + timedelta(hours=2))
    assert [key.rpartition("/a")[0][-2:] for key in keys(store, source)] == ["12", "13", "14", "15"]


def test_markers_and_hidden_files_are_no_data(store: ObjectStore) -> None:
    put(store, "data/_SUCCESS", "data/.part.crc", "data/part-0.csv", "data/deep/part-1.csv")
    assert keys(store, Source(locations=(f"s3://{BUCKET}/data/",))) == ["data/deep/part-1.csv", "data/part-0.csv"]


def test_bytes_that_were_replaced_are_not_read_in_place_of_those_that_were_meant(store: ObjectStore) -> None:
    put(store, "data/a.csv")
    (pinned,) = find_current(store, Source(locations=(f"s3://{BUCKET}/data/",)), None)
    with opened(store, pinned) as file:
        assert file.read() == b"data/a.csv"
    store.write(S3Uri(BUCKET, "data/a.csv"), b"others")
    with pytest.raises(ServiceUnavailable, match="was replaced while it was read"), opened(store, pinned):
        pass


def test_a_version_that_was_noted_is_read_though_a_newer_one_is_there(store: ObjectStore) -> None:
    boto3.client("s3", "us-east-1").put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    put(store, "data/a.csv")
    pinned = store.stat(S3Uri(BUCKET, "data/a.csv"))
    store.write(S3Uri(BUCKET, "data/a.csv"), b"others")
    file = io.BytesIO()
    assert store.download_version(pinned, file)
    assert file.getvalue() == b"data/a.csv"


def test_two_places_are_one_too_many() -> None:
    with pytest.raises(SpecificationError, match="in 2 ways"):
        Source(locations=("s3://bucket/a",), athena_query_id="q")
