"""`dlaws demo`: set the scene, play the story, write the report, leave the Airflow UI running."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.local.demo import flights
from airflow_dlaws.local.demo.report import as_html
from airflow_dlaws.local.demo.scene import Scene, stop_earlier
from airflow_dlaws.local.demo.story import DemoFailed, Story
from airflow_dlaws.local.demo.timeline import Timeline

#: The loop's bar on two cores.
LOOP_LIMIT_S = 480
#: What a shell reports of a command that Ctrl-C has ended.
_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dlaws demo`."""
    parser.add_argument("--home", type=Path, default=Path(".dlaws/demo"), help="folder of all its files")
    parser.add_argument("--cache", type=Path, default=Path(".dlaws/cache"), help="where the flights are kept")
    parser.add_argument("--report", type=Path, default=Path("demo-report"), help="report files, without their ending")
    parser.add_argument("--down", action="store_true", help="stop what an earlier demo left running")
    parser.add_argument("--stop", action="store_true", help="stop everything at the end")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Run the demo, or end an earlier one; return the exit status."""
    ran = stop_earlier(chosen.home)
    if chosen.down:
        _show(chosen, {"stopped": ran}, "stopped" if ran else "nothing was running")
        return 0
    shutil.rmtree(chosen.home, ignore_errors=True)
    timeline = Timeline()
    timeline.tell("preparing the flights of 2013")
    months = flights.monthly_files(chosen.cache)
    timeline.started = time.monotonic()
    scene = Scene(chosen.home)
    story = Story(scene, timeline, months)
    _interrupt_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        outcome = _play(scene, story, timeline)
    except KeyboardInterrupt:
        _interrupt_on()
        timeline.tell("interrupted; stopping everything", mark="✗")
        scene.stop()
        return _INTERRUPTED
    except BaseException:
        scene.stop()
        raise
    document = _write_report(chosen.report, story, timeline, outcome)
    if chosen.stop or outcome:
        scene.stop()
    _show(chosen, document, _closing(chosen, scene, timeline, outcome))
    return 1 if outcome else 0


def _interrupt_on(*signals: signal.Signals) -> None:
    """Let these signals raise KeyboardInterrupt and ignore the others, whatever a shell has set them to."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number in signals else signal.SIG_IGN)


def _play(scene: Scene, story: Story, timeline: Timeline) -> str:
    """Play; return what went wrong, or nothing."""
    try:
        scene.start_aws()
        timeline.tell(f"local AWS at {scene.aws.endpoint_url}")
        airflow = scene.start_airflow()
        airflow.api.wait_for_dags({"retrain_on_drift", "monitor_endpoint", "demo_bad_model"}, limit_s=120)
        timeline.tell(f"Airflow at {airflow.url}")
        story.play()
    except (DemoFailed, DlawsError, TimeoutError, RuntimeError) as error:
        timeline.tell(f"the demo failed: {error}", mark="✗")
        return str(error)
    return ""


def _write_report(path: Path, story: Story, timeline: Timeline, outcome: str) -> dict[str, Any]:
    document = {
        "passed": not outcome,
        "failure": outcome,
        "loop_seconds": round(timeline.seconds, 1),
        **story.facts,
        "timeline": timeline.events,
    }
    path.with_suffix(".json").write_text(json.dumps(document, indent=1, default=str))
    path.with_suffix(".html").write_text(as_html(document))
    return document


def _closing(chosen: argparse.Namespace, scene: Scene, timeline: Timeline, outcome: str) -> str:
    lines = [
        "",
        "Timeline",
        *(f"  {event['seconds']:6.1f} s  {event['what']}" for event in timeline.events),
        "",
        f"The loop took {timeline.seconds:.0f} s (at most {LOOP_LIMIT_S} s on two cores).",
        f"Report: {chosen.report.with_suffix('.html')}, {chosen.report.with_suffix('.json')}",
    ]
    if not chosen.stop and not outcome and scene.airflow is not None:
        lines += [f"Airflow UI: {scene.airflow.url}", "Stop everything: make demo-down"]
    return "\n".join(lines)


def _show(chosen: argparse.Namespace, document: Any, text: str) -> None:
    print(json.dumps(document, default=str) if chosen.json else text, file=sys.stdout)
