"""Runs one tuning job: launches training jobs, watches what they report, stops them early, and knows when to end."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.errors import ServiceError
from airflow_dlaws.local.training_job import TrainingJob, TrainingStatus
from airflow_dlaws.local.tuning import launch
from airflow_dlaws.local.tuning.bayesian import make_search
from airflow_dlaws.local.tuning.child import Child
from airflow_dlaws.local.tuning.hyperband import HyperbandRule
from airflow_dlaws.local.tuning.job import TuningJob, TuningStatus
from airflow_dlaws.local.tuning.limits import resources
from airflow_dlaws.local.tuning.progress import failure
from airflow_dlaws.local.tuning.stopping import MedianRule, NeverStop, Running, StoppingRule

#: How often it looks at its training jobs: a little faster than they ship their logs.
_LOOK_SECONDS = 0.1

Start = Callable[[Mapping[str, Any]], TrainingJob]


class TuningRun:
    """One tuning job, performed by one thread.

    :param start: starts a training job from its CreateTrainingJob request.
    """

    def __init__(self, context: LocalContext, job: TuningJob, start: Start) -> None:
        self._context, self._job, self._start = context, job, start
        config = job.config
        self._limit = launch.job_limit(job.request)
        self._parallel = int(config["ResourceLimits"]["MaxParallelTrainingJobs"])
        self._search = make_search(
            config["Strategy"],
            launch.search_space(job.request),
            seed=config.get("RandomSeed"),
            minimize=job.criteria.minimize,
        )
        self._rule = _stopping_rule(job)
        self._exhausted = False

    def perform(self) -> None:
        """Take the tuning job to one of its ends."""
        try:
            status, reason = self._tune()
            self._wind_down()
            self._note_ends()
            reason = reason or (failure(self._job.tally, over=True) if status is TuningStatus.COMPLETED else "")
            self._job.finish(TuningStatus.FAILED if reason else status, reason)
        except Exception as error:
            traceback.print_exc()
            self._wind_down()
            self._job.finish(TuningStatus.FAILED, f"InternalServerError: the local AWS failed: {error!r}")

    def _tune(self) -> tuple[TuningStatus, str]:
        """Launch and watch until the tuning job is over; return how, and why where it failed."""
        longest = self._job.config["ResourceLimits"].get("MaxRuntimeInSeconds")
        deadline = time.monotonic() + longest if longest else float("inf")
        while not self._context.closing.is_set():
            self._note_ends()
            if self._job.stop_requested.is_set():
                return TuningStatus.STOPPED, ""
            if reason := failure(self._job.tally, over=False):
                return TuningStatus.FAILED, reason
            # That children which run when a criterion is met are stopped, and that the status is Completed, is assumed.
            if self._job.criteria.met(self._job.tally) or time.monotonic() >= deadline:
                return TuningStatus.COMPLETED, ""
            self._stop_early()
            try:
                self._launch_more()
            except ServiceError as error:
                return TuningStatus.FAILED, f"ClientError: {error.message}"
            if self._done():
                return TuningStatus.COMPLETED, ""
            self._job.stop_requested.wait(_LOOK_SECONDS)
        return TuningStatus.FAILED, "InternalServerError: the local AWS went down"

    def _note_ends(self) -> None:
        for child in self._job.note_ends():
            self._search.tell(child.values, child.objective)

    def _running(self) -> list[Child]:
        return [child for child in self._job.children if child.running]

    def _done(self) -> bool:
        """Tell whether nothing runs, nothing more will, and every end was noted."""
        no_more = self._exhausted or len(self._job.children) >= self._limit
        return no_more and not self._running() and len(self._job.tally.objectives) == len(self._job.children)

    def _launch_more(self) -> None:
        for _ in range(self._parallel - len(self._running())):
            if self._exhausted or len(self._job.children) >= self._limit:
                return
            values = self._search.ask()
            if values is None:
                self._exhausted = True
                return
            request = launch.child_request(self._job.request, len(self._job.children) + 1, values)
            definition = self._job.request["TrainingJobDefinition"].get("DefinitionName")
            self._job.launched(Child(self._start(request), values, self._job.objective, definition))

    def _stop_early(self) -> None:
        children = self._job.children
        completed = [child.series for child in children if child.job.status is TrainingStatus.COMPLETED]
        for number, child in enumerate(children):
            # A job that has just ended counts at the rungs that it passed; it is not stopped any more.
            if child.job.status in {TrainingStatus.IN_PROGRESS, TrainingStatus.COMPLETED} and self._rule.stops(
                Running(number=number, series=child.series), completed
            ):
                child.job.request_stop()

    def _wind_down(self) -> None:
        """Stop what still runs, and wait for its end."""
        for child in self._running():
            child.job.request_stop()
        while self._running() and not self._context.closing.wait(_LOOK_SECONDS):
            pass


def _stopping_rule(job: TuningJob) -> StoppingRule:
    if job.config["Strategy"] == "Hyperband":
        least, most = resources(job.config, job.request["TrainingJobDefinition"])
        return HyperbandRule(least=least, most=most, minimize=job.criteria.minimize)
    if job.config.get("TrainingJobEarlyStoppingType") == "Auto":
        return MedianRule(minimize=job.criteria.minimize)
    return NeverStop()
