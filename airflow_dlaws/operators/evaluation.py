"""Comparing a new model with the one in service: `ModelEvaluationOperator`."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_dlaws._compat import AirflowSkipException, Context
from airflow_dlaws.data.snapshot import changes, describe_changes, read_snapshot
from airflow_dlaws.errors import (
    Inconclusive,
    JobFailed,
    OutcomeUnacceptable,
    ServiceUnavailable,
    SpecificationError,
)
from airflow_dlaws.evaluation import page
from airflow_dlaws.evaluation.report import Champion, EvaluationReport, EvaluationResult, calibrations, result_of
from airflow_dlaws.evaluation.scores import FILE_NAME, Scores, parse_scores
from airflow_dlaws.evaluation.verdict import Criteria, Evaluation, Verdict, evaluate
from airflow_dlaws.jobs import wire
from airflow_dlaws.jobs.identity import digest_of
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.output_archive import read_members
from airflow_dlaws.jobs.spec import FIELD_CHECKS, Channel, TrainingSpec
from airflow_dlaws.links.aws import ReportLink, report_url
from airflow_dlaws.operators.base import held_back, identity_of
from airflow_dlaws.operators.job import JobOperator, JobOutcome
from airflow_dlaws.registry.champion import LiveModel, live_model
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Scoring reads each row once; what takes longer than this hangs.
_MAX_RUNTIME_S = 3600
_ON_WORSE = ("skip", "fail")
_ON_INCONCLUSIVE = ("skip", "fail", "pass")
_CHECKED_EARLY = ("image", "entry_point", "role_arn", "output_s3_uri", "instance_type", "environment", "max_runtime_s")
_NUMBERS = ("margin", "alpha")


class ModelEvaluationOperator(JobOperator):
    """Score challenger and champion on the same rows in one job, and decide whether the challenger may go on.

    The job finds `evaluation`, `challenger` and, where there is one, `champion` under SM_CHANNEL_<NAME>, and writes
    scores.csv (`row,label,challenger[,champion]`) to SM_OUTPUT_DATA_DIR. The champion of a task is looked up once: a
    retry compares with the same one and adopts the same job; a cleared task looks again.

    Returns an :class:`~airflow_dlaws.evaluation.report.EvaluationResult` as JSON; where the task is skipped or fails,
    the same document is under the XCom key `evaluation_result`. Reports are beside the job's output in S3.

    :param image: container image that the scoring script runs in.
    :param source: folder with the script, relative to the DAG file or absolute, or an s3://bucket/prefix.
    :param entry_point: script in that folder.
    :param challenger_artifact: model.tar.gz of the new model.
    :param champion_artifact: model.tar.gz to compare with; or
    :param endpoint_name: compare with the model this endpoint serves. With neither, or where there is no such endpoint,
        the challenger is the first model, and only `requirements` can stop it.
    :param allow_backfill: compare with the endpoint's model in backfills and overtaken runs too. Without it they have
        no champion: what is in service now has learned from the months that an old model is judged on.
    :param evaluation_data: s3://bucket/prefix, a Channel, or the fields of one.
    :param data_snapshot: the `snapshot` of ChooseDataOperator: the task fails if the judging rows change meanwhile.
    :param metric: "log_loss", "brier", "accuracy" or "auc".
    :param margin: how much worse, in units of the metric, still counts as not worse; 0 asks for better.
    :param alpha: chance, at most, of calling an equal challenger better.
    :param requirements: absolute bounds on the challenger, such as {"max_log_loss": 0.5, "min_auc": 0.7}.
    :param on_worse: "skip" what follows, or "fail"; also where a requirement is not met.
    :param on_inconclusive: "skip", "fail" or "pass".
    """

    template_fields: Sequence[str] = (
        "image",
        "source",
        "entry_point",
        "challenger_artifact",
        "champion_artifact",
        "endpoint_name",
        "allow_backfill",
        "evaluation_data",
        "data_snapshot",
        "output_s3_uri",
        "code_s3_uri",
        "role_arn",
        "instance_type",
        "environment",
        "hyperparameters",
        "metric",
        "margin",
        "alpha",
        "requirements",
        "on_worse",
        "on_inconclusive",
    )
    operator_extra_links = (*JobOperator.operator_extra_links, ReportLink())  # type: ignore[assignment]
    ui_color = "#f3ead9"

    def __init__(
        self,
        *,
        image: str,
        source: str | Path,
        entry_point: str = "evaluate.py",
        challenger_artifact: str,
        champion_artifact: str | None = None,
        endpoint_name: str | None = None,
        allow_backfill: bool | str = False,
        evaluation_data: str | Channel | Mapping[str, Any],
        data_snapshot: str | None = None,
        output_s3_uri: str,
        role_arn: str,
        instance_type: str,
        metric: str = "log_loss",
        margin: float | str = 0.0,
        alpha: float | str = 0.05,
        requirements: Mapping[str, float] | None = None,
        on_worse: str = "skip",
        on_inconclusive: str = "skip",
        hyperparameters: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        code_s3_uri: str | None = None,
        max_runtime_s: int = _MAX_RUNTIME_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.source = source
        self.entry_point = entry_point
        self.challenger_artifact = challenger_artifact
        self.champion_artifact = champion_artifact
        self.endpoint_name = endpoint_name
        self.allow_backfill = allow_backfill
        self.evaluation_data = evaluation_data
        self.data_snapshot = data_snapshot
        self.output_s3_uri = output_s3_uri
        self.role_arn = role_arn
        self.instance_type = instance_type
        self.metric = metric
        self.margin = margin
        self.alpha = alpha
        self.requirements = requirements
        self.on_worse = on_worse
        self.on_inconclusive = on_inconclusive
        self.hyperparameters = hyperparameters
        self.environment = environment
        self.code_s3_uri = code_s3_uri
        self.max_runtime_s = max_runtime_s
        self._refuse_early()

    def specification(self, context: Context) -> TrainingSpec:
        """Return the scoring job; looks up the champion."""
        self._criteria()
        self._check_actions()
        champion = self._pinned_champion(context)
        channels = [_channel(self.evaluation_data), Channel(name="challenger", uri=self.challenger_artifact)]
        if champion.artifact_uri:
            channels.append(Channel(name="champion", uri=champion.artifact_uri))
        return TrainingSpec(
            image=self.image,
            source=self._source(),
            entry_point=self.entry_point,
            output_s3_uri=self.output_s3_uri,
            code_s3_uri=self.code_s3_uri,
            role_arn=self.role_arn,
            instance_type=self.instance_type,
            processes_per_instance=1,  # the script scores every row once
            channels=tuple(channels),
            hyperparameters=dict(self.hyperparameters or {}),
            environment=dict(self.environment or {}),
            max_runtime_s=self.max_runtime_s,
        )

    def result(self, context: Context, outcome: JobOutcome) -> dict[str, Any]:
        """Judge the scores, publish the reports, and let the run go on, skip what follows, or fail."""
        store = ObjectStore(self.aws.client("s3"))
        self._refuse_other_rows(store)
        champion = self._pinned_champion(context)
        scores = self._scores(store, outcome)
        if bool(champion.artifact_uri) != (scores.champion is not None):
            raise JobFailed(
                f"job {outcome.reference.name} was given {'a' if champion.artifact_uri else 'no'} champion, and its "
                f"{FILE_NAME} has {'no' if champion.artifact_uri else 'a'} champion column"
            )
        criteria = self._criteria()
        # Resampling must come out the same whenever the same job is judged.
        evaluation = evaluate(scores, criteria, generator=random.Random(outcome.reference.name))
        report = EvaluationReport(
            evaluation=evaluation,
            criteria=criteria,
            challenger_artifact=self.challenger_artifact,
            champion=champion,
            job_name=outcome.reference.name,
            data_uris=(_channel(self.evaluation_data).uri,),
            scores_uri=str(outcome.status.output_uri),
            **calibrations(scores),
        )
        result = self._publish(context, store, report, outcome.status.billable_seconds)
        return self._act(context, evaluation, result)

    def _act(self, context: Context, evaluation: Evaluation, result: EvaluationResult) -> dict[str, Any]:
        """Turn the verdict into a task state."""
        document: dict[str, Any] = wire.to_json(result)
        self.log.info("%s", evaluation.reason)
        if result.passed:
            return document
        context["ti"].xcom_push(key="evaluation_result", value=document)
        inconclusive = evaluation.verdict is Verdict.INCONCLUSIVE
        action = self.on_inconclusive if inconclusive else self.on_worse
        message = f"{evaluation.reason}. Report: {report_url(self.aws.client('s3'), S3Uri.parse(result.page_uri))}"
        if action == "skip":
            raise AirflowSkipException(message)
        raise (Inconclusive if inconclusive else OutcomeUnacceptable)(message)

    def _refuse_other_rows(self, store: ObjectStore) -> None:
        if not self.data_snapshot:
            return
        if changed := changes(store, read_snapshot(store, self.data_snapshot).evaluation):
            raise OutcomeUnacceptable(
                f"the rows that judge have changed since they were chosen: {describe_changes(changed)}. The verdict "
                "would be on unknown rows: clear the run from the task that chooses the data"
            )

    def _publish(
        self, context: Context, store: ObjectStore, report: EvaluationReport, billable_seconds: int
    ) -> EvaluationResult:
        folder = S3Uri.parse(report.scores_uri).parent
        document, html = folder / "evaluation.json", folder / "evaluation.html"
        store.write_json(document, wire.to_json(report))
        store.write(html, page.render(report).encode(), content_type="text/html; charset=utf-8")
        ReportLink.store(context, report_url(self.aws.client("s3"), html))
        inconclusive = report.evaluation.verdict is Verdict.INCONCLUSIVE
        passed = report.evaluation.promotes or (inconclusive and self.on_inconclusive == "pass")
        result = result_of(report, passed=passed, report_uri=str(document), page_uri=str(html))
        return replace(result, billable_seconds=billable_seconds)

    def _scores(self, store: ObjectStore, outcome: JobOutcome) -> Scores:
        location = outcome.status.output_uri
        if not location or not store.exists(S3Uri.parse(location)):
            raise JobFailed(
                f"job {outcome.reference.name} completed and left no output at {location}: {self.entry_point} must "
                f"write {FILE_NAME} to the folder named by SM_OUTPUT_DATA_DIR"
            )
        with tempfile.TemporaryFile() as file:
            store.download(S3Uri.parse(location), file)
            file.seek(0)
            members = read_members(file, [FILE_NAME])
        if FILE_NAME not in members:
            raise JobFailed(f"{location} holds no {FILE_NAME}: {self.entry_point} must write it to SM_OUTPUT_DATA_DIR")
        return parse_scores(members[FILE_NAME].decode("utf-8", errors="replace"))

    def _pinned_champion(self, context: Context) -> Champion:
        """Return the champion of this task: the one noted by an earlier try, or the present one, which is then noted.

        The note is what makes a retry ask for the same job although the endpoint may have changed in between.
        """
        store = ObjectStore(self.aws.client("s3"))
        endpoint_name = None if held_back(context, self.allow_backfill) else self.endpoint_name
        asked = digest_of([self.challenger_artifact, self.champion_artifact, endpoint_name])
        name = identity_of(context).name(asked, role="champion")
        note = S3Uri.parse(self.output_s3_uri) / f"champions/{name}.json"
        if not store.exists(note):
            champion = self._present_champion(endpoint_name)
            store.create(note, json.dumps(wire.to_json(champion)).encode())
        return wire.from_json(Champion, store.read_json(note))

    def _present_champion(self, endpoint_name: str | None) -> Champion:
        if self.champion_artifact:
            return Champion(artifact_uri=self.champion_artifact)
        if not endpoint_name:
            return Champion()
        live = live_model(self.aws.client("sagemaker"), endpoint_name)
        if live is None:
            self.log.info("There is no endpoint %s yet: the challenger is the first model", endpoint_name)
            return Champion(endpoint=endpoint_name)
        return self._champion_of(live)

    def _champion_of(self, live: LiveModel) -> Champion:
        if live.endpoint_status in ("Creating", "Deleting"):
            raise ServiceUnavailable(
                f"endpoint {live.endpoint_name} is {live.endpoint_status}: which model it serves is not known yet. "
                "A retry looks again"
            )
        if live.endpoint_status == "Failed":
            # Its first deployment failed: nothing has ever served, and a model that cannot load cannot be scored.
            self.log.warning("Endpoint %s has never come into service: no champion", live.endpoint_name)
            return Champion(endpoint=live.endpoint_name)
        self.log.info("Champion: %s, in service on %s", live.artifact_uri, live.endpoint_config_name)
        return Champion(
            artifact_uri=live.artifact_uri,
            endpoint=live.endpoint_name,
            endpoint_config=live.endpoint_config_name,
            model_package=live.model_package_arn,
        )

    def _criteria(self) -> Criteria:
        requirements = {name: _number(name, value) for name, value in (self.requirements or {}).items()}
        return Criteria(
            metric=self.metric,  # type: ignore[arg-type]  # Criteria checks and converts it
            margin=_number("margin", self.margin),
            alpha=_number("alpha", self.alpha),
            requirements=requirements,
        )

    def _check_actions(self) -> None:
        for name, allowed in (("on_worse", _ON_WORSE), ("on_inconclusive", _ON_INCONCLUSIVE)):
            value = getattr(self, name)
            if not is_template(value) and value not in allowed:
                raise SpecificationError(f"{name}={value!r} is none of {list(allowed)}")

    def _refuse_early(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        self._check_actions()
        if self.champion_artifact and self.endpoint_name:
            raise SpecificationError("give champion_artifact or endpoint_name: one champion, not two")
        if not is_template([self.metric, self.margin, self.alpha, self.requirements]):
            self._criteria()
        for name in _CHECKED_EARLY:
            value = getattr(self, name)
            if value is not None and not is_template(value):
                FIELD_CHECKS[name](name, value)
        for name in ("challenger_artifact", "champion_artifact"):
            value = getattr(self, name)
            if value and not is_template(value):
                S3Uri.parse(value)
        if not is_template(self.evaluation_data):
            _channel(self.evaluation_data)

    def _source(self) -> str:
        source = str(self.source)
        if source.startswith("s3://") or Path(source).is_absolute():
            return source
        return str(Path(self.dag.fileloc).parent / source)


def _channel(data: str | Channel | Mapping[str, Any]) -> Channel:
    if isinstance(data, Channel):
        return data
    if isinstance(data, Mapping):
        return Channel(**{**data, "name": "evaluation"})
    return Channel(name="evaluation", uri=data)


def _number(name: str, value: Any) -> float:
    """Read a number that may have come from a template as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise SpecificationError(f"{name}={value!r} must be a number") from None
