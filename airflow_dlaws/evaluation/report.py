"""What an evaluation leaves behind: the small result in XCom, the full report in S3. Both ends of both formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from airflow_dlaws.evaluation.metrics import ModelMetrics
from airflow_dlaws.evaluation.scores import Scores
from airflow_dlaws.evaluation.verdict import Criteria, Evaluation, Verdict

#: Ten bins are what readers of reliability diagrams expect.
_BINS = 10


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The XCom of an evaluation. Interval fields are None where nothing was compared."""

    verdict: Verdict
    reason: str
    #: Whether the challenger may go on: the verdict promotes, or the operator was told to let it pass.
    passed: bool
    rows: int
    metric: str
    challenger: ModelMetrics
    champion: ModelMetrics | None = None
    #: Positive where the challenger is better, in units of `metric`.
    improvement: float | None = None
    improvement_low: float | None = None
    improvement_high: float | None = None
    challenger_artifact: str
    champion_artifact: str | None = None
    champion_endpoint_config: str | None = None
    report_uri: str
    page_uri: str
    job_name: str
    billable_seconds: int = 0  # of the scoring job, which has one machine


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Rows whose predicted probability falls in one tenth."""

    rows: int
    mean_predicted: float
    share_positive: float


@dataclass(frozen=True, kw_only=True)
class Champion:
    """What the challenger is compared with. No artifact: there is no model in service yet."""

    artifact_uri: str | None = None
    endpoint: str | None = None
    endpoint_config: str | None = None
    model_package: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """The whole evaluation, as stored in S3."""

    evaluation: Evaluation
    criteria: Criteria
    challenger_artifact: str
    champion: Champion
    job_name: str
    data_uris: tuple[str, ...] = ()
    scores_uri: str
    challenger_calibration: tuple[CalibrationBin, ...] = field(default=())
    champion_calibration: tuple[CalibrationBin, ...] = field(default=())


def result_of(report: EvaluationReport, *, passed: bool, report_uri: str, page_uri: str) -> EvaluationResult:
    """Return what goes into XCom."""
    evaluation, difference, champion = report.evaluation, report.evaluation.difference, report.champion
    return EvaluationResult(
        verdict=evaluation.verdict,
        reason=evaluation.reason,
        passed=passed,
        rows=evaluation.rows,
        metric=str(report.criteria.metric),
        challenger=evaluation.challenger,
        champion=evaluation.champion,
        improvement=difference.improvement if difference else None,
        improvement_low=difference.low if difference else None,
        improvement_high=difference.high if difference else None,
        challenger_artifact=report.challenger_artifact,
        champion_artifact=champion.artifact_uri,
        champion_endpoint_config=champion.endpoint_config,
        report_uri=report_uri,
        page_uri=page_uri,
        job_name=report.job_name,
    )


def calibration(labels: Sequence[int], probabilities: Sequence[float]) -> tuple[CalibrationBin, ...]:
    """Return the reliability diagram's points: ten equal tenths of probability, without the empty ones."""
    members: list[list[int]] = [[] for _ in range(_BINS)]
    for index, probability in enumerate(probabilities):
        members[min(int(probability * _BINS), _BINS - 1)].append(index)
    return tuple(
        CalibrationBin(
            rows=len(rows),
            mean_predicted=sum(probabilities[i] for i in rows) / len(rows),
            share_positive=sum(labels[i] for i in rows) / len(rows),
        )
        for rows in members
        if rows
    )


def calibrations(scores: Scores) -> dict[str, tuple[CalibrationBin, ...]]:
    """Return the report's two calibration fields."""
    champion = calibration(scores.labels, scores.champion) if scores.champion is not None else ()
    return {
        "challenger_calibration": calibration(scores.labels, scores.challenger),
        "champion_calibration": champion,
    }
