import json
import random
from datetime import UTC, datetime

import pytest
from captured_traffic import capture_file, healthy_rows

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.capture import count_capture
from airflow_dlaws.drift.comparison import Aspect, Direction
from airflow_dlaws.drift.counts import TrafficCounts, count_values, no_traffic
from airflow_dlaws.drift.sequence import Evidence, advance
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import DriftOutcome, DriftVerdict, assess
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json

SETTINGS = DriftSettings()


def seen(profile, rows, scores):
    return count_capture(profile, capture_file(rows, scores))


def test_healthy_traffic_is_no_drift(profile):
    verdict = assess(profile, seen(profile, *healthy_rows(2000, seed=2)), SETTINGS)
    assert verdict.outcome is DriftOutcome.NO_DRIFT
    assert "No drift in 2000 rows" in verdict.reason
    assert verdict.drifted == ()


def test_a_shifted_feature_is_named_with_its_direction_and_size(profile):
    verdict = assess(profile, seen(profile, *healthy_rows(1000, seed=3, delay=6)), SETTINGS)
    assert verdict.is_drift
    assert set(verdict.drifted) == {"delay", "prediction"}
    strongest = next(each for each in verdict.comparisons if each.aspect is Aspect.DISTRIBUTION)
    assert strongest.feature in {"delay", "prediction"}
    assert strongest.direction is Direction.UP
    assert strongest.effect > 0.2
    assert "median about" in verdict.reason


def test_a_vanished_category_and_a_new_one_are_found(profile):
    verdict = assess(profile, seen(profile, *healthy_rows(1000, seed=4, carriers="ABBBZ")), SETTINGS)
    assert verdict.drifted == ("carrier",)
    found = {each.aspect: each for each in verdict.comparisons if each.drifted}
    assert set(found) == {Aspect.DISTRIBUTION, Aspect.CATEGORY, Aspect.UNSEEN}
    assert "(Z)" in found[Aspect.UNSEEN].note


def test_values_that_go_missing_are_drift(profile):
    rows, scores = healthy_rows(1000, seed=5)
    verdict = assess(profile, seen(profile, [(a, "" if n % 10 == 0 else b, c) for n, (a, b, c) in enumerate(rows)],
                                   scores), SETTINGS)  # fmt: skip
    assert verdict.drifted == ("temp",)
    assert verdict.comparisons[0].aspect is Aspect.MISSING
    assert verdict.comparisons[0].note == "share missing 0.00% -> 10.00%"


def test_a_hair_is_no_fire_however_many_rows_there_are(profile):
    big = [
        [count * 1000 for count in counts.cells] for counts in seen(profile, *healthy_rows(3000, 6, delay=1)).features
    ]
    counts = no_traffic(profile)
    features = [type(f)(name=f.name, cells=tuple(cells)) for f, cells in zip(counts.features, big, strict=True)]
    verdict = assess(profile, TrafficCounts(rows=3_000_000, features=tuple(features)), SETTINGS)
    delay = next(each for each in verdict.comparisons if each.feature == "delay" and each.aspect == "distribution")
    assert delay.adjusted_p < 1e-10
    assert delay.effect < 0.2
    assert verdict.outcome is DriftOutcome.NO_DRIFT


def test_few_rows_are_inconclusive_even_where_they_look_bad(profile):
    verdict = assess(profile, seen(profile, *healthy_rows(999, seed=7, delay=50)), SETTINGS)
    assert verdict.outcome is DriftOutcome.INCONCLUSIVE
    assert "999 rows of what is watched are too few" in verdict.reason


def test_responses_alone_say_nothing_about_the_features(profile):
    counts = count_values(profile.prediction, healthy_rows(2000, seed=9)[1])[0]
    traffic = TrafficCounts(rows=2000, features=(*no_traffic(profile).features[:-1], counts))
    assert assess(profile, traffic, SETTINGS).outcome is DriftOutcome.NO_DRIFT
    verdict = assess(profile, traffic, DriftSettings(features=("temp",)))
    assert verdict.outcome is DriftOutcome.INCONCLUSIVE
    assert "0 rows of what is watched" in verdict.reason


