"""`dlaws drift profile` and `dlaws drift compare`: is this data set like that one, judged outside Airflow.

DATA, REF and CURRENT are files here or in S3 (s3://...): Parquet, CSV with a header, NPY or NPZ. CURRENT may also be
captured requests (.jsonl), or a folder of such files; REF a drift reference (.json) that `dlaws drift profile` or a
training job wrote, Model Monitor's statistics.json, or data, which are profiled first.

Exit status of `compare`: 0 no drift; 1 drift; 2 no answer, because something could not be read or the command is wrong;
3 no answer, because the data do not allow one (too few rows, too many unreadable). `profile`: 0, or 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dlaws.errors import DlawsError, SpecificationError

if TYPE_CHECKING:
    from airflow_dlaws.drift.comparison import Comparison
    from airflow_dlaws.drift.counts import TrafficCounts
    from airflow_dlaws.drift.profile import ReferenceProfile
    from airflow_dlaws.drift.settings import DriftSettings
    from airflow_dlaws.drift.verdict import DriftVerdict

DRIFT, NO_ANSWER, INCONCLUSIVE = 1, 2, 3

#: Tests shown beside the sentence; the JSON and the page have all.
_SHOWN = 12

#: Fewer rows are hardly a sample; the verdict itself says where more are needed.
_MIN_ROWS = 50


def add_arguments(commands: Any) -> None:
    """Add the actions `profile` and `compare` to the group `dlaws drift`."""
    kind = argparse.RawDescriptionHelpFormatter
    profile = commands.add_parser("profile", help="write a reference of data", epilog=__doc__, formatter_class=kind)
    profile.add_argument("data", metavar="DATA", help="file of the reference rows")
    profile.add_argument("-o", "--output", type=Path, required=True, metavar="REF", help="file to write")
    _add_profiling(profile)
    profile.set_defaults(run=lambda chosen: _told(run_profile, chosen))
    compare = commands.add_parser("compare", help="judge data", epilog=__doc__, formatter_class=kind)
    compare.add_argument("reference", metavar="REF", help="reference, or data to profile first")
    compare.add_argument("current", metavar="CURRENT", help="data, or captured requests, to judge")
    compare.add_argument("--alpha", type=float, default=0.05, help="chance of a false alarm of the verdict (0.05)")
    compare.add_argument("--min-effect", type=float, default=0.2, help="least stability index that matters (0.2)")
    compare.add_argument("--min-rows", type=int, default=_MIN_ROWS, help=f"fewer give no verdict ({_MIN_ROWS})")
    compare.add_argument("--features", type=_names, help="columns to watch, with commas between; default: all")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.add_argument("--html", type=Path, metavar="OUT", help="also write a page with pictures")
    _add_profiling(compare)
    compare.set_defaults(run=lambda chosen: _told(run_compare, chosen))


def _add_profiling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the columns of data to be profiled are")
    group.add_argument("--categorical", type=_names, default=(), help="numbers that are categories; texts always are")
    group.add_argument("--ignore", type=_names, default=(), help="columns to leave out, such as labels and ids")
    group.add_argument("--outputs", type=_names, default=(), help="what the model answered: prediction, ...")
    group.add_argument("--components", type=int, help="principal components to keep; 0 for none (half the numbers)")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _told(action: Callable[[argparse.Namespace], int], chosen: argparse.Namespace) -> int:
    """Run an action; status 1 means drift here, so errors have another."""
    try:
        return action(chosen)
    except DlawsError as error:
        print(f"dlaws: {error}", file=sys.stderr)
        return NO_ANSWER


def run_profile(chosen: argparse.Namespace) -> int:
    """Write the reference."""
    from airflow_dlaws.commands.drift_data import Files

    with Files() as files:
        profile = files.profile_data(files.local(chosen.data), **_profiling(chosen))
    text = json.dumps(profile.document()) + "\n"
    chosen.output.write_text(text)
    print(f"{chosen.output}: {profile.rows} rows, {len(profile.watched)} columns, {len(text) / 1000:.0f} kB")
    return 0


def _profiling(chosen: argparse.Namespace) -> dict[str, Any]:
    return {
        "categorical": chosen.categorical, "ignored": chosen.ignore, "outputs": chosen.outputs,
        "components": chosen.components,
    }  # fmt: skip


def run_compare(chosen: argparse.Namespace) -> int:
    """Judge, and tell."""
    from airflow_dlaws.commands.drift_data import Files
    from airflow_dlaws.drift.settings import DriftSettings
    from airflow_dlaws.drift.verdict import DriftOutcome, assess

    settings = DriftSettings(
        alpha=chosen.alpha, min_effect=chosen.min_effect, min_rows=chosen.min_rows, features=chosen.features
    )
    with Files() as files:
        profile = files.reference(chosen.reference, **_profiling(chosen))
        counts = files.count(profile, chosen.current)
    verdict = assess(profile, counts, settings)
    if chosen.html:
        _write_page(chosen, profile, counts, settings, verdict)
    _print(chosen, counts, verdict)
    return {DriftOutcome.NO_DRIFT: 0, DriftOutcome.DRIFT: DRIFT, DriftOutcome.INCONCLUSIVE: INCONCLUSIVE}[
        verdict.outcome
    ]


def _print(chosen: argparse.Namespace, counts: TrafficCounts, verdict: DriftVerdict) -> None:
    if chosen.json:
        from airflow_dlaws.jobs.wire import to_json

        print(json.dumps({**to_json(verdict), "faults": dict(counts.faults)}))
        return
    print(f"{verdict.outcome.value.replace('_', ' ').upper()}: {verdict.reason}")
    for each in verdict.comparisons[:_SHOWN]:
        print(f"  {_line(each)}")
    if len(verdict.comparisons) > _SHOWN:
        print(f"  and {len(verdict.comparisons) - _SHOWN} more tests; --json has all")
    if counts.faults:
        print("could not be read: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.faults.items())))


def _line(test: Comparison) -> str:
    mark = "DRIFT" if test.drifted else "     "
    return f"{mark} {test.feature:24} {test.aspect:12} effect {test.effect:8.4f}  adjusted p {test.adjusted_p:8.2g}"


def _write_page(
    chosen: argparse.Namespace,
    profile: ReferenceProfile,
    counts: TrafficCounts,
    settings: DriftSettings,
    verdict: DriftVerdict,
) -> None:
    from airflow_dlaws.drift.report import DriftReport, reference_tables
    from airflow_dlaws.drift.report_page import as_html

    reference, labels = reference_tables(profile)
    report = DriftReport(
        endpoint_name="",
        variant_name="",
        model="",
        reference_uri=chosen.reference,
        written=datetime.now(UTC),
        settings=settings,
        verdict=verdict,
        window=counts,
        reference=reference,
        labels=labels,
        total_rows=counts.rows,
        sources=(chosen.current,),
    )
    try:
        chosen.html.write_text(as_html(report, profile))
    except OSError as error:
        raise SpecificationError(f"--html {chosen.html} cannot be written: {error}") from error
