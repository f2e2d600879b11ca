"""Choosing what a run trains on: `ChooseDataOperator`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_dlaws._compat import Context
from airflow_dlaws.data.months import by_month, choose_months, last_month_over
from airflow_dlaws.data.snapshot import DataSnapshot, publish
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.operators.base import DlawsOperator, airflow_errors, identity_of, run_of
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri

#: Types of runs that stand for their data interval, and no other. People may give theirs any, or none.
_OF_ONE_INTERVAL = ("scheduled", "backfill")


class ChooseDataOperator(DlawsOperator):
    """Choose the months that a run trains on, and the month after them that judges the model; note their versions.

    A run of the calendar or of a backfill is judged on the last month that is over at the end of its data interval, and
    fails where that month or one before it is missing. A run of an asset or a person takes the newest month there that
    is over, now or at the end of its data interval if it has one. Nothing later is ever read: a backfill cannot look
    into its future.

    Returns a :class:`~airflow_dlaws.data.snapshot.ChosenData` as JSON. Give its `snapshot` to the training task, which
    looks whether the objects are still the same and names them in the model's manifest.

    :param data_s3_uri: prefix whose keys name their month, such as s3://bucket/flights/month=2013-02/part-0.csv.
    :param runs_s3_uri: prefix for what this task writes, in a folder of its own for each run.
    :param train_months: how many months train.
    :param partition: what stands before the month in a key; "dt" finds the month of dt=2013-02-17 too.
    :param timezone: in which months begin and end; that of the DAG's timetable.
    :param require_versions: refuse a bucket without versioning, where the same bytes could not be read again.
    """

    template_fields: Sequence[str] = ("data_s3_uri", "runs_s3_uri", "train_months", "partition")
    ui_color = "#f4f1e1"

    def __init__(
        self,
        *,
        data_s3_uri: str,
        runs_s3_uri: str,
        train_months: int | str = 1,
        partition: str = "month",
        timezone: str = "UTC",
        require_versions: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_s3_uri, self.runs_s3_uri = data_s3_uri, runs_s3_uri
        self.train_months, self.partition, self.timezone = train_months, partition, timezone
        self.require_versions = require_versions
        self._refuse_early()

    def execute(self, context: Context) -> dict[str, Any]:
        """List, choose, note."""
        with airflow_errors():
            store = ObjectStore(self.aws.client("s3"))
            snapshot = self._snapshot(store, context)
            # A folder for each run and each clear: two DAGs or two runs side by side never write over each other.
            name = identity_of(context).name("data", role="snapshot")
            chosen = publish(store, S3Uri.parse(self.runs_s3_uri) / name, snapshot)
            self.log.info("Trains on %s, judged on %s", ", ".join(chosen.training_months), chosen.evaluation_month)
            return wire.to_json(chosen)  # type: ignore[no-any-return]

    def _snapshot(self, store: ObjectStore, context: Context) -> DataSnapshot:
        now = datetime.now(UTC)
        until = (context.get("data_interval_end") or now).astimezone(ZoneInfo(self.timezone))
        histories = store.histories(S3Uri.parse(self.data_s3_uri))
        months = by_month((versions[0] for versions in histories.values()), self.partition)
        over, exactly = last_month_over(until), run_of(context).run_type in _OF_ONE_INTERVAL
        chosen = choose_months(months, count=_count(self.train_months), over=over, exactly=exactly)
        training = tuple(each for month in chosen.training for each in months[month])
        evaluation = months[chosen.evaluation]
        return DataSnapshot(
            training_months=chosen.training,
            evaluation_month=chosen.evaluation,
            training=training,
            evaluation=evaluation,
            versioned=self._versioned((*training, *evaluation)),
            taken_at=now,
        )

    def _versioned(self, objects: Sequence[ObjectVersion]) -> bool:
        without = [each.uri for each in objects if not each.version_id]
        if not without:
            return True
        sentence = f"{len(without)} of {len(objects)} objects have no version id, the first is {without[0]}"
        if self.require_versions:
            raise SpecificationError(
                f"{sentence}: the bytes this run reads could not be read again once they are replaced. Switch the "
                "bucket's versioning on and write the objects anew, or set require_versions=False"
            )
        self.log.warning("%s: a change will be seen by its etag, but cannot be undone", sentence)
        return False

    def _refuse_early(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        for name in ("data_s3_uri", "runs_s3_uri"):
            if not is_template(getattr(self, name)):
                S3Uri.parse(getattr(self, name))
        if not is_template(self.train_months):
            _count(self.train_months)
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise SpecificationError(f"timezone={self.timezone!r} is not known: write UTC or Europe/Berlin") from None


def _count(value: Any) -> int:
    """Read a number that may have come from a template as text."""
    text = str(value).strip()
    if not text.isdigit() or int(text) < 1:
        raise SpecificationError(f"train_months={value!r} must be a whole number of at least 1")
    return int(text)
