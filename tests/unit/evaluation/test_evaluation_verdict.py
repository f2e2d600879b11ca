"""The verdict: truth table, false promotions of equal models, power, and refusals."""

from __future__ import annotations

import math
import random

import pytest

from airflow_dlaws.errors import JobFailed, SpecificationError
from airflow_dlaws.evaluation.metrics import Metric
from airflow_dlaws.evaluation.page import render
from airflow_dlaws.evaluation.paired import PairedDifference
from airflow_dlaws.evaluation.report import Champion, EvaluationReport, EvaluationResult, calibrations, result_of
from airflow_dlaws.evaluation.scores import Scores, parse_scores
from airflow_dlaws.evaluation.verdict import Criteria, Verdict, evaluate, judge
from airflow_dlaws.jobs import wire


def difference(low: float, high: float) -> PairedDifference:
    middle = (low + high) / 2
    error = (high - low) / 2 / 1.96
    return PairedDifference(improvement=middle, low=low, high=high, standard_error=error, method="normal", alpha=0.05)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, Verdict.BETTER),
        (-0.004, 0.03, Verdict.NOT_WORSE),
        (-0.004, -0.001, Verdict.NOT_WORSE),
        (-0.02, -0.001, Verdict.WORSE),
        (-0.02, 0.03, Verdict.INCONCLUSIVE),
    ],
)
def test_the_interval_decides(low, high, verdict):
    found, reason = judge(difference(low, high), Criteria(margin=0.005), rows=1000)

    assert found is verdict
    assert reason.startswith(str(verdict).replace("_", " "))
    assert "1000 rows" in reason


def test_without_a_margin_an_identical_challenger_is_never_waved_through():
    assert judge(difference(0.0, 0.0), Criteria(), rows=1000)[0] is Verdict.INCONCLUSIVE


