"""The program of a check that runs as a processing job: files in folders, the findings in a file. Needs numpy only.

    python3 airflow_dlaws.zip CHECK DATA LABELS VERDICT MESSAGE

CHECK holds what `order_document` says and the reference; DATA and LABELS the files that it names; VERDICT is the folder
for the findings; MESSAGE the file that SageMaker reads for why a job has failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from airflow_dlaws.drift.batch import BatchFindings, BatchPlan, check
from airflow_dlaws.drift.profile import parse_profile
from airflow_dlaws.errors import DlawsError
from airflow_dlaws.jobs.wire import from_json, to_json

ORDER, REFERENCE, VERDICT = "order.json", "drift_reference.json", "verdict.json"


def order_document(plan: BatchPlan, files: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Return what the program is told: the plan, and the files' names in the order in which they are read."""
    return {"plan": to_json(plan), "files": list(files), "labels": list(labels)}


def findings_of(document: Mapping[str, Any]) -> BatchFindings:
    """Read what the program has left."""
    return from_json(BatchFindings, document)


def main(arguments: Sequence[str]) -> int:
    """Run the check; return the exit status."""
    order_folder, data, labels, output, message = map(Path, arguments)
    try:
        order = json.loads((order_folder / ORDER).read_bytes())
        findings = check(
            parse_profile((order_folder / REFERENCE).read_bytes()),
            from_json(BatchPlan, order["plan"]),
            _opened(data, order["files"]),
            _opened(labels, order["labels"]),
        )
    except DlawsError as error:
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_text(str(error)[:1024])  # as much as SageMaker keeps
        print(error, file=sys.stderr)  # noqa: T201  # this is a program
        return 1
    output.mkdir(parents=True, exist_ok=True)
    (output / VERDICT).write_text(json.dumps(to_json(findings)))
    print(findings.verdict.reason)  # noqa: T201
    return 0


def _opened(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    for name in names:
        with (folder / name).open("rb") as file:
            yield name, file
