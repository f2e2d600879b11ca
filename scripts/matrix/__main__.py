"""`python -m scripts.matrix [--only VERSION]`: run every check on every target, print a table, write the results.

Takes about three minutes a version once the environments are there. Exit status 1 if anything fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from scripts.matrix.checks import check
from scripts.matrix.environments import MatrixError, build_wheel, environment_for
from scripts.matrix.targets import ROOT, all_targets

CACHE = ROOT / ".dlaws" / "matrix"
RESULTS = ROOT / "benchmarks" / "results" / "matrix.json"
_HEADINGS = (
    "airflow", "python", "amazon", "boto3", "install s", "modules", "DAGs", "loop", "loop s", "kills s", "total s",
)  # fmt: skip


def main() -> int:
    """Run the matrix; return the exit status."""
    targets = {target.name: target for target in all_targets()}
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(targets), help="this version; may be repeated")
    parser.add_argument("--output", type=Path, default=RESULTS, help="results; rows of other versions stay")
    chosen = parser.parse_args()
    wheel = build_wheel(CACHE / "wheel")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()[:12]
    rows = _read(chosen.output)
    for name in chosen.only or targets:
        print(f"{name}: installing and checking", flush=True)
        try:
            environment = environment_for(targets[name], wheel, CACHE)
            row = check(environment, CACHE / f"run-{name}", ROOT / ".dlaws" / "cache")
        except MatrixError as error:
            row = {"airflow": name, "failure": str(error)}
        rows[name] = {**row, "wheel": digest}
        _write(chosen.output, rows)
        print(row["failure"] or f"{name}: passed", flush=True)
    checked = [rows[name] for name in chosen.only or targets]
    print(_table(checked))
    return 1 if any(row["failure"] for row in checked) else 0


def _read(path: Path) -> dict[str, Any]:
    return {row["airflow"]: row for row in json.loads(path.read_text())} if path.exists() else {}


def _write(path: Path, rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([rows[name] for name in sorted(rows)], indent=1) + "\n")


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    versions, loop, kills = row.get("versions", {}), row.get("loop", {}), row.get("killed_jobs", {})
    seconds = [f"{value:.1f}" for value in kills.values() if isinstance(value, float)]
    return (
        row["airflow"],
        versions.get("python", "-"),
        versions.get("apache-airflow-providers-amazon", "-"),
        versions.get("boto3", "-"),
        str(row.get("wheel_install_seconds", "-")),
        str(row.get("modules", "-")),
        str(len(row.get("templates", {}))),
        "green" if loop.get("state") == "success" else "RED",
        str(loop.get("seconds", "-")),
        "/".join(seconds) or "-",
        "FAILED" if row["failure"] else str(row["seconds"]),
    )


if __name__ == "__main__":
    sys.exit(main())
