"""What the shared poller asks: every end is noticed once and in time, for a number of calls that does not grow."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listed_account import Account, AccountJob, Watch, moment

from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.launchers.job_list import ListPage
from airflow_dlaws.launchers.poll_plan import FEW_JOBS, HOPS, LOOKS_PER_MINUTE, Describe, ListJobs, PollPlan

INTERVAL = 30.0
#: Looks that a round may cost in the long run, and at most.
PER_ROUND, BURST = 1 + LOOKS_PER_MINUTE * INTERVAL / 60, 1 + LOOKS_PER_MINUTE


def watch(jobs: list[AccountJob], ours: list[str], *, filters_late: bool = False) -> Watch:
    plan = PollPlan(random.Random(0))
    for name in ours:
        plan.add(name)
    return Watch(Account({job.name: job for job in jobs}, filters_late=filters_late), plan, INTERVAL)


def waiting(count: int, *, spacing: float = 7.0) -> list[AccountJob]:
    return [AccountJob(f"ours-{number}", number * spacing) for number in range(count)]


def strangers(count: int, *, spacing: float = 1.4, first: float = 0.5) -> list[AccountJob]:
    return [AccountJob(f"theirs-{number}", first + number * spacing) for number in range(count)]


def run(looked: Watch, *, rounds: int, start: float = 8_000.0) -> None:
    for number in range(rounds):
        looked.round(start + number * INTERVAL)


@pytest.mark.parametrize("count", [1, FEW_JOBS])
def test_few_jobs_are_described_at_each_interval_and_the_list_is_left_alone(count: int) -> None:
    jobs = waiting(count)
    looked = watch(jobs + strangers(500), [job.name for job in jobs])
    run(looked, rounds=4)
    assert looked.calls_in_round == [count] * 4


def test_a_thousand_jobs_cost_no_more_calls_than_two_hundred() -> None:
    costs = {}
    for count in (200, 1000):
        jobs = waiting(count)
        looked = watch(jobs, [job.name for job in jobs])
        run(looked, rounds=24)
        costs[count] = sum(looked.calls_in_round[4:]) / 10
    assert costs[200] <= 6  # a minute
    assert costs[1000] <= 2 * PER_ROUND + 1


def test_the_end_of_any_of_a_thousand_jobs_is_noticed_within_two_intervals() -> None:
    jobs = waiting(1000)
    looked = watch(jobs, [job.name for job in jobs])
    run(looked, rounds=4)
    start = 8_000 + 4 * INTERVAL
    for number, job in enumerate(random.Random(1).sample(jobs, 40)):
        job.ends = start + number * 10
    run(looked, rounds=20, start=start)
    late = [looked.noticed[job.name] - job.ends for job in jobs if job.ends < math.inf]
    assert len(late) == 40
    assert max(late) <= 2 * INTERVAL


def test_five_thousand_jobs_of_others_from_before_and_after_cost_nothing() -> None:
    jobs = waiting(300)
    others = strangers(2500, spacing=0.1, first=-5_000) + strangers(2500, spacing=0.1, first=3_000)
    looked = watch(jobs + others, [job.name for job in jobs])
    run(looked, rounds=20)
    assert max(looked.calls_in_round[4:]) <= 5


def test_among_five_times_as_many_jobs_of_others_the_calls_stay_within_the_budget_and_ends_are_noticed() -> None:
    jobs = waiting(1000)
    looked = watch(jobs + strangers(5000), [job.name for job in jobs])
    run(looked, rounds=16)
    start = 8_000 + 16 * INTERVAL
    jobs[17].ends = jobs[611].ends = start
    run(looked, rounds=16, start=start)
    assert max(looked.calls_in_round) <= BURST + 2
    assert sum(looked.calls_in_round[16:]) <= 16 * PER_ROUND + 2
    assert set(looked.noticed) == {"ours-17", "ours-611"}
    # 60 pages, 9 a round.
    assert max(looked.noticed.values()) <= start + 8 * INTERVAL


def test_a_triggerer_that_restarts_finds_its_jobs_in_a_page_for_each_hundred() -> None:
    jobs = waiting(1000)
    for job in jobs[:300]:
        job.ends = 7_500
    looked = watch(jobs, [job.name for job in jobs])
    run(looked, rounds=1)
    assert len(looked.noticed) == 300
    assert looked.account.calls <= 12 + 300


def test_a_job_that_the_list_hides_is_described() -> None:
    jobs = waiting(50)
    jobs[20].hidden_until = math.inf
    looked = watch(jobs, [job.name for job in jobs])
    run(looked, rounds=3)
    jobs[20].ends = 8_000 + 3 * INTERVAL
    run(looked, rounds=2, start=8_000 + 3 * INTERVAL)
    assert looked.noticed["ours-20"] <= jobs[20].ends + INTERVAL


def test_a_list_that_is_ahead_of_describe_is_not_believed() -> None:
    jobs = waiting(50)
    jobs[3].ends, jobs[3].lag = 8_100, -200
    looked = watch(jobs, [job.name for job in jobs])
    run(looked, rounds=3)
    assert looked.noticed == {}
    run(looked, rounds=2, start=8_100)
    assert list(looked.noticed) == ["ours-3"]


def test_more_jobs_of_one_second_than_a_page_holds_are_all_seen() -> None:
    jobs = [AccountJob(f"ours-{number}", 100.0 + number / 1000) for number in range(350)]
    looked = watch(jobs, [job.name for job in jobs])
    run(looked, rounds=3)
    for job in jobs:
        job.ends = 8_000 + 3 * INTERVAL
    run(looked, rounds=3, start=8_000 + 3 * INTERVAL)
    assert len(looked.noticed) == 350


def test_throttling_slows_down_and_good_answers_speed_up_by_and_by() -> None:
    plan = PollPlan(random.Random(0))
    plan.add("job")
    waits = []
    for _ in range(5):
        plan.begin(0.0)
        plan.unavailable()
        assert plan.next_step(0.0) is None
        waits.append(plan.wait(30))
    assert waits[-1] == pytest.approx(30 * 8, rel=0.1)
    for number in range(20):
        plan.begin(number)
        plan.described("job", JobStatus(phase=JobPhase.RUNNING), number)
    assert plan.wait(30) == pytest.approx(30, rel=0.1)


def test_who_may_not_list_describes_in_turns() -> None:
    jobs = waiting(40)
    looked = watch(jobs, [job.name for job in jobs])
    plan, now = looked.plan, 8_000.0
    for _ in range(3):
        plan.begin(now)
        step = plan.next_step(now)
        assert isinstance(step, ListJobs)
        assert plan.refused(step, now) is False
        assert plan.next_step(now) is None
    for job in jobs:
        job.ends = now
    run(looked, rounds=8, start=now + INTERVAL)
    assert len(looked.noticed) == 40


def test_a_job_whose_description_stays_refused_is_lost_and_others_are_not() -> None:
    plan = PollPlan(random.Random(0))
    plan.add("gone")
    plan.add("there")
    lost = []
    for number in range(1, 4):
        plan.begin(number)
        while step := plan.next_step(number):
            assert isinstance(step, Describe)
            if step.name == "gone":
                lost.append(plan.refused(step, number))
            else:
                plan.described("there", JobStatus(phase=JobPhase.RUNNING), number)
    assert lost == [False, False, True]


def test_one_refusal_between_good_answers_is_forgiven() -> None:
    plan = PollPlan(random.Random(0))
    plan.add("job")
    for number in range(1, 11):
        plan.begin(number)
        step = plan.next_step(number)
        assert step is not None
        if number % 2:
            assert plan.refused(step, number) is False
        else:
            plan.described("job", JobStatus(phase=JobPhase.RUNNING), number)


def test_an_empty_page_behind_a_jobs_own_time_is_followed_and_then_given_up() -> None:
    plan = PollPlan(random.Random(0))
    for name in ("a", "b", "c", "d"):
        plan.add(name)
        plan.described(name, JobStatus(phase=JobPhase.RUNNING, created_at=moment(0)), 1.0)
    plan.begin(100)
    hops = 0
    while isinstance(step := plan.next_step(100), ListJobs):
        plan.listed(step, ListPage(rows=(), token="more"), 100)
        hops += 1
    assert hops == HOPS + 1
    assert isinstance(step, Describe)


@st.composite
def accounts(draw: st.DrawFn) -> tuple[list[AccountJob], list[AccountJob], bool]:
    ours = [
        AccountJob(
            f"ours-{number}",
            created=draw(st.floats(0, 7_000)),
            ends=draw(st.one_of(st.just(math.inf), st.floats(6_000, 12_000))),
            lag=draw(st.sampled_from([0.0, 0.0, 45.0, -45.0])),
            hidden_until=draw(st.sampled_from([-math.inf, -math.inf, 9_000.0, math.inf])),
        )
        for number in range(draw(st.integers(1, 60)))
    ]
    others = strangers(draw(st.integers(0, 700)), spacing=draw(st.floats(0.05, 20)))
    return ours, others, draw(st.booleans())


@settings(max_examples=40, deadline=None)
@given(accounts(), st.integers(0, 2**16))
def test_in_any_account_each_end_is_noticed_once_within_bounded_calls(
    account: tuple[list[AccountJob], list[AccountJob], bool], seed: int
) -> None:
    ours, others, filters_late = account
    looked = watch(ours + others, [], filters_late=filters_late)
    chance, now, rounds = random.Random(seed), 6_000.0, 0
    joins = {job.name: 6_000 + chance.choice([0.0, 0.0, 500.0, 2_000.0]) for job in ours}
    joined: set[str] = set()
    while now < 12_000:
        for name in [name for name, at in joins.items() if at <= now and name not in joined]:
            joined.add(name)
            looked.plan.add(name)
        looked.round(now)
        now, rounds = now + INTERVAL, rounds + 1
    # At worst every look at a job costs a page, its hops and a description, and the list lags behind.
    turn = math.ceil(len(ours) * (HOPS + 3) / PER_ROUND)
    for job in ours:
        if max(job.ends, joins[job.name]) + (turn + 3) * INTERVAL + job.lag < now:
            assert looked.noticed[job.name] >= job.ends
            late = looked.noticed[job.name] - max(job.ends, joins[job.name])
            assert late <= (turn + 2) * INTERVAL + max(0.0, job.lag)
    ends = sum(looked.ends_in_round)
    early = len(ours)  # a list that is ahead has a job described once a round until it is right
    assert sum(looked.calls_in_round) <= BURST + rounds * PER_ROUND + ends + early * 2 + FEW_JOBS * rounds
