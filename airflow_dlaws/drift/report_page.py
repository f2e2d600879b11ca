"""The drift report as one page: what was found, what to do, and what it was found in. No network, no scripts.

The page is bounded, whatever the number of columns: so many pictures, bars and rows; the JSON beside it has them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from airflow_dlaws.drift.accuracy import AccuracyEstimate
from airflow_dlaws.drift.body import LOSING_ROWS
from airflow_dlaws.drift.comparison import Comparison, Family, Measure
from airflow_dlaws.drift.outside import OutsideOutcome
from airflow_dlaws.drift.pictures import Ranked, legend, overlay, ranking
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.readiness import lost_rows
from airflow_dlaws.drift.report import DriftReport, strongest_tests
from airflow_dlaws.drift.report_history import over_time
from airflow_dlaws.drift.spending import family_shares
from airflow_dlaws.drift.verdict import DriftOutcome
from airflow_dlaws.page import cards, folded, page, paragraph, section, subheading, table, tiles

#: Pictures of drifted columns; of columns that have not drifted, so many beside them.
_MAX_PICTURES, _MORE_PICTURES = 24, 6
_MAX_BARS, _MAX_TESTS, _MAX_SOURCES = 40, 200, 20

_TITLES = {
    DriftOutcome.DRIFT: ("Drift", "bad"),
    DriftOutcome.NO_DRIFT: ("No drift", "good"),
    DriftOutcome.INCONCLUSIVE: ("Inconclusive", "warn"),
}

_FAMILIES = {
    Family.MARGINALS: ("columns of the request", "Kolmogorov-Smirnov; chi-square for categories"),
    Family.RANGE: ("missing, new and out-of-range values", "Fisher's exact test"),
    Family.OUTPUTS: ("scores and probabilities", "Kolmogorov-Smirnov"),
    Family.LABEL: ("predicted label", "chi-square"),
    Family.REPRESENTATION: ("rows as a whole: reconstruction error", "Kolmogorov-Smirnov"),
    Family.TAIL: ("rows that hardly any of the reference is like", "Fisher's exact test"),
    Family.EMBEDDING: ("embeddings", "maximum mean discrepancy"),
}

#: What each kind of fault means.
FAULTS = {
    "line_too_long": "longer than any captured request can be",
    "bad_json": "a line that is no JSON",
    "not_a_capture": "JSON that is no captured request",
    "bad_base64": "a body that is no base64",
    "bad_text": "a body that is no UTF-8 text",
    "bad_csv": "a body that is no CSV",
    "bad_json_body": "a body that is no JSON",
    "unknown_encoding": "an encoding other than CSV, JSON and BASE64",
    "unknown_content_type": "a content type other than CSV and JSON",
    "unknown_json_layout": "JSON that holds no rows in a known place",
    "wrong_column_count": "a row with more or fewer columns than the reference: has the schema changed?",
    "no_known_column": "a row by names, none of which the reference has: has the schema changed?",
    "unknown_column": "a row by names with some that the reference has not; the others are used",
    "header_row": "a first row with the names of the columns",
    "row_count_mismatch": "a response with another number of rows than its request",
    "not_a_number": "a text in a numeric column, counted as missing",
    "nested_value": "a list or an object where a number or a text is due, counted as missing",
    "no_time": "no time of the inference",
    "no_event_id": "no event id, so that a second delivery is known by its content and place alone",
    "before_model": "answered before this model was in service",
    "too_late": "delivered so late that it may have been counted already",
    "duplicate": "delivered once more, and counted the first time",
    "sampled_out": "left out, because a sample was asked for",
}


def as_html(report: DriftReport, profile: ReferenceProfile) -> str:
    """Return the report as a self-contained page."""
    title, tone = _TITLES[report.conclusion]
    return page(
        f"{title}: {report.endpoint_name or ', '.join(report.sources)}",
        report.sentence or report.verdict.reason,
        tiles(_figures(report)),
        section("What to do", *(paragraph(text) for text in _advice(report))),
        *_pictures(report, profile),
        *_ranking(report),
        *over_time(report),
        *_families(report),
        *_outside(report),
        section("What was read", *_traffic(report)),
        section("How this was judged", *map(paragraph, _method(report))),
        *_tests(report),
        tone=tone,
    )


def _figures(report: DriftReport) -> Iterable[tuple[str, str, str]]:
    verdict, window = report.verdict, report.window
    watched = len({each.feature for each in verdict.comparisons})
    lost = lost_rows(window.faults)
    yield "columns drifted", f"{len(verdict.drifted)} of {watched}", ", ".join(verdict.drifted[:3])
    for accuracy in (report.measured_accuracy, verdict.accuracy):
        if accuracy is not None:
            yield _accuracy(accuracy)
    yield "rows judged", f"{window.rows:,}", _between(window.first, window.last)
    yield "rows lost", f"{lost / max(1, lost + window.rows):.2%}", f"{lost:,} could not be read"


def _accuracy(accuracy: AccuracyEstimate) -> tuple[str, str, str]:
    what = f"accuracy on {accuracy.rows:,} labels" if accuracy.measured else "accuracy, estimated"
    interval = f"{accuracy.low:.1%} to {accuracy.high:.1%} (95 %); reference {accuracy.reference:.1%}"
    return what, f"{accuracy.estimate:.1%}", interval


def _between(first: datetime | None, last: datetime | None) -> str:
    if first is None or last is None:
        return ""
    if first.date() == last.date():
        return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M}"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _advice(report: DriftReport) -> Iterable[str]:
    verdict = report.verdict
    if report.conclusion is DriftOutcome.INCONCLUSIVE:
        yield (
            "Neither that these data are as the reference, nor that they are not, is known. Gather more rows, or lower "
            "what is asked for (min_rows, a larger min_effect); where rows were lost, see below why."
        )
        return
    if report.conclusion is DriftOutcome.NO_DRIFT:
        yield "Nothing: the traffic is as the reference."
        return
    drifted = [each for each in verdict.comparisons if each.drifted]
    if any(each.family is Family.RANGE for each in drifted):
        yield (
            "Values are missing, new or out of range. Look first whether something upstream broke or changed its "
            "schema: retraining on broken data makes it the norm."
        )
    elif any(each.family in (Family.TAIL, Family.REPRESENTATION, Family.EMBEDDING) for each in drifted):
        yield (
            "There are rows of a kind that the reference hardly has, although each of their values may be ordinary. "
            "Look at some of them: noise and broken sensors look so, and so does a new kind of customer."
        )
    elif drifted:
        yield "The mix of known values has changed."
    yield _about_accuracy(report)
    yield (
        "If the change is real, retrain on data of this period and let the evaluation decide whether the new model is "
        "better on it; the drift asset event starts the retrain DAG. If it is expected and harmless (a season, a "
        "campaign), widen the reference, raise min_effect, or leave the column out with features=."
    )


def _about_accuracy(report: DriftReport) -> str:
    accuracy = report.measured_accuracy or report.verdict.accuracy
    if accuracy is None:
        return "What it costs in accuracy is not known: the reference has no calibrated confidence."
    how = "is" if accuracy.measured else "is estimated to be"
    if accuracy.is_worse:
        urgency = f"so {accuracy.loss:.1%} of all answers have become wrong: this is urgent where answers matter"
    else:
        urgency = "which is no clear loss: there is time to look closely"
    told = f"The accuracy {how} {accuracy.estimate:.1%} after {accuracy.reference:.1%} on the reference, {urgency}."
    if accuracy.measured:
        return told
    return (
        f"{told} The estimate trusts the model's confidence; it cannot see that the same inputs now mean another label."
    )


def _pictures(report: DriftReport, profile: ReferenceProfile) -> Iterable[str]:
    drawable = report.window.by_name.keys()
    drifted = [name for name in report.verdict.drifted if name in drawable]
    others = [name for name in strongest_tests(report.verdict) if name not in drifted and name in drawable]
    if drifted:
        shown = drifted[:_MAX_PICTURES]
        hidden = len(drifted) - len(shown)
        more = [paragraph(f"And {hidden} more, in the tables below.")] if hidden else []
        yield section("What has drifted", legend(), cards(_card(report, profile, name) for name in shown), *more)
    if others:
        pictures = cards(_card(report, profile, name) for name in others[:_MORE_PICTURES])
        heading = "Most changed of the others" if drifted else "Most changed"
        yield folded(heading, pictures) if drifted else section(heading, legend(), pictures)


def _card(report: DriftReport, profile: ReferenceProfile, name: str) -> str:
    column = next(each for each in profile.watched if each.name == name)
    tests = [each for each in report.verdict.comparisons if each.feature == name]
    told = [each for each in tests if each.drifted] or tests[:1]
    notes = (paragraph(f"{_note(each)} ({_effect(each)}, adjusted p {_p(each)})") for each in told)
    return f"{subheading(name)}{''.join(notes)}{overlay(column, report.window.by_name[name])}"


def _note(test: Comparison) -> str:
    return test.note.replace("->", "→")


def _effect(test: Comparison) -> str:
    if test.measure is Measure.SHARE:
        return f"{test.effect:.1%} more rows"
    return f"{test.measure.value} {test.effect:.2g}"


def _p(test: Comparison) -> str:
    return "< 1e-300" if test.adjusted_p == 0 else f"{test.adjusted_p:.2g}"


def _ranking(report: DriftReport) -> Iterable[str]:
    leading: dict[str, Ranked] = {}
    for each in report.verdict.comparisons:
        least = report.settings.least_effect(each)
        ranked = Ranked(
            name=each.feature, size=each.effect / least if least else each.effect, told=_effect(each),
            drifted=each.feature in report.verdict.drifted,
        )  # fmt: skip
        if each.feature not in leading or ranked.size > leading[each.feature].size:
            leading[each.feature] = ranked
    if not leading:
        return
    rows = sorted(leading.values(), key=lambda row: (-row.size, row.name))
    hidden = len(rows) - _MAX_BARS
    more = (
        [paragraph(f"And {hidden} columns with smaller effects, in the JSON beside this page.")] if hidden > 0 else []
    )
    intro = "The size of each column's largest change, in multiples of the size from which on a change matters."
    yield section("Columns by effect", paragraph(intro), ranking(rows[:_MAX_BARS]), *more)


def _families(report: DriftReport) -> Iterable[str]:
    tests = report.verdict.comparisons
    if not tests:
        return
    shares = family_shares(each.family for each in tests)
    rows = []
    for family, share in shares.items():
        members = [each for each in tests if each.family is family]
        least = min(members, key=lambda each: each.adjusted_p)
        found = dict.fromkeys(each.feature for each in members if each.drifted)
        told = ", ".join(list(found)[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        what, how = _FAMILIES[family]
        rows.append((what, how, len(members), f"{share:.1%}", f"{_p(least)}, {least.feature}", told or "nothing"))
    header = ("looks at", "by", "tests", "of alpha", "least adjusted p", "found")
    yield section("Families of tests", table(header, rows))


def _outside(report: DriftReport) -> Iterable[str]:
    if not report.evidence:
        return
    words = {OutsideOutcome.CROSSED: "crossed", OutsideOutcome.WITHIN: "within", OutsideOutcome.SILENT: "silent"}
    rows = [(each.source, words[each.outcome], each.sentence, each.decides) for each in report.evidence]
    details = [
        folded(f"{each.source}: details", table(("",), [(text,) for text in each.details]))
        for each in report.evidence
        if each.details
    ]
    note = paragraph(
        "Thresholds set by others, without a false-alarm rate. One that decides makes the verdict drift by itself."
    )
    yield section("Evidence of others", note, table(("source", "threshold", "says", "decides"), rows), *details)


def _tests(report: DriftReport) -> Iterable[str]:
    tests = report.verdict.comparisons
    if not tests:
        return
    header = ("column", "looked at", "effect", "adjusted p", "direction", "what changed", "drifted")
    rows = [
        (each.feature, each.aspect.value, _effect(each), _p(each), each.direction.value, _note(each), each.drifted)
        for each in tests[:_MAX_TESTS]
    ]
    more = f" of {len(tests)}; the JSON beside this page has all" if len(tests) > _MAX_TESTS else ""
    yield folded(f"Tests, strongest first: {len(rows)}{more}", table(header, rows))


def _method(report: DriftReport) -> Iterable[str]:
    settings, verdict = report.settings, report.verdict
    yield (
        "A column is called drifted where a test is significant and its effect is large: a population stability index "
        f"(PSI) of at least {settings.min_effect:g} (of an answer two fifths of it), or "
        f"{settings.min_tail:.0%} more rows of a kind that the reference "
        "hardly has."
    )
    over = "columns (Holm's correction) and families of tests"
    looks = ""
    if report.history:
        over += ", looks, and lengths of windows"
        looks = f" This was look {verdict.look}, which spent {verdict.alpha_spent:.2g} of it."
    yield (
        f"The chance that traffic that never changes ever raises an alarm is held at {settings.alpha:g}, over all "
        f"{over}, for rows that are independent; an adjusted p had to reach {verdict.level:.2g}.{looks}"
    )


def _traffic(report: DriftReport) -> Iterable[str]:
    window = report.window
    rows: list[tuple[object, object]] = [
        ("from", window.first),
        ("to", window.last),
        ("windows judged together", report.verdict.windows if report.history else None),
        ("rows judged", f"{window.rows:,}"),
        ("requests", f"{window.requests:,}" if window.requests != window.rows else None),
        ("rows since this model is in service", f"{report.total_rows:,}" if report.history else None),
        ("files", report.files or None),
        *(("read", source) for source in report.sources[:_MAX_SOURCES]),
        ("model", report.model),
        ("variant", report.variant_name),
        ("reference", report.reference_uri),
    ]
    yield table(("what", "value"), [row for row in rows if row[1] not in (None, "")])
    yield from (paragraph(note, tone="warn") for note in report.notes[:_MAX_SOURCES])
    faults = sorted(((count, kind) for kind, count in window.faults.items() if count), reverse=True)
    if faults:
        told = [
            (
                kind,
                FAULTS.get(kind, ""),
                f"{count:,}",
                "the row or request" if kind in LOSING_ROWS else "at most a value",
            )
            for count, kind in faults
        ]
        yield subheading("What could not be used")
        yield table(("kind", "which is", "how often", "lost by it"), told)
