import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift.lines import capped_lines


@given(
    st.lists(st.sampled_from([b"", b"\n", b"a", b"bc\n", b"def", b"\n\n", b"ghijk\nl"]), max_size=30), st.integers(1, 6)
)
def test_lines_are_those_of_the_whole_file_however_it_is_cut(pieces, limit):
    whole = b"".join(pieces)
    lines = whole.split(b"\n")
    wanted = lines if lines[-1] else lines[:-1]
    assert list(capped_lines(pieces, limit)) == [line if len(line) <= limit else None for line in wanted]


@pytest.mark.parametrize("piece", [b"x" * 100_000, b"x" * 99_999 + b"\n"])
def test_memory_is_bounded_whatever_the_length_of_a_line_or_file(piece):
    tracemalloc.start()
    lines = sum(1 for line in capped_lines((bytes(piece) for _ in range(2000)), 300_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines in (1, 2000)
    assert peak < 2_000_000  # of 200 MB
