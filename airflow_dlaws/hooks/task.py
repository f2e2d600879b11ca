"""What all operators and sensors of this package share: connection, identity, and how errors become task states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC
from functools import cached_property
from typing import Any

from airflow_dlaws._compat import (
    AirflowException,
    AirflowFailException,
    BaseTrigger,
    Context,
    deployment_url,
    was_taken_away,
)
from airflow_dlaws.errors import DlawsError, SpecificationError
from airflow_dlaws.hooks.aws import AwsClients, AwsConnection
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.reference import ON_KILL_XCOM
from airflow_dlaws.registry.manifest import AirflowRun

#: Argument of a deferral, field of an XCom: the clear marker of the task instance that deferred or pushed.
_LIFE = "life"


class AwsConnected:
    """Mixed into an Airflow operator or sensor that has the parameters of an AWS connection: gives its clients.

    It has no `__init__`: Airflow applies a DAG's `default_args` only to parameters of an operator's own.
    """

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: Mapping[str, Any] | None

    @property
    def connection(self) -> AwsConnection:
        """The connection, as triggers take it."""
        return AwsConnection(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            botocore_config=self.botocore_config,
        )

    @cached_property
    def aws(self) -> AwsClients:
        """The boto3 clients of this task."""
        return AwsClients(self.connection)


class Deferring:
    """Mixed into an Airflow operator or sensor that defers: what its former life was told, the next one is not.

    A task that is cleared while it runs after a deferral is resumed in its next life as it was before, with the same
    event (Airflow 3.3.2). What ended the former life, a job or an answer, is no news to this one: it begins anew.
    """

    def for_this_life(self, context: Context, **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of a deferral, marked with the life of the task in which it is made.

        Call it right before: a task that was marked or cleared meanwhile is killed here. Its worker may not have heard
        so, and Airflow refuses the deferral in silence: no trigger would look after what was begun.
        """
        if was_taken_away(context["ti"]):
            self.log.warning("This task was marked or cleared while it ran: what it has begun is ended")  # type: ignore[attr-defined]
            with suppress(SystemExit):
                self.on_kill()  # type: ignore[attr-defined]
        return {**kwargs, _LIFE: identity_of(context).clear_marker}

    def keep(self, context: Context, key: str, value: Mapping[str, Any]) -> None:
        """Push an XCom for this life of the task."""
        context["ti"].xcom_push(key=key, value={**value, _LIFE: identity_of(context).clear_marker})

    def keep_on_kill(self, context: Context, trigger: BaseTrigger) -> None:
        """Note whose `on_kill` ends what this task pays for: its worker may die, and nobody would be there to do so."""
        classpath, kwargs = trigger.serialize()
        self.keep(context, ON_KILL_XCOM, {"classpath": classpath, "kwargs": kwargs})

    def kept(self, context: Context, key: str) -> dict[str, Any] | None:
        """Return what this try of the task has pushed: Airflow empties it for the next, unless it resumes that one."""
        life, value = self._kept(context, key)
        return value if life == identity_of(context).clear_marker else None

    def is_of_former_life(self, context: Context, key: str) -> bool:
        """Tell whether a former life of the task has pushed what is there."""
        life, value = self._kept(context, key)
        return value is not None and life != identity_of(context).clear_marker

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on where this life deferred."""
        details, life = dict(next_kwargs or {}), identity_of(context).clear_marker
        if details.pop(_LIFE, life) != life:  # dag.test() and a trigger that failed leave no mark
            return self.execute(context)  # type: ignore[attr-defined]
        return super().resume_execution(next_method, details, context)  # type: ignore[misc]

    def _kept(self, context: Context, key: str) -> tuple[int, dict[str, Any] | None]:
        identity = identity_of(context)
        stored = context["ti"].xcom_pull(task_ids=identity.task_id, key=key, map_indexes=identity.map_index)
        if stored is None:
            return identity.clear_marker, None
        value = dict(stored)
        return value.pop(_LIFE, identity.clear_marker), value


def identity_of(context: Context) -> TaskIdentity:
    """Return who is asking: the same for every retry of a task instance, another one after a clear."""
    ti, began = context["ti"], getattr(context.get("dag_run"), "start_date", None)
    return TaskIdentity(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        clear_marker=ti.max_tries,
        deployment=deployment_url(),
        run_began=began.astimezone(UTC).isoformat() if began else "",
    )


def run_of(context: Context) -> AirflowRun:
    """Return the run as manifests name it."""
    identity = identity_of(context)

    def moment(name: str) -> str | None:
        value: Any = context.get(name)  # a run that an asset or a person started has no data interval
        return value.isoformat() if value else None

    return AirflowRun(
        dag_id=identity.dag_id,
        run_id=identity.run_id,
        task_id=identity.task_id,
        map_index=identity.map_index,
        run_type=_run_type(context),
        logical_date=moment("logical_date"),
        data_interval_start=moment("data_interval_start"),
        data_interval_end=moment("data_interval_end"),
    )


def held_back(context: Context, allow_backfill: bool | str) -> bool:
    """Tell whether this run is about the past, and was not asked to change what serves now.

    A backfill is, also where it reprocesses a run of another type: Airflow changes the type, and keeps the id. So is a
    run of the calendar that began when the interval after its own was over too: one cleared later, or caught up.

    :param allow_backfill: may be the text that a template rendered.
    :raises SpecificationError: the text is neither true nor false.
    """
    allowed = str(allow_backfill).strip().lower()
    if allowed not in ("true", "false"):
        raise SpecificationError(f"allow_backfill={allow_backfill!r} must be true or false")
    return allowed == "false" and (_run_type(context) == "backfill" or _is_overtaken(context))


def _is_overtaken(context: Context) -> bool:
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    began = getattr(context["dag_run"], "start_date", None)
    # Timetables without intervals (Airflow's "@daily") give two equal moments, which say nothing about the next run.
    if _run_type(context) != "scheduled" or not (start and end and began) or start == end:
        return False
    return bool(began >= end + (end - start))


def _run_type(context: Context) -> str:
    run_type = context["dag_run"].run_type
    # The text of this enum differs between Airflow's versions, its value does not.
    return str(getattr(run_type, "value", run_type))


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn this package's errors into Airflow's: a permanent one fails the task at once, the others may be retried."""
    try:
        yield
    except DlawsError as error:
        if error.permanent:
            raise AirflowFailException(str(error)) from error
        raise AirflowException(str(error)) from error
