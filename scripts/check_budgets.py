"""Fail where the package outgrows its size budgets: `python scripts/check_budgets.py`.

Modules: median at most 120 lines, none over 400. Functions: median at most 12 lines, none over 60. Template DAGs: at
most 150 lines each. Small pieces are what keeps the house readable; a file over its budget holds a second noun.
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULE_MEDIAN, MODULE_MOST, FUNCTION_MEDIAN, FUNCTION_MOST, DAG_MOST = 120, 400, 12, 60, 150


def functions(path: Path) -> list[tuple[str, int]]:
    """Return (place, lines) of every function in a file; decorators and docstring are not counted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lines = (body[0].lineno - node.body[0].lineno) if body is not node.body else 0
            found.append(
                (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1 - lines)
            )
    return found


def main() -> int:
    """Print what is over budget; return 1 if anything is."""
    modules = {path: len(path.read_text().splitlines()) for path in sorted((ROOT / "airflow_dlaws").rglob("*.py"))}
    sizes = [lines for path, lines in modules.items() if path.name != "__init__.py"]
    lengths = [row for path in modules for row in functions(path)]
    faults = [
        f"{path.relative_to(ROOT)}: {lines} lines (at most {MODULE_MOST})"
        for path, lines in modules.items()
        if lines > MODULE_MOST
    ]
    faults += [f"{place}: {lines} lines (at most {FUNCTION_MOST})" for place, lines in lengths if lines > FUNCTION_MOST]
    for path in sorted((ROOT / "dags").glob("*.py")):
        if (lines := len(path.read_text().splitlines())) > DAG_MOST:
            faults.append(f"{path.relative_to(ROOT)}: {lines} lines (at most {DAG_MOST})")
    module_median = statistics.median(sizes)
    function_median = statistics.median(lines for _, lines in lengths)
    if module_median > MODULE_MEDIAN:
        faults.append(f"median module: {module_median} lines (at most {MODULE_MEDIAN})")
    if function_median > FUNCTION_MEDIAN:
        faults.append(f"median function: {function_median} lines (at most {FUNCTION_MEDIAN})")
    print("\n".join(faults) or f"budgets kept: median module {module_median}, median function {function_median} lines")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
