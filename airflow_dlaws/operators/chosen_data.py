"""What training operators do about `data_snapshot`: no job on other data than the chosen ones, no green task either."""

from __future__ import annotations

from typing import Any

from airflow_dlaws.data.snapshot import DataSnapshot, changes, describe_changes, read_snapshot
from airflow_dlaws.errors import OutcomeUnacceptable
from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.storage import ObjectStore


def is_first_try(ti: Any, retries: int | None) -> bool:
    """Tell whether this is the first try since the last clear; a later one may find the job of the first."""
    return int(ti.try_number + (retries or 0)) <= (ti.max_tries or 0) + 1


def refuse_other_data(store: ObjectStore, data_snapshot: str) -> None:
    """Refuse to pay for a job on other data than the chosen ones.

    :raises OutcomeUnacceptable: an object holds other bytes than when it was chosen.
    """
    if changed := changes(store, read_snapshot(store, data_snapshot).objects):
        raise OutcomeUnacceptable(
            f"the data have changed since they were chosen, and no job is started: {describe_changes(changed)}. "
            "Clear the run from the task that chooses the data"
        )


def data_read(store: ObjectStore, data_snapshot: str | None) -> tuple[DataSnapshot | None, tuple[str, ...]]:
    """Return the chosen data, and what has changed of them."""
    snapshot = read_snapshot(store, data_snapshot) if data_snapshot else None
    return snapshot, changes(store, snapshot.objects) if snapshot else ()


def refuse_model_of_other_data(changed: tuple[str, ...], result: TrainingResult) -> None:
    """Refuse a model that may have been trained on other data; its manifest stands by now.

    :raises OutcomeUnacceptable: something has changed.
    """
    if changed:
        raise OutcomeUnacceptable(
            f"the data changed between their choice and the end of job {result.job_name}, which may have read "
            f"either: {describe_changes(changed)}. Clear the run from the task that chooses the data: the model at "
            f"{result.artifact_uri} is of unknown data, and its manifest says so"
        )
