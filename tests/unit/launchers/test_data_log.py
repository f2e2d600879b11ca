"""The data log of a transform job is read in the form in which users have published it."""

from __future__ import annotations

from airflow_dlaws.launchers.data_log import parse
from airflow_dlaws.storage import S3Uri

STAMP = "2023-03-29T13:16:50.813:[sagemaker logs]: "


def test_the_words_of_the_container_are_kept_by_object() -> None:
    log = parse(
        STAMP + line
        for line in (
            "MaxConcurrentTransforms=1, MaxPayloadInMB=2, BatchStrategy=SINGLE_RECORD",
            "bucket-1/in/a.csv: ClientError: 400",
            "bucket-1/in/a.csv: ",
            "bucket-1/in/a.csv: Message:",
            "bucket-1/in/a.csv: row 2: dep_delay is 'abc'",
            "bucket-1/in/b.csv: Bad HTTP status received from algorithm: 500",
            "bucket-1/in/c d.csv: Unable to get response from algorithm",
        )
    )
    assert log.words == {
        S3Uri("bucket-1", "in/a.csv"): "row 2: dep_delay is 'abc'",
        S3Uri("bucket-1", "in/b.csv"): "Bad HTTP status received from algorithm: 500",
        S3Uri("bucket-1", "in/c d.csv"): "Unable to get response from algorithm",
    }
    assert (log.requests.payload_bytes, log.requests.single_record) == (2 * 1024 * 1024, True)


def test_a_log_without_a_header_has_the_defaults_of_the_service() -> None:
    log = parse(["what a container prints", ""])
    assert log.words == {}
    assert (log.requests.payload_bytes, log.requests.single_record) == (6 * 1024 * 1024, False)
