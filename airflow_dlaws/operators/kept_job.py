"""The job that a task pays for: known from the moment it is asked for, stopped where nobody is left to look after it.

Three things can go wrong. The task's process is killed; it fails for the last time while the job runs; or it fails for
the last time and does not know whether there is a job: the answer to its request was lost, or an earlier try has
started one and this one did not come so far as to find it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from airflow_dlaws._compat import AirflowFailException, Context, put_off
from airflow_dlaws.errors import DlawsError, IdentityConflict, JobFailed
from airflow_dlaws.hooks.aws import AwsClients
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.reference import JobReference, Submission
from airflow_dlaws.launchers.protocol import Asking, Held, Launcher, Noting
from airflow_dlaws.operators.base import DlawsOperator, identity_of


class KeptJob(DlawsOperator):
    """An operator that knows the job it pays for. A subclass tells it of each job that begins and ends."""

    engine = "sagemaker"
    stop_on_kill: bool
    _job: JobReference | None = None
    _holder = ""
    _killed, _kill_put_off = False, False
    #: From when a job is looked for until it is known, and after it has ended.
    _submitting, _settled = False, False
    _spare: Launcher[Any] | None = None

    @cached_property
    def launcher(self) -> Launcher[Any]:
        """The engine that runs the job."""
        return launcher_for(self.engine, self.aws)

    @property
    def noted_under(self) -> str | None:
        """Where the engine notes which jobs the task has started; None where that is not known."""
        return getattr(self, "output_s3_uri", None)

    @property
    def stops_through(self) -> tuple[str, ...]:
        """Addresses of the machines by whose shells the engine stops jobs."""
        return ()

    def on_kill(self) -> None:
        """Stop the job because the task's process is being killed, unless a later try of the task has adopted it.

        Airflow kills a process also where it has given the task to another one (the scheduler was gone for too long,
        the worker was cut off): what the other one waits for must not be stopped.

        Runs inside a signal handler, which may have interrupted a call of the usual clients: those that were made for
        this hold no locks. What the interrupted call starts only now is stopped when it comes back (`_keep`).
        """
        self._killed = True
        job, holder = self._known()
        if job is None or not self.stop_on_kill:
            return
        self._kill_put_off = self._spare is None and put_off()
        if self._kill_put_off:
            return
        launcher = self._spare or launcher_for(self.engine, AwsClients(self.connection))
        if self._is_held_by_another(launcher, job, holder):
            self.log.info("The task was killed; a later try of it has adopted job %s, which runs on", job.name)
            return
        stopped = launcher.stop(job)
        self.log.info("The task was killed: job %s %s", job.name, "is stopped" if stopped else "does not run")

    def _end_if_killed(self, when: str) -> None:
        """End a try that was killed; stop its job, where the signal came at a moment when that could not be done.

        :raises JobFailed: it was.
        """
        if self._killed:
            if self._kill_put_off:
                self.on_kill()
            raise JobFailed(f"the task was killed {when}", permanent=False)

    def _make_ready_for_kill(self) -> None:
        """Make the clients with which `on_kill` stops the job, while Airflow can still be asked for the connection.

        Inside the signal handler it cannot: the task's process waits for Airflow's answer to one question at a time,
        and Airflow kills tasks just when it does not answer.
        """
        if not self.stop_on_kill or self._spare is not None:
            return
        clients = AwsClients(self.connection)
        self._spare = launcher_for(self.engine, clients)
        for service in getattr(self._spare, "stops_with", ()):
            clients.client(service)
        for address in self.stops_through:
            clients.shell(address).prepare()

    def _keep(self, submission: Submission) -> None:
        """Know a job from now on.

        :raises JobFailed: the task was killed while it was being started; it is stopped.
        """
        self._job, self._holder, self._submitting = submission.reference, submission.holder, False
        if self._killed and not submission.status.terminal:
            self.on_kill()
            raise JobFailed(f"the task was killed while it started job {submission.reference.name}", permanent=False)

    def _known(self) -> tuple[JobReference | None, str]:
        """Return the job that runs, or that may have been started by a call which has not come back, and its holder."""
        launcher = self.__dict__.get("launcher")  # inside a signal handler none is made
        if self._job is None and self._submitting and isinstance(launcher, Asking) and launcher.asked_for:
            return launcher.asked_for.reference, launcher.asked_for.holder
        return self._job, self._holder

    def _is_held_by_another(self, launcher: Launcher[Any], job: JobReference, holder: str) -> bool:
        if not holder or not isinstance(launcher, Held):
            return False
        try:
            return launcher.holder(job) not in ("", holder)
        except DlawsError as error:
            self.log.warning("Who looks after job %s cannot be told, so it is stopped: %s", job.name, error)
            return False

    @contextmanager
    def _no_job_left_behind(self, context: Context) -> Iterator[None]:
        """Stop the job where the task fails for the last time while it runs; a retry that is to come adopts it."""
        try:
            yield
        except IdentityConflict:
            raise  # the job of that name is somebody else's
        except Exception as error:
            if not self._settled and _is_final(error, context):
                self._stop_after(context, error)
            raise

    def _stop_after(self, context: Context, error: Exception) -> None:
        """Stop the job that runs, or may run. The task's own error must not be lost over it."""
        job, holder = self._known()
        if not self.stop_on_kill:
            if job is not None:
                self.log.warning("The task has failed; job %s runs on, as asked (stop_on_kill=False)", job.name)
            return
        try:
            if job is None:
                self._stop_noted(context)
            elif self._is_held_by_another(self.launcher, job, holder):
                self.log.warning("This try has failed; a later one has adopted job %s, which runs on", job.name)
            else:
                self.log.warning("The task has failed for the last time: stopping job %s", job.name)
                self.launcher.stop(job)
        except Exception as trouble:
            # It still ends at its max_runtime_s.
            name = job.name if job else "of an earlier try"
            self.log.error("Job %s could not be stopped after %s: %s", name, error, trouble)

    def _stop_noted(self, context: Context) -> None:
        """Stop what an earlier try of the task has started, should it still run: this one did not come so far."""
        if self.noted_under is None or not isinstance(self.launcher, Noting):
            return
        if name := self.launcher.stop_last(self.noted_under, identity_of(context)):
            self.log.warning("The task has failed for the last time: job %s of an earlier try is stopped", name)


def _is_final(error: Exception, context: Context) -> bool:
    """Tell whether Airflow will not try this task again after `error`."""
    permanent = error.permanent if isinstance(error, DlawsError) else isinstance(error, AirflowFailException)
    return permanent or context["ti"].try_number > context["ti"].max_tries
