"""What the log says when a job moves on."""

from __future__ import annotations

from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.jobs.story import JobStory


def test_each_state_is_told_once_and_again_when_it_comes_again() -> None:
    story = JobStory()
    states = ["Starting", "Starting", "Training", "Interrupted", "Starting", "Training", "Training"]
    told = [story.take(JobStatus(phase=JobPhase.RUNNING, detail=state)) for state in states]
    assert [bool(line) for line in told] == [True, False, True, True, True, True, False]
    assert told[0] == "Job: Starting (waiting for instances)"
    assert told[2] == "Job: Training"
    assert "goes on from the last checkpoint" in str(told[3])


def test_what_is_not_known_or_has_ended_is_not_told_here() -> None:
    story = JobStory()
    assert story.take(None) is None
    assert story.take(JobStatus(phase=JobPhase.RUNNING)) is None
    assert story.take(JobStatus(phase=JobPhase.STOPPED, detail="MaxWaitTimeExceeded")) is None
