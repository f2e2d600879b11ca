"""Process sessions are found and ended with everything they forked."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from airflow_dlaws.local.sessions import Session, end_sessions, free_ports

#: A parent that forks one ordinary child and one that opens a session of its own, ignores SIGTERM and waits.
FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for own_session in (False, True):
    if os.fork() == 0:
        if own_session:
            os.setsid()
        time.sleep(600)
open(sys.argv[1], "w").write("ready")
time.sleep(600)
"""


def start_family(tmp_path: Path) -> Session:
    ready = tmp_path / "ready"
    process = subprocess.Popen([sys.executable, "-c", FAMILY, str(ready)], start_new_session=True)
    deadline = time.monotonic() + 10
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return Session.of(process.pid)


def test_ending_a_session_ends_children_in_sessions_of_their_own_too(tmp_path: Path) -> None:
    session = start_family(tmp_path)
    assert len(session.members()) == 3
    end_sessions([session], grace_s=0.2)
    assert session.members() == set()
    assert not session.alive()


def test_a_session_number_that_was_given_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    session = start_family(tmp_path)
    earlier = Session(session.sid, session.leader_started - 1)
    assert earlier.members() == set()
    end_sessions([earlier], grace_s=0)
    assert session.alive()
    end_sessions([Session.from_json(session.to_json())], grace_s=0)
    assert not session.alive()


def test_free_ports_are_distinct() -> None:
    assert len(set(free_ports(5))) == 5
