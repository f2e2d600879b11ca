"""What can be known for nothing is refused before a job is created."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.spec import Channel, ChannelKind, TrainingSpec
from airflow_dlaws.launchers.preflight import check_instance_type, check_locations


def spec(*channels: Channel, **changes: Any) -> TrainingSpec:
    fields: dict[str, Any] = {
        "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
        "source": "/code",
        "entry_point": "train.py",
        "output_s3_uri": "s3://bucket/models",
        "role_arn": "arn:aws:iam::123456789012:role/dlaws",
        "instance_type": "ml.m5.large",
        "channels": channels,
    }
    return TrainingSpec(**{**fields, **changes})


def test_locations_with_data_are_accepted(aws: Any) -> None:
    aws("s3").put_object(Bucket="bucket", Key="data/part-0", Body=b"1")
    aws("s3").put_object(Bucket="bucket", Key="lists/a.manifest", Body=b"[]")
    prefix = Channel(name="train", uri="s3://bucket/data")
    manifest = Channel(name="test", uri="s3://bucket/lists/a.manifest", kind=ChannelKind.MANIFEST)
    check_locations(aws("s3"), spec(prefix, manifest))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"output_s3_uri": "s3://no-such-bucket/x"}, "output_s3_uri='s3://no-such-bucket/x': bucket 'no-such-bucket'"),
        (
            {"spot": True, "max_wait_s": 86400, "checkpoint_s3_uri": "s3://no-such-bucket/c"},
            "checkpoint_s3_uri='s3://no-such-bucket/c': bucket 'no-such-bucket' does not exist",
        ),
        (
            {"channels": (Channel(name="train", uri="s3://no-such-bucket/x"),)},
            "channel 'train'='s3://no-such-bucket/x': bucket 'no-such-bucket' does not exist",
        ),
        (
            {"channels": (Channel(name="train", uri="s3://bucket/empty/"),)},
            "channel 'train'='s3://bucket/empty/' has no objects",
        ),
        (
            {"channels": (Channel(name="train", uri="s3://bucket/x.manifest", kind=ChannelKind.MANIFEST),)},
            "channel 'train'='s3://bucket/x.manifest': there is no such manifest",
        ),
    ],
)
def test_a_location_that_cannot_work_is_refused_by_name(aws: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        check_locations(aws("s3"), spec(**fields))
    assert words in str(refused.value)


def test_a_prefix_with_only_a_folder_marker_is_empty(aws: Any) -> None:
    aws("s3").put_object(Bucket="bucket", Key="marked/", Body=b"")
    with pytest.raises(SpecificationError, match="has no objects"):
        check_locations(aws("s3"), spec(Channel(name="train", uri="s3://bucket/marked/")))


def test_data_behind_the_markers_of_folders_in_folders_are_found(aws: Any) -> None:
    for key in ("months/", "months/2026/", "months/2026/11/"):
        aws("s3").put_object(Bucket="bucket", Key=key, Body=b"")
    aws("s3").put_object(Bucket="bucket", Key="months/2026/11/rows.csv", Body=b"1")
    check_locations(aws("s3"), spec(Channel(name="train", uri="s3://bucket/months/")))


def test_an_unknown_instance_type_is_refused_with_close_names(aws: Any) -> None:
    check_instance_type(aws("sagemaker"), "ml.g5.xlarge")
    with pytest.raises(SpecificationError, match=r"instance_type='ml.g5.xlrage' .*did you mean ml.g5.xlarge"):
        check_instance_type(aws("sagemaker"), "ml.g5.xlrage")
