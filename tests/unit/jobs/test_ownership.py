"""Whose a running job is: what must never be called an orphan, and what always is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.jobs.identity import NAME_LIMIT, TaskIdentity
from airflow_dlaws.jobs.ownership import (
    ENDED_STATES,
    LIVE_STATES,
    JobClaim,
    TaskAnswer,
    Verdict,
    before_asking,
    claim_of,
    judge_ownership,
)
from airflow_dlaws.launchers.job_tags import job_tags

AIRFLOW = "https://airflow.example.com"
GRACE = timedelta(minutes=2)
OLD = timedelta(hours=1)
#: Airflow's own rules for the names of runs and of DAGs and tasks.
run_ids = st.from_regex(r"[A-Za-z0-9_.~:+-]{1,60}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True)
identities = st.builds(
    TaskIdentity,
    dag_id=names,
    run_id=run_ids,
    task_id=names,
    map_index=st.integers(-1, 20),
    clear_marker=st.integers(0, 9),
    deployment=st.just(AIRFLOW),
)
answers = st.builds(
    TaskAnswer,
    state=st.sampled_from([*LIVE_STATES, *ENDED_STATES, "a state of the future"]),
    max_tries=st.integers(0, 9),
)


def tags_of(identity: TaskIdentity, attempt: int = 1) -> dict[str, str]:
    """Return the tags that a job of the task is created with."""
    return {tag["Key"]: tag["Value"] for tag in job_tags({"team": "a"}, identity, "digest", attempt)}


def claim(**changes: object) -> JobClaim:
    """Return the claim of a job."""
    fields: dict[str, object] = {"dag_id": "d", "run_id": "r", "task_id": "t", "clear_marker": 2}
    return JobClaim(identity=TaskIdentity(**{**fields, "deployment": AIRFLOW, **changes}))  # type: ignore[arg-type]


@given(identities, st.integers(1, 50))
def test_a_claim_is_exact_only_if_its_tags_hold_the_whole_identity(identity: TaskIdentity, attempt: int) -> None:
    name = identity.name("digest", attempt=attempt)
    read = claim_of(tags_of(identity, attempt), name, limit=NAME_LIMIT)
    assert read is not None
    assert read.exact == (read.identity == identity)
    assert read.exact or "~" in identity.run_id


def test_a_trial_is_its_sweeps() -> None:
    trial = TaskIdentity(dag_id="d", run_id="r", task_id="sweep:12", clear_marker=1, deployment=AIRFLOW)
    read = claim_of(tags_of(trial), trial.name("digest"), limit=NAME_LIMIT)
    assert read is not None
    assert (read.identity.task_id, read.trial, read.exact) == ("sweep", "12", True)


@pytest.mark.parametrize("tag", ["dlaws:dag", "dlaws:run", "dlaws:clear-marker", "dlaws:digest", "dlaws:deployment"])
def test_a_job_without_one_of_the_tags_is_nobodys_to_tell(tag: str) -> None:
    tags = tags_of(claim().identity)
    del tags[tag]
    assert claim_of(tags, "any", limit=NAME_LIMIT) is None
    told = before_asking(None, age=OLD, grace=GRACE, deployment=AIRFLOW)
    assert told is not None
    assert told.verdict is Verdict.UNKNOWN


def test_a_job_that_borrowed_its_tags_is_not_judged() -> None:
    identity = claim().identity
    read = claim_of(tags_of(identity), "somebody-elses-job", limit=NAME_LIMIT)
    told = before_asking(read, age=OLD, grace=GRACE, deployment=AIRFLOW)
    assert told is not None
    assert told.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("deployment", ["https://other.example.com", "", None])
def test_jobs_of_another_airflow_are_not_judged(deployment: str | None) -> None:
    told = before_asking(claim(), age=OLD, grace=GRACE, deployment=deployment)
    assert told is not None
    assert told.verdict is Verdict.FOREIGN


@pytest.mark.parametrize(
    "everybodys",
    ["http://localhost:8080", "http://127.0.0.1:8080/", "http://[::1]:8080", "http://0.0.0.0:80", "airflow"],
)
def test_a_job_of_an_airflow_that_calls_itself_as_others_do_is_not_judged(everybodys: str) -> None:
    told = before_asking(claim(deployment=everybodys), age=OLD, grace=GRACE, deployment=everybodys)
    assert told is not None
    assert told.verdict is Verdict.UNKNOWN
    assert "--deployment" in told.reason
    asked = before_asking(claim(deployment=everybodys), age=OLD, grace=GRACE, deployment=everybodys, vouched=True)
    assert asked is None, "a person has said that there is one only"


def test_a_job_of_an_airflow_without_a_base_url_is_never_judged() -> None:
    told = before_asking(claim(deployment=""), age=OLD, grace=GRACE, deployment="", vouched=True)
    assert told is not None
    assert told.verdict is Verdict.UNKNOWN


def test_a_slash_at_the_end_makes_no_other_airflow() -> None:
    assert before_asking(claim(), age=OLD, grace=GRACE, deployment=f"{AIRFLOW}/") is None


def test_a_young_job_is_not_judged() -> None:
    told = before_asking(claim(), age=GRACE - timedelta(seconds=1), grace=GRACE, deployment=AIRFLOW)
    assert told is not None
    assert told.verdict is Verdict.YOUNG
    assert before_asking(claim(), age=GRACE, grace=GRACE, deployment=AIRFLOW) is None


@given(st.integers(0, 9), answers)
def test_a_job_is_an_orphan_only_if_its_life_has_ended(marker: int, answer: TaskAnswer) -> None:
    verdict = judge_ownership(claim(clear_marker=marker), answer).verdict
    same_life = answer.max_tries == marker
    if same_life and answer.state in LIVE_STATES:
        assert verdict is Verdict.OWNED
    elif same_life and answer.state not in ENDED_STATES:
        assert verdict is Verdict.UNKNOWN
    else:
        assert verdict is Verdict.ORPHAN


@pytest.mark.parametrize("missing", ["run", "task instance"])
def test_the_job_of_a_deleted_run_is_an_orphan(missing: str) -> None:
    told = judge_ownership(claim(), TaskAnswer(missing=missing))
    assert told.verdict is Verdict.ORPHAN
    assert missing in told.reason


def test_a_task_that_waits_for_its_retry_will_adopt_its_job() -> None:
    told = judge_ownership(claim(clear_marker=2), TaskAnswer(state="up_for_retry", max_tries=2))
    assert told.verdict is Verdict.OWNED