def simulated(draw: random.Random, rows: int, *, challenger_noise: float = 0.5, champion_noise: float = 0.5) -> Scores:
    """Two models that know the truth up to independent noise: equal noise, equal quality."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    labels, new, old = [], [], []
    for _ in range(rows):
        truth = draw.gauss(-0.5, 1.2)
        labels.append(int(draw.random() < sigmoid(truth)))
        new.append(sigmoid(truth + draw.gauss(0, challenger_noise)))
        old.append(sigmoid(truth + draw.gauss(0, champion_noise)))
    return Scores(labels=tuple(labels), challenger=tuple(new), champion=tuple(old))


@pytest.mark.parametrize(("rows", "rounds"), [(100, 60), (600, 300)])
def test_equal_models_are_called_better_at_most_at_the_rate_asked_for(rows, rounds):
    draw, criteria = random.Random(20130101), Criteria(alpha=0.10)
    verdicts = [evaluate(simulated(draw, rows), criteria, generator=draw).verdict for _ in range(rounds)]

    assert verdicts.count(Verdict.BETTER) <= criteria.alpha * rounds
    assert verdicts.count(Verdict.WORSE) <= criteria.alpha * rounds


def test_a_clearly_better_model_is_found_and_swapping_the_two_makes_it_worse():
    scores = simulated(random.Random(5), 3000, challenger_noise=0.2, champion_noise=1.2)
    swapped = Scores(labels=scores.labels, challenger=scores.champion, champion=scores.challenger)

    for metric in Metric:
        criteria = Criteria(metric=metric)
        assert evaluate(scores, criteria, generator=random.Random(0)).verdict is Verdict.BETTER
        assert evaluate(swapped, criteria, generator=random.Random(0)).verdict is Verdict.WORSE


def test_the_stated_detectable_improvement_is_found_in_about_four_of_five_evaluations():
    draw = random.Random(11)
    improvements, detectables = [], []
    found = 0
    for _ in range(120):
        scores = simulated(draw, 600, challenger_noise=0.5, champion_noise=0.68)
        evaluation = evaluate(scores, Criteria(), generator=draw)
        improvements.append(evaluation.difference.improvement)
        detectables.append(evaluation.difference.detectable)
        found += evaluation.verdict is Verdict.BETTER
    ratio = (sum(improvements) / 120) / (sum(detectables) / 120)

    # With z for the true effect of 2.8 x ratio standard errors, the normal distribution gives the power.
    expected = 0.5 * math.erfc(-(2.8016 * ratio - 1.96) / math.sqrt(2))
    assert found / 120 == pytest.approx(expected, abs=0.12)


def test_the_first_model_passes_only_if_it_meets_the_absolute_requirements():
    compared = simulated(random.Random(1), 400)
    first = Scores(labels=compared.labels, challenger=compared.challenger)

    met = evaluate(first, Criteria(requirements={"max_log_loss": 0.9, "min_auc": 0.5}), generator=random.Random(0))
    missed = evaluate(first, Criteria(requirements={"max_log_loss": 0.1}), generator=random.Random(0))

    assert (met.verdict, met.promotes) == (Verdict.NO_CHAMPION, True)
    assert (missed.verdict, missed.promotes) == (Verdict.BELOW_REQUIREMENTS, False)
    assert "max_log_loss=0.1 is required" in missed.reason


def test_a_requirement_stops_a_better_model_too():
    scores = simulated(random.Random(5), 1000, challenger_noise=0.2, champion_noise=1.2)

    evaluation = evaluate(scores, Criteria(requirements={"max_brier": 0.01}), generator=random.Random(0))

    assert evaluation.verdict is Verdict.BELOW_REQUIREMENTS


@pytest.mark.parametrize(("rows", "positives"), [(49, 20), (400, 9)])
def test_too_few_rows_or_rare_labels_are_inconclusive_however_large_the_difference(rows, positives):
    labels = (1,) * positives + (0,) * (rows - positives)
    good = tuple(0.9 if label else 0.1 for label in labels)
    bad = tuple(0.5 for _ in labels)

    evaluation = evaluate(Scores(labels=labels, challenger=good, champion=bad), Criteria(), generator=random.Random(0))

    assert evaluation.verdict is Verdict.INCONCLUSIVE
    assert not evaluation.promotes
    assert "needed" in evaluation.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "f1"}, "metric='f1' is none of"),
        ({"margin": -0.1}, "margin=-0.1 is negative"),
        ({"margin": math.nan}, "margin=nan"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"requirements": {"max_loss": 1}}, r"requirements name \['max_loss'\]"),
    ],
)
def test_criteria_that_make_no_sense_are_refused(options, message):
    with pytest.raises(SpecificationError, match=message):
        Criteria(**options)


def test_scores_are_read_with_and_without_a_champion():
    both = parse_scores("row,label,challenger,champion\na,1,0.5,0.25\nb,0,0,1\n")
    alone = parse_scores("row,label,challenger\r\n0,1,0.5\r\n")

    assert both == Scores(labels=(1, 0), challenger=(0.5, 0.0), champion=(0.25, 1.0))
    assert (alone.rows, alone.positives, alone.champion) == (1, 1, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"header \[\]"),
        ("label,challenger\n1,0.5\n", "header"),
        ("row,label,challenger\n", "no rows"),
        ("row,label,challenger\n1,2,0.5\n", "line 2: label '2'"),
        ("row,label,challenger\n1,1,1.5\n", "line 2: challenger gave '1.5'"),
        ("row,label,challenger\n1,1,nan\n", "line 2: challenger gave 'nan'"),
        ("row,label,challenger,champion\n1,1,0.5\n", "line 2: champion gave None"),
        ("row,label,challenger\n1,1,0.5\n1,0,0.5\n", "line 3: row '1' is scored twice"),
    ],
)
def test_unusable_scores_are_refused_with_the_line(text, message):
    with pytest.raises(JobFailed, match=message):
        parse_scores(text)


def full_report(scores: Scores) -> EvaluationReport:
    return EvaluationReport(
        evaluation=evaluate(scores, Criteria(margin=0.01), generator=random.Random(0)),
        criteria=Criteria(margin=0.01, requirements={"max_log_loss": 2.0}),
        challenger_artifact="s3://bucket/new/model.tar.gz",
        champion=Champion(artifact_uri="s3://bucket/<old>/model.tar.gz", endpoint_config="config-1"),
        job_name="job",
        data_uris=("s3://bucket/data/",),
        scores_uri="s3://bucket/new/output.tar.gz",
        **calibrations(scores),
    )


def test_the_report_survives_json():
    report = full_report(simulated(random.Random(1), 600))

    assert wire.from_json(EvaluationReport, wire.to_json(report)) == report


def test_the_result_survives_json_and_repeats_the_report():
    report = full_report(simulated(random.Random(1), 600))
    result = result_of(report, passed=True, report_uri="s3://bucket/report.json", page_uri="s3://bucket/report.html")

    assert wire.from_json(EvaluationResult, wire.to_json(result)) == result
    assert (result.verdict, result.rows) == (report.evaluation.verdict, 600)
    assert result.improvement_low < result.improvement < result.improvement_high
    assert result.champion_endpoint_config == "config-1"


def test_the_page_needs_nothing_else_and_escapes_what_it_shows():
    page = render(full_report(simulated(random.Random(1), 600)))

    assert page.count("<svg") == 1
    assert "s3://bucket/&lt;old&gt;/model.tar.gz" in page
    assert "http" not in page
    assert "<script" not in page


def test_calibration_counts_every_row_once():
    scores = simulated(random.Random(1), 600)
    found = calibrations(scores)

    assert sum(each.rows for each in found["challenger_calibration"]) == 600
    assert sum(each.rows for each in found["champion_calibration"]) == 600
