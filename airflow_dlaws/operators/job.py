"""One task, one job: the part that all operators share which run a job and wait for it.

A subclass says what the job is (`specification`) and what it hands on (`result`). This class starts or adopts the job,
waits for it in the triggerer or in the worker, and sees to it that no paid job runs on unnoticed after its task failed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from airflow_dlaws._compat import FAILED_TRIGGER_METHOD, TRIGGER_TIMED_OUT, Context
from airflow_dlaws.errors import DlawsError, JobFailed, NoCapacity, SpecificationError
from airflow_dlaws.jobs.failure import NO_CAPACITY
from airflow_dlaws.jobs.outcome import failure_message, judge
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.progress import PROGRESS_XCOM, ProgressReports, document, sentence
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.jobs.shortage import LONGEST_WAIT_S, Shortage, next_try
from airflow_dlaws.jobs.spec import JobSpec
from airflow_dlaws.jobs.story import JobStory
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.watch import JobWatch
from airflow_dlaws.links.aws import (
    ConsoleLink,
    LogsLink,
    ProgressLink,
    logs_console_url,
    progress_url,
    sagemaker_console_url,
)
from airflow_dlaws.operators.base import airflow_errors, identity_of
from airflow_dlaws.operators.kept_job import KeptJob
from airflow_dlaws.triggers.job import JobEvent, JobEventKind, JobTrigger
from airflow_dlaws.triggers.pause import PauseTrigger

#: Waiting for machines, pulling the image and uploading come on top of the job's own limit.
DEADLINE_MARGIN = timedelta(hours=1)
#: The scheduler's own timeout of the deferral is only there for a triggerer that is gone: the trigger comes first.
TRIGGER_GRACE = timedelta(minutes=10)
#: Enough for a traceback, short enough for an e-mail.
LINES_IN_MESSAGE = 20
_JOB_XCOM = "dlaws_job"
_SHORTAGE_XCOM = "dlaws_shortage"


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """A job that has succeeded, and how the task came by it."""

    reference: JobReference
    status: JobStatus
    adopted: bool
    attempt: int


class JobOperator(KeptJob):
    """Runs one job, which a retry adopts and a clear renews.

    :param deferrable: wait in the triggerer (no worker slot), or in the worker.
    :param poll_interval: seconds between looks at the job.
    :param timeout: time from the job's creation after which it is stopped and the task fails; by default the job's
        own limit plus an hour.
    :param stop_on_kill: stop the job when the task is marked, cleared, deleted or killed.
    :param capacity_wait: where there are no instances, keep asking for so long, from a minute to half an hour apart,
        without a worker slot and without using up retries. Without it, missing capacity fails the try, and Airflow's
        `retries`, `retry_delay` and `retry_exponential_backoff` say what comes next.
    :param progress_interval: seconds between two reports of the job's progress, in the log and as the XCom `progress`.
    """

    operator_extra_links = (ConsoleLink(), LogsLink(), ProgressLink())

    def __init__(
        self,
        *,
        deferrable: bool = True,
        poll_interval: float = 30,
        timeout: timedelta | None = None,
        stop_on_kill: bool = True,
        capacity_wait: timedelta | None = None,
        progress_interval: float = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.poll_interval = _checked_interval("poll_interval", poll_interval)
        self.timeout = _checked_timeout(timeout)
        self.stop_on_kill = stop_on_kill
        self.capacity_wait = _checked_wait(capacity_wait)
        self.progress_interval = progress_interval

    def specification(self, context: Context) -> JobSpec:
        """Say what the job is. Called once the templates are rendered; may raise SpecificationError."""
        raise NotImplementedError

    def result(self, context: Context, outcome: JobOutcome) -> Any:
        """Say what the task hands on: small, JSON. May raise, if what the job left behind is not what was asked for."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Start or adopt the job, then wait for it."""
        with airflow_errors(), self._no_job_left_behind(context):
            return self._run(context)

    def ask_again(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Go on after a pause for want of instances."""
        return self.execute(context)

    def _run(self, context: Context, *, shortage: NoCapacity | None = None) -> Any:
        """Start or adopt the job and wait for it; as long as there are no instances, ask for them again."""
        while True:
            if shortage is not None:
                self._pause(context, shortage)
            try:
                return self._run_once(context)
            except NoCapacity as error:
                shortage = error

    def _run_once(self, context: Context) -> Any:
        self._settled = False
        spec = self.specification(context)
        launcher = self.launcher
        self._make_ready_for_kill()
        self._submitting = True
        submission = launcher.submit(spec, identity_of(context), stop_former=self.stop_on_kill)
        self._keep(submission)
        trigger = self._trigger(spec, submission)
        self.keep_on_kill(context, trigger)
        self._announce(context, submission)
        if submission.status.terminal:
            return self._finish(context, submission, submission.status)
        if self.deferrable:
            self._end_if_killed("before it could defer")  # who deferred now would wait for a job that is stopped
            self._defer(context, submission, trigger)
        return self._finish(context, submission, self._wait(context, submission.reference, trigger.deadline))

    def _pause(self, context: Context, shortage: NoCapacity) -> None:
        """Wait until it is time to ask for instances again, in the triggerer or here.

        :raises NoCapacity: the time allowed for that is over, or none was.
        """
        if self.capacity_wait is None:
            raise shortage
        now, budget_s = time.time(), self.capacity_wait.total_seconds()
        before = from_json(Shortage, self.kept(context, _SHORTAGE_XCOM) or {"since": now, "tries": 0})
        known = Shortage(since=before.since, tries=before.tries + 1)
        until = next_try(known, now, budget_s)
        if until is None:
            raise shortage
        self.keep(context, _SHORTAGE_XCOM, to_json(known))
        last = datetime.fromtimestamp(known.since + budget_s, UTC)
        self.log.warning(
            "%s\nAsking for instances again in %.0f s, until %s (capacity_wait)", shortage, until - now, last
        )
        if self.deferrable:
            timeout = timedelta(seconds=until - now) + TRIGGER_GRACE
            self.defer(trigger=PauseTrigger(until=until), method_name="ask_again", timeout=timeout)
        self._sleep(until - now)
        if self._killed:
            raise shortage

    def resume(self, context: Context, event: Mapping[str, Any], submission: Mapping[str, Any] | None = None) -> Any:
        """Go on after the trigger has fired. `dag.test()` drops the arguments of a deferral: an XCom has them too."""
        with airflow_errors(), self._no_job_left_behind(context):
            known = from_json(Submission, submission or self.kept(context, _JOB_XCOM) or {})
            self._job, self._holder = known.reference, known.holder
            told = from_json(JobEvent, event)
            if told.job not in ("", known.reference.name):
                self.log.warning("The trigger told of %s: looking at %s again", told.job, known.reference.name)
                return self._run(context)
            status = self._final_status(known.reference, told)
            try:
                return self._finish(context, known, status)
            except NoCapacity as shortage:
                return self._run(context, shortage=shortage)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on, also where the trigger has timed out or crashed and Airflow would only let the task fail.

        The job may have ended well meanwhile; if not, it must be stopped or be left to a retry, never forgotten.
        """
        if next_method == FAILED_TRIGGER_METHOD and self.is_of_former_life(context, _JOB_XCOM):
            return self.execute(context)
        stored = self.kept(context, _JOB_XCOM) if next_method == FAILED_TRIGGER_METHOD else None
        if stored is None:
            return super().resume_execution(next_method, next_kwargs, context)
        details = next_kwargs or {}
        error = details.get("error", "the trigger has ended without an event")
        kind = JobEventKind.DEADLINE if error == TRIGGER_TIMED_OUT else JobEventKind.LOST
        message = "\n".join([str(error), *(details.get("traceback") or [])])
        return self.resume(context, event=to_json(JobEvent(kind=kind, message=message)), submission=stored)

    def _announce(self, context: Context, submission: Submission) -> None:
        reference = submission.reference
        verb = "Adopted" if submission.adopted else "Started"
        self.log.info("%s job %s (%s)", verb, reference.name, reference.arn)
        self.keep(context, _JOB_XCOM, to_json(submission))
        if address := progress_url(identity_of(context)):
            ProgressLink.store(context, address)
        if page := self.launcher.console_page(reference):
            ConsoleLink.store(context, sagemaker_console_url(reference.region, page))
            LogsLink.store(context, self._logs_url(reference))

    def _deadline(self, spec: JobSpec, status: JobStatus) -> float:
        """Return the deadline in seconds since the epoch; it counts from the creation of the job, adopted or not."""
        allowed = self.timeout or timedelta(seconds=spec.longest_s) + DEADLINE_MARGIN
        created = status.created_at.timestamp() if status.created_at else time.time()
        return created + allowed.total_seconds()

    def _trigger(self, spec: JobSpec, submission: Submission) -> JobTrigger:
        return JobTrigger(
            connection=to_json(self.connection),
            reference=to_json(submission.reference),
            poll_interval=self.poll_interval,
            deadline=self._deadline(spec, submission.status),
            stop_on_kill=self.stop_on_kill,
            progress_interval=self.progress_interval,
        )

    def _defer(self, context: Context, submission: Submission, trigger: JobTrigger) -> NoReturn:
        remaining = timedelta(seconds=max(0.0, trigger.deadline - time.time()))
        kwargs = self.for_this_life(context, submission=to_json(submission))
        self._job = None  # the triggerer's from now on: a worker that is shut down while it leaves has nothing to stop
        self.defer(trigger=trigger, method_name="resume", kwargs=kwargs, timeout=remaining + TRIGGER_GRACE)

    def _wait(self, context: Context, reference: JobReference, deadline: float) -> JobStatus:
        """Watch the job from the worker until it has ended.

        :raises JobFailed: the deadline has passed, or the task was killed.
        """
        watch = JobWatch(lambda: self.launcher, reference, poll_interval=self.poll_interval)
        reports, story = ProgressReports(self.progress_interval), JobStory()
        while True:
            look = watch.look()
            for line in look.lines:
                self.log.info("%s", line)
            if look.note:
                self.log.warning("%s", look.note)
            if news := story.take(look.status):
                self.log.info("%s", news)
            ended = look.status is not None and look.status.terminal
            if progress := reports.take(look.lines, datetime.now(UTC), last=ended):
                self.log.info("%s", sentence(progress))
                context["ti"].xcom_push(key=PROGRESS_XCOM, value=document(progress))
            self._end_if_killed(f"while job {reference.name} ran")
            if look.status is not None and look.status.terminal:
                return look.status
            if time.time() >= deadline:
                return self._end_at_deadline(reference)
            self._sleep(min(look.wait_s, max(0.0, deadline - time.time())))

    def _sleep(self, seconds: float) -> None:
        """Sleep in slices: a kill ends it within a second."""
        until = time.monotonic() + seconds
        while not self._killed and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))

    def _final_status(self, reference: JobReference, event: JobEvent) -> JobStatus:
        if event.status is not None:
            return event.status
        if event.kind is JobEventKind.DEADLINE:
            return self._end_at_deadline(reference)
        status = self.launcher.describe(reference)
        if status.terminal:
            return status
        raise JobFailed(
            f"job {reference.name} could not be observed from the triggerer: {event.message}. "
            "A retry of the task looks at it again",
            permanent=False,
        )

    def _end_at_deadline(self, reference: JobReference) -> JobStatus:
        """Stop the job and fail, unless it ended by itself at the last moment: then return how."""
        self.launcher.stop(reference)
        status = self.launcher.describe(reference)
        if status.phase in (JobPhase.SUCCEEDED, JobPhase.FAILED):
            return status
        sentence = (
            "it had not ended at its deadline and was stopped. "
            f"Raise timeout={self.timeout or 'max_runtime_s plus one hour'} or make the job shorter"
        )
        raise JobFailed(self._failure(reference, sentence))

    def _finish(self, context: Context, submission: Submission, status: JobStatus) -> Any:
        """Return the result of a job that has ended well; fail, with its last words, for one that has not."""
        self._job, self._settled = None, True  # it has ended: there is nothing to stop any more
        verdict = judge(status)
        if verdict.kind in NO_CAPACITY:
            raise NoCapacity(self._failure(submission.reference, verdict.sentence))
        if not verdict.succeeded:
            raise JobFailed(self._failure(submission.reference, verdict.sentence), permanent=verdict.permanent)
        outcome = JobOutcome(
            reference=submission.reference, status=status, adopted=submission.adopted, attempt=submission.attempt
        )
        return self.result(context, outcome)

    def _failure(self, reference: JobReference, sentence: str) -> str:
        try:
            tail = self.launcher.log_tail(reference, LINES_IN_MESSAGE)
        except DlawsError as error:
            tail = (f"(the log cannot be read: {error})",)
        return failure_message(reference, sentence, log_tail=tail, logs_url=self._logs_url(reference))

    def _logs_url(self, reference: JobReference) -> str:
        if not self.launcher.log_group:
            return f"{reference.arn}/log"
        prefix = self.launcher.log_prefix(reference)
        return logs_console_url(reference.region, self.launcher.log_group, prefix)


def _checked_interval(name: str, seconds: float) -> float:
    if not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise SpecificationError(f"{name}={seconds} must be a number of seconds above 0: 30 is good for most jobs")
    return seconds


def _checked_timeout(timeout: timedelta | None) -> timedelta | None:
    if timeout is not None and timeout <= timedelta(0):
        raise SpecificationError(
            f"timeout={timeout} would stop each job at once: give a longer time, or leave it out for the job's own "
            "limit plus an hour"
        )
    return timeout


def _checked_wait(wait: timedelta | None) -> timedelta | None:
    if wait is not None and not 0 < wait.total_seconds() <= LONGEST_WAIT_S:
        raise SpecificationError(
            f"capacity_wait={wait} must be longer than nothing and at most {timedelta(seconds=LONGEST_WAIT_S)}; "
            "leave it out to let Airflow's retries decide"
        )
    return wait
