"""Choosing what a run trains on: `ChooseDataOperator`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_dlaws._compat import Context
from airflow_dlaws.data.months import by_month, choose_months, last_month_over
from airflow_dlaws.data.snapshot import DataSnapshot
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.operators.base import DlawsOperator, airflow_errors, identity_of
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri


@dataclass(frozen=True, kw_only=True)
class ChosenData:
    """The XCom of a choice. `train` and `evaluate` are ManifestFiles, for channels of kind "ManifestFile"."""

    train: str
    evaluate: str
    #: The :class:`DataSnapshot`: which version each object had.
    snapshot: str
    training_months: tuple[str, ...]
    evaluation_month: str
    object_count: int
    versioned: bool


class ChooseDataOperator(DlawsOperator):
    """Choose the months that a run trains on, and the month after them that judges the model; note their versions.

    A run with a data interval (calendar, backfill) is judged on the last month that is over at the interval's end, and
    fails where that month or one before it is missing. A run without one (an asset's, a person's) takes the newest
    month in the bucket that is over. Nothing later is ever read, so a backfill cannot look into its future.

    Returns a :class:`ChosenData` as JSON. Give its `snapshot` to the training task, which looks whether the objects are
    still the same and names them in the model's manifest.

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
        self.data_s3_uri = data_s3_uri
        self.runs_s3_uri = runs_s3_uri
        self.train_months = train_months
        self.partition = partition
        self.timezone = timezone
        self.require_versions = require_versions
        self._refuse_early()

    def execute(self, context: Context) -> dict[str, Any]:
        """List, choose, note."""
        with airflow_errors():
            store = ObjectStore(self.aws.client("s3"))
            snapshot = self._snapshot(store, context.get("data_interval_end"))
            # A folder for each run and each clear: two DAGs or two runs side by side never write over each other.
            name = identity_of(context).name("data", role="snapshot")
            chosen = _publish(store, S3Uri.parse(self.runs_s3_uri) / name, snapshot)
            self.log.info("Trains on %s, judged on %s", ", ".join(chosen.training_months), chosen.evaluation_month)
            return wire.to_json(chosen)  # type: ignore[no-any-return]

    def _snapshot(self, store: ObjectStore, interval_end: datetime | None) -> DataSnapshot:
        now = datetime.now(UTC)
        until = (interval_end or now).astimezone(ZoneInfo(self.timezone))
        months = by_month(store.versions(S3Uri.parse(self.data_s3_uri)), self.partition)
        chosen = choose_months(
            months,
            count=_count(self.train_months),
            over=last_month_over(until),
            exactly=interval_end is not None,
        )
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


def _publish(store: ObjectStore, folder: S3Uri, snapshot: DataSnapshot) -> ChosenData:
    train, evaluate, noted = folder / "train.manifest", folder / "evaluate.manifest", folder / "data.json"
    store.write_json(train, _manifest_file(snapshot.training))
    store.write_json(evaluate, _manifest_file(snapshot.evaluation))
    store.write_json(noted, wire.to_json(snapshot))
    return ChosenData(
        train=str(train),
        evaluate=str(evaluate),
        snapshot=str(noted),
        training_months=snapshot.training_months,
        evaluation_month=snapshot.evaluation_month,
        object_count=len(snapshot.objects),
        versioned=snapshot.versioned,
    )


def _manifest_file(objects: Iterable[ObjectVersion]) -> list[Any]:
    """Return the document of a SageMaker ManifestFile (S3DataSource in the API reference)."""
    uris = [S3Uri.parse(each.uri) for each in objects]
    return [{"prefix": f"s3://{uris[0].bucket}/"}, *(uri.key for uri in uris)]


def _count(value: Any) -> int:
    """Read a number that may have come from a template as text."""
    text = str(value).strip()
    if not text.isdigit() or int(text) < 1:
        raise SpecificationError(f"train_months={value!r} must be a whole number of at least 1")
    return int(text)