def test_traffic_that_cannot_be_read_is_inconclusive_and_says_so(profile):
    data = capture_file(*healthy_rows(2000, seed=8)) + b"junk\n" * 500
    verdict = assess(profile, count_capture(profile, data), SETTINGS)
    assert verdict.outcome is DriftOutcome.INCONCLUSIVE
    assert "bad_json 500" in verdict.reason


def test_only_the_features_asked_for_are_tested(profile):
    verdict = assess(profile, seen(profile, *healthy_rows(1000, seed=3, delay=6)), DriftSettings(features=("temp",)))
    assert {each.feature for each in verdict.comparisons} == {"temp"}
    with pytest.raises(SpecificationError, match="no profile of \\['wind'\\]; it has \\['delay'"):
        assess(profile, no_traffic(profile), DriftSettings(features=("wind",)))


def test_a_constant_feature_that_changes_is_drift():
    profile = build_profile({"x": [0.0] * 500}, created=datetime(2020, 1, 1, tzinfo=UTC))
    counts = TrafficCounts(rows=1000, features=(count_values(profile.features[0], [0.0] * 900 + [5.0] * 100)[0],))
    verdict = assess(profile, counts, SETTINGS)
    assert verdict.drifted == ("x",)
    assert verdict.comparisons[0].aspect is Aspect.ABOVE


@pytest.mark.parametrize("wrong", [{"alpha": 0}, {"alpha": 1}, {"min_effect": -1}, {"min_rows": 0}, {"features": ()}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(SpecificationError, match=next(iter(wrong))):
        DriftSettings(**wrong)


def test_a_verdict_survives_json(profile):
    verdict = assess(profile, seen(profile, *healthy_rows(1000, seed=3, delay=6)), SETTINGS)
    assert from_json(DriftVerdict, json.loads(json.dumps(to_json(verdict)))) == verdict


# The promise: at most alpha of the endpoints whose traffic never changes ever raise an alarm. Effect size is switched
# off here (min_effect=0), so that the tests and the spending of alpha alone have to keep it.
def false_alarms(runs, looks, *, rows, features, alpha, seed):
    generator = random.Random(seed)
    settings = DriftSettings(alpha=alpha, min_effect=0, min_rows=rows)
    alarms = 0
    for _ in range(runs):
        profile = build_profile(
            {
                **{str(number): [generator.gauss(0, 1) for _ in range(300)] for number in range(features)},
                "c": [generator.choice("abcd") for _ in range(300)],
            },
            categorical=["c"],
            created=datetime(2020, 1, 1, tzinfo=UTC),
        )
        evidence = Evidence()
        for _ in range(looks):
            columns = [[generator.gauss(0, 1) for _ in range(rows)] for _ in range(features)]
            columns.append([generator.choice("abcd") for _ in range(rows)])
            counted = [count_values(f, v)[0] for f, v in zip(profile.features, columns, strict=True)]
            window = TrafficCounts(rows=rows, features=tuple(counted))
            evidence, verdict = advance(profile, evidence, window, settings)
            if verdict.is_drift:
                alarms += 1
                break
    return alarms


def test_repeated_looks_at_healthy_traffic_rarely_ever_alarm():
    # 60 endpoints at alpha 0.1: six expected at most; twelve or more would have a chance of 1.4 % (binomial).
    assert false_alarms(60, 6, rows=150, features=3, alpha=0.1, seed=11) <= 11


def test_dozens_of_looks_at_healthy_traffic_rarely_ever_alarm():
    # 80 endpoints at alpha 0.05: four expected at most; eleven or more would have a chance of 0.2 % (binomial).
    assert false_alarms(80, 25, rows=100, features=3, alpha=0.05, seed=12) <= 10


def test_a_clear_shift_is_found_at_once_in_every_window(profile):
    for seed in range(10):
        assert assess(profile, seen(profile, *healthy_rows(1000, seed=100 + seed, delay=4)), SETTINGS).is_drift
