"""Log lines are read while the file grows, and metrics are found in them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.jobs.metric_line import format_line, metric_regex
from airflow_dlaws.local.job_logs import LogFile, MetricReader


def test_a_line_is_given_out_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(path)
    assert log.new_lines() == []
    path.write_bytes(b"one\ntw")
    assert log.new_lines() == ["one"]
    path.write_bytes(b"one\ntwo\r\nthree")
    assert log.new_lines() == ["two"]
    assert log.new_lines(last=True) == ["three"]
    assert log.new_lines(last=True) == []


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_no_byte_is_lost_however_the_writes_fall(tmp_path_factory: object, chunks: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "log"  # type: ignore[attr-defined]
    log, lines = LogFile(path), []
    for chunk in chunks:
        with path.open("ab") as file:
            file.write(chunk)
        lines += log.new_lines()
    lines += log.new_lines(last=True)
    whole = b"".join(chunks).split(b"\n")
    whole = whole if whole[-1] else whole[:-1]
    assert lines == [line.decode(errors="replace").rstrip("\r") for line in whole]


def test_the_metrics_of_our_own_metric_line_are_found() -> None:
    reader = MetricReader([{"Name": "validation:loss", "Regex": metric_regex("validation:loss")}])
    lines = [format_line({"epoch": 1, "validation:loss": 0.5}), "noise", format_line({"validation:loss": 1e-05})]
    assert reader.read(lines) == [("validation:loss", 0.5), ("validation:loss", 1e-05)]


def test_what_is_no_number_is_no_metric() -> None:
    reader = MetricReader([{"Name": "loss", "Regex": "loss=(\\S+)"}, {"Name": "groupless", "Regex": "loss"}])
    assert reader.read(["loss=low", "loss=0.25"]) == [("loss", 0.25)]
