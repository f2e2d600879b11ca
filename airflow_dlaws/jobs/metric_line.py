"""The line a training script prints to report metrics, and the reader of such lines.

    {"dlaws_metrics": {"epoch": 3, "validation:loss": 0.31}}

One JSON object a line. Scripts in containers do not import this package: they print the line with `json.dumps`; the
tests run their output through this reader. SageMaker's regex metrics read the same lines (`metric_regex`).
"""

from __future__ import annotations

import json
import re

KEY = "dlaws_metrics"


def format_line(metrics: dict[str, float]) -> str:
    """Return the line that reports `metrics`."""
    return json.dumps({KEY: metrics})


def parse_line(line: str) -> dict[str, float] | None:
    """Return the metrics in a log line, or None where it reports none. A broken line reports none."""
    start = line.find(f'{{"{KEY}"')
    if start < 0:
        return None
    try:
        metrics = json.loads(line[start:].strip())[KEY]
        return {str(name): float(value) for name, value in metrics.items()}
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        return None


def metric_regex(name: str) -> str:
    """Return the regular expression with which SageMaker finds metric `name` in such lines."""
    return rf'"{re.escape(name)}": ([-+0-9.eE]+)'
