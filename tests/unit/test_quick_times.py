"""Times of AWS answers are those that botocore reads, in UTC, at less cost."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.loaders import JSONFileLoader
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.hooks.sessions import hook_class, parsed_time


@given(st.floats(0, 4e9) | st.integers(0, 4_000_000_000))
def test_seconds_are_read_as_botocore_reads_them(seconds: float) -> None:
    assert parsed_time(seconds) == parse_timestamp(seconds)
    assert parsed_time(seconds).tzinfo is UTC


@pytest.mark.parametrize("text", ["2026-11-28T21:00:00Z", "Sat, 28 Nov 2026 21:00:00 GMT", "1795900000", 1e11])
def test_everything_else_is_left_to_botocore(text: object) -> None:
    assert parsed_time(text) == parse_timestamp(text)


def test_clients_of_the_hook_parse_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    session = hook_class()(aws_conn_id=None, client_type="sagemaker", region_name="us-east-1").get_session()
    parser = session._session.get_component("response_parser_factory").create_parser("json")
    shape = session.client("sagemaker", aws_access_key_id="a", aws_secret_access_key="b").meta.service_model
    shape = shape.operation_model("DescribeTrainingJob").output_shape
    found = parser.parse({"body": b'{"CreationTime": 1795900000.25}', "headers": {}, "status_code": 200}, shape)
    assert found["CreationTime"] == datetime.fromtimestamp(1795900000.25, UTC)
    assert found["CreationTime"].tzinfo is UTC


def test_clients_of_two_hooks_read_the_endpoints_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(Path(botocore.__file__).parent / "data/sts", tmp_path / "sts-of-ours")
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    read = []

    def load(self: JSONFileLoader, path: str, loads: Any = JSONFileLoader.load_file) -> Any:
        found = loads(self, path)
        read.extend([Path(path).name] if found else [])
        return found

    monkeypatch.setattr(JSONFileLoader, "load_file", load)
    for _ in range(2):
        session = hook_class()(aws_conn_id=None, client_type="sts", region_name="us-east-1").get_session()
        session.client("sts-of-ours", aws_access_key_id="a", aws_secret_access_key="b")
    assert read.count("endpoints") == read.count("service-2") == 1
