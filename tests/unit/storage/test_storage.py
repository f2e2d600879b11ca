"""S3 through moto: reading, listing, and the conditional writes that state needs."""

from __future__ import annotations

import io
from collections.abc import Iterator

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable, SpecificationError
from airflow_dlaws.storage import ObjectStore, S3Uri

BUCKET = S3Uri("bucket")


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """A store with one bucket."""
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        yield ObjectStore(client)


@given(key=st.text(min_size=1, max_size=50))
def test_a_location_is_read_back_from_its_text(key: str) -> None:
    assert S3Uri.parse(str(S3Uri("bucket", key))) == S3Uri("bucket", key)


@pytest.mark.parametrize(
    "text", ["", "bucket/key", "s3://", "s3:///key", "s3://Bucket/key", "s3://b/key", "https://b/k"]
)
def test_what_is_no_location_is_refused_by_name(text: str) -> None:
    with pytest.raises(SpecificationError, match="s3://bucket/key"):
        S3Uri.parse(text)


def test_locations_join_and_have_parents() -> None:
    assert str(S3Uri("bucket") / "a" / "b.json") == "s3://bucket/a/b.json"
    assert str(S3Uri("bucket", "a/") / "b") == "s3://bucket/a/b"
    assert str(S3Uri.parse("s3://bucket/a/b.json").parent) == "s3://bucket/a"


def test_what_is_written_is_read_back(store: ObjectStore) -> None:
    store.write(BUCKET / "plain", b"\x00\x01")
    store.write_json(BUCKET / "document", {"b": [1, None], "a": "ü"})
    assert store.read(BUCKET / "plain") == b"\x00\x01"
    assert store.read_json(BUCKET / "document") == {"a": "ü", "b": [1, None]}


def test_a_missing_object_or_bucket_is_refused_by_name(store: ObjectStore) -> None:
    with pytest.raises(ServiceRefused, match="s3://bucket/missing: NoSuchKey"):
        store.read(BUCKET / "missing")
    with pytest.raises(ServiceRefused, match="s3://no-such-bucket/x: NoSuchBucket"):
        store.read(S3Uri("no-such-bucket", "x"))
    with pytest.raises(ServiceRefused, match="cannot list s3://no-such-bucket/"):
        list(store.list(S3Uri("no-such-bucket")))


@pytest.mark.parametrize(("code", "status"), [("SlowDown", 503), ("InternalError", 500)])
def test_what_s3_cannot_serve_now_it_may_serve_the_next_time(code: str, status: int) -> None:
    """A model that has been paid for is not given up because of one busy moment."""
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )
    body = io.BytesIO(f"<Error><Code>{code}</Code><Message>later</Message></Error>".encode())
    body.stream = lambda **_: iter([body.getvalue()])  # type: ignore[attr-defined]
    client.meta.events.register_first("before-send.s3", lambda **_: AWSResponse("", status, {}, body))
    busy = ObjectStore(client)
    for ask in (lambda: busy.stat(BUCKET / "model.tar.gz"), lambda: list(busy.list(BUCKET))):
        with pytest.raises(ServiceUnavailable, match="s3://bucket/"):
            ask()


def test_create_stores_only_what_is_not_there(store: ObjectStore) -> None:
    assert store.create(BUCKET / "lock", b"first")
    assert not store.create(BUCKET / "lock", b"second")
    assert store.read(BUCKET / "lock") == b"first"


def test_replace_loses_against_a_newer_write(store: ObjectStore) -> None:
    etag = store.write(BUCKET / "state", b"1")
    assert store.replace(BUCKET / "state", b"2", etag=etag)
    assert not store.replace(BUCKET / "state", b"3", etag=etag)
    assert store.read(BUCKET / "state") == b"2"


def test_existence_is_told_for_objects_and_for_missing_buckets(store: ObjectStore) -> None:
    store.write(BUCKET / "there", b"")
    assert store.exists(BUCKET / "there")
    store.delete(BUCKET / "there")
    store.delete(BUCKET / "there")
    assert not store.exists(BUCKET / "there")
    assert not store.exists(S3Uri("no-such-bucket", "x"))


def test_a_listing_goes_on_behind_a_key(store: ObjectStore) -> None:
    for name in ("a", "b", "c"):
        store.write(BUCKET / "list" / name, name.encode())
    names = [row.uri.key for row in store.list(BUCKET / "list/")]
    assert names == ["list/a", "list/b", "list/c"]
    assert [row.uri.key for row in store.list(BUCKET / "list/", start_after="list/a")] == ["list/b", "list/c"]
    assert [row.size for row in store.list(BUCKET / "list/")] == [1, 1, 1]
