"""Versions of objects, noted and compared, through moto."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from airflow_dlaws.data.snapshot import DataSnapshot, changes, describe_changes, publish
from airflow_dlaws.errors import ServiceRefused
from airflow_dlaws.jobs import wire
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri

PREFIX = S3Uri("bucket", "flights/")


class Bucket:
    """One bucket, with or without versioning."""

    def __init__(self, client: Any, *, versioned: bool) -> None:
        self.client, self.versioned, self.store = client, versioned, ObjectStore(client)
        client.create_bucket(Bucket="bucket")
        if versioned:
            client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})

    def put(self, name: str, body: bytes) -> str | None:
        answer = self.client.put_object(Bucket="bucket", Key=f"flights/{name}", Body=body)
        return answer.get("VersionId") if self.versioned else None

    def now(self) -> tuple[ObjectVersion, ...]:
        return tuple(versions[0] for versions in self.store.histories(PREFIX).values())


@pytest.fixture(params=[True, False], ids=["versioned", "not versioned"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    with mock_aws():
        yield Bucket(boto3.client("s3", region_name="us-east-1"), versioned=request.param)


def test_the_newest_version_of_each_object_is_noted(bucket: Bucket) -> None:
    bucket.put("month=2013-01/a.csv", b"old")
    newest = bucket.put("month=2013-01/a.csv", b"newer")
    other = bucket.put("month=2013-02/a.csv", b"other")
    bucket.put("month=2013-03/a.csv", b"gone")
    bucket.client.delete_object(Bucket="bucket", Key="flights/month=2013-03/a.csv")
    found = bucket.now()
    assert [(each.uri[-19:], each.version_id, each.size) for each in found] == [
        ("month=2013-01/a.csv", newest, 5),
        ("month=2013-02/a.csv", other, 5),
    ]
    assert all(each == bucket.store.stat(S3Uri.parse(each.uri)) for each in found)


def test_what_was_replaced_or_deleted_is_named_and_what_came_beside_it_is_not(bucket: Bucket) -> None:
    for name in ("month=2013-01/same.csv", "month=2013-01/replaced.csv", "month=2013-02/deleted.csv"):
        bucket.put(name, b"then")
    then = bucket.now()
    assert changes(bucket.store, then) == ()

    bucket.put("month=2013-01/same.csv", b"then")
    bucket.put("month=2013-01/replaced.csv", b"now")
    bucket.put("month=2013-01/new.csv", b"new")
    bucket.client.delete_object(Bucket="bucket", Key="flights/month=2013-02/deleted.csv")
    found = changes(bucket.store, then)
    assert len(found) == 2
    assert any(sentence.startswith("s3://bucket/flights/month=2013-02/deleted.csv is gone") for sentence in found)
    replaced = next(sentence for sentence in found if "replaced.csv" in sentence)
    assert "(4 bytes) and became" in replaced
    assert ("etag" in replaced) is not bucket.versioned
    assert describe_changes(found).count(";") == 1


def test_an_object_that_was_changed_and_changed_back_is_told_where_versions_are_kept(bucket: Bucket) -> None:
    bucket.put("a.csv", b"then")
    then = bucket.now()
    meanwhile = bucket.put("a.csv", b"meanwhile")
    assert changes(bucket.store, then)
    bucket.put("a.csv", b"then")
    found = changes(bucket.store, then)
    if bucket.versioned:
        assert f"became version {meanwhile} (9 bytes)" in found[0]
    else:
        assert found == ()


def test_a_version_that_has_expired_since_is_judged_by_the_newest(bucket: Bucket) -> None:
    bucket.put("a.csv", b"long ago")
    version = bucket.put("a.csv", b"then")
    then = bucket.now()
    bucket.put("a.csv", b"then")
    if version:
        bucket.client.delete_object(Bucket="bucket", Key="flights/a.csv", VersionId=version)
    assert changes(bucket.store, then) == ()
    bucket.put("a.csv", b"now")
    assert len(changes(bucket.store, then)) == 1


def test_a_snapshot_is_read_back_as_it_was_published(bucket: Bucket) -> None:
    bucket.put("month=2013-01/a.csv", b"1")
    bucket.put("month=2013-02/a.csv", b"2")
    first, second = bucket.now()
    snapshot = DataSnapshot(
        training_months=("2013-01",),
        evaluation_month="2013-02",
        training=(first,),
        evaluation=(second,),
        versioned=bucket.versioned,
        taken_at=datetime(2013, 3, 1, tzinfo=UTC),
    )
    chosen = publish(bucket.store, S3Uri("bucket", "runs/1"), snapshot)
    assert wire.from_json(DataSnapshot, bucket.store.read_json(S3Uri.parse(chosen.snapshot))) == snapshot
    assert bucket.store.read_json(S3Uri.parse(chosen.train)) == [
        {"prefix": "s3://bucket/"},
        "flights/month=2013-01/a.csv",
    ]
    assert bucket.store.read_json(S3Uri.parse(chosen.evaluate))[1:] == ["flights/month=2013-02/a.csv"]


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket) -> None:
    with pytest.raises(ServiceRefused, match="cannot list the versions under s3://no-such-bucket/"):
        bucket.store.histories(S3Uri("no-such-bucket", "a"))
