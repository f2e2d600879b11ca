"""What running a job of any kind has in common: waits that a stop ends, failures, and looking after hosts."""

from __future__ import annotations

import enum
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.file_systems import DirectoryMissing
from airflow_dlaws.local.isolation import HostProgram
from airflow_dlaws.local.sandbox import HostExit, Sandbox
from airflow_dlaws.local.training_input import InputFault

#: Waits of AWS's, shorter than its minutes but long enough to be seen; the time scale multiplies them.
STARTING_SECONDS = 2.0
UPLOADING_SECONDS = 1.0
#: From SIGTERM to SIGKILL, as StopTrainingJob documents it.
STOP_GRACE_SECONDS = 120.0
#: How long the other hosts may take to end and say why when one has failed. AWS names no figure.
PEER_GRACE_SECONDS = 20.0
#: How often logs are shipped; a person who watches does not notice.
LOOK_SECONDS = 0.2
_WENT_DOWN = "InternalServerError: the local AWS went down"


class JobFault(Exception):
    """The job fails; the text is its FailureReason."""


def no_capacity() -> JobFault:
    """What happens to a job that finds no machines."""
    return JobFault(
        "CapacityError: Unable to provision requested ML compute capacity. "
        "Please retry using a different ML instance type."
    )


class RunningJob(Protocol):
    """What a run asks of the record of its job."""

    name: str
    request: Any
    #: Set by the Stop operation.
    stop_requested: threading.Event

    def fail(self, reason: str) -> None:
        """End as Failed."""


class JobRun:
    """One job, performed by one thread. A subclass says how in `_perform`.

    :param folder: everything of this job on disk; removed at the end.
    """

    def __init__(self, context: LocalContext, job: RunningJob, folder: Path) -> None:
        self._context, self._folder, self._record = context, folder, job

    def perform(self) -> None:
        """Take the job to one of its ends."""
        try:
            self._perform()
        except (JobFault, InputFault, DirectoryMissing) as fault:
            self._record.fail(str(fault))
        except Exception as error:
            traceback.print_exc()
            self._record.fail(f"InternalServerError: the local AWS failed: {error!r}")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _perform(self) -> None:
        raise NotImplementedError

    def _start(self, operation: str) -> bool:
        """Find machines for the job, as far as that takes time and may fail; return False where it is to stop.

        :raises JobFault: the fault `capacity` is on order for this operation.
        """
        if not self._pause(STARTING_SECONDS):
            return False
        if self._context.faults.take("capacity", operation):
            raise no_capacity()
        return True

    def _pause(self, seconds: float) -> bool:
        """Wait as AWS would; return False where the job is to stop."""
        deadline = time.monotonic() + self._context.scaled(seconds)
        while (left := deadline - time.monotonic()) > 0 and not self._context.closing.is_set():
            if self._record.stop_requested.wait(min(left, LOOK_SECONDS)):
                return False
        return not self._record.stop_requested.is_set() and not self._context.closing.is_set()

    def _image_folder(self, image: str) -> Path:
        """Return the folder of programs of an image.

        :raises JobFault: nobody has registered the image.
        """
        folder = self._context.images.folder(image)
        if folder is None:
            raise JobFault(
                "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are "
                f"incorrect: {self._context.images.how_to_register(image)}"
            )
        return folder


class Ending(enum.Enum):
    """Why the hosts of a job run no more."""

    DONE = "all exited with 0"
    FAILED = "one did not"
    STOPPED = "the Stop operation"
    OVERTIME = "MaxRuntimeInSeconds"
    WAITED = "MaxWaitTimeInSeconds"
    INTERRUPTED = "the spot instances were taken away"
    BROKEN = "the instances broke"


@dataclass(frozen=True)
class Strike:
    """Why running hosts must end now, and their seconds between SIGTERM and SIGKILL; None for SIGKILL at once."""

    ending: Ending
    grace: float | None


@dataclass(frozen=True)
class Ended:
    """How the hosts ended; their exits where one of them failed."""

    ending: Ending
    exits: tuple[HostExit, ...] = ()

    @property
    def first_failure(self) -> HostExit:
        """The host that failed first."""
        return next(ended for ended in self.exits if ended.code)


class HostWatch:
    """Looks after the hosts of one job until they have ended, or must end.

    :param look: called now and then while they run: ships logs.
    :param strike: asked now and then, with the seconds since they began, whether they must end.
    """

    def __init__(
        self,
        context: LocalContext,
        job: RunningJob,
        sandbox: Sandbox,
        hosts: int,
        look: Callable[[], None],
        strike: Callable[[float], Strike | None],
    ) -> None:
        self._context, self._job, self._sandbox, self._hosts, self._look = context, job, sandbox, hosts, look
        self._strike = strike

    def run(self, max_runtime: float) -> Ended:
        """Wait for the end; `max_runtime` in seconds.

        :raises JobFault: the server goes down, or a host ended without saying how.
        """
        began = time.monotonic()
        grace = self._context.scaled(STOP_GRACE_SECONDS)
        while not self._sandbox.wait(LOOK_SECONDS):
            self._look()
            if self._context.closing.is_set():
                raise JobFault(_WENT_DOWN)
            if self._job.stop_requested.is_set():
                return self._end(Ended(Ending.STOPPED), grace)
            if time.monotonic() >= began + max_runtime:
                return self._end(Ended(Ending.OVERTIME), grace)
            if any(ended.code for ended in self._sandbox.exits):
                ended = Ended(Ending.FAILED, tuple(self._sandbox.exits))
                return self._end(ended, self._context.scaled(PEER_GRACE_SECONDS))
            if strike := self._strike(time.monotonic() - began):
                return self._end(Ended(strike.ending), strike.grace)
        exits = tuple(self._sandbox.exits)
        if len(exits) < self._hosts:
            raise JobFault("InternalServerError: We encountered an internal error. Please try again.")
        return Ended(Ending.DONE if all(ended.code == 0 for ended in exits) else Ending.FAILED, exits)

    def _end(self, ended: Ended, grace: float | None) -> Ended:
        """SIGTERM, the grace period (seconds), SIGKILL; logs go on meanwhile. Without a period, SIGKILL at once."""
        if grace is not None:
            self._sandbox.terminate()
        deadline = time.monotonic() + (grace or 0.0)
        while (
            not self._sandbox.wait(LOOK_SECONDS) and time.monotonic() < deadline and not self._context.closing.is_set()
        ):
            self._look()
        self._sandbox.kill()
        return ended


def run_hosts(
    context: LocalContext,
    job: RunningJob,
    folder: Path,
    programs: Sequence[HostProgram],
    *,
    max_runtime: float,
    look: Callable[[], None],
    last_look: Callable[[], None],
    strike: Callable[[float], Strike | None] = lambda _: None,
) -> Ended:
    """Run the programs as hosts that see each other and nothing else, and look after them to the end."""
    sandbox = Sandbox(folder, programs, own_network=True, state_dir=context.state_dir)
    try:
        return HostWatch(context, job, sandbox, len(programs), look, strike).run(max_runtime)
    finally:
        sandbox.close()
        last_look()


def cannot_start(ended: HostExit, command: str) -> str:
    """Return the reason of a job whose container could not be started."""
    return (
        "AlgorithmError: CannotStartContainerError. Please make sure the container can be run with "
        f"'{command}'. ({ended.cannot_start})"
    )
