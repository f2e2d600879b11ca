"""What a person is shown who must decide on a model: a page of Markdown, from what the tasks before have returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: How the metrics of `evaluation/metrics.py` are called in print, and whether a smaller value is the better one.
_METRICS = {
    "log_loss": ("Log loss", True),
    "brier": ("Brier score", True),
    "accuracy": ("Accuracy", False),
    "auc": ("AUC", False),
}
#: Columns that moved, as many as a person reads.
_COLUMNS = 5


def page(
    *,
    package: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    validation: Mapping[str, Any],
    drift: Sequence[Mapping[str, Any]],
    details: Mapping[str, str],
    link: Callable[[str], str],
) -> str:
    """Return the page.

    :param package: DescribeModelPackage's answer.
    :param evaluation: what `ModelEvaluationOperator` returned; empty where nothing was compared.
    :param validation: what `DataValidationOperator` returned; or empty.
    :param drift: what the asset events of drift carry that have started this run.
    :param details: further rows, such as the plan of the rollout.
    :param link: gives the address that a browser opens of an s3:// location.
    """
    parts = [
        _comparison(evaluation, link),
        _table(
            ("This model", ""), [*_drift(drift, link), *_data(validation, link), *details.items(), *_model(package)]
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _comparison(evaluation: Mapping[str, Any], link: Callable[[str], str]) -> str:
    if not evaluation:
        return "**Nothing was compared:** no evaluation was handed to this task."
    head = f"**{_sentence(evaluation)}** ([report]({link(evaluation['page_uri'])}))"
    challenger, champion = evaluation.get("challenger") or {}, evaluation.get("champion") or {}
    rows = [_metric_row(name, challenger, champion) for name in _METRICS if challenger.get(name) is not None]
    table = _table(("On the same rows", "Challenger", "Champion", "Difference"), rows)
    return f"{head}\n\n{table}"


def _sentence(evaluation: Mapping[str, Any]) -> str:
    text = str(evaluation.get("reason") or evaluation.get("verdict") or "compared")
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _metric_row(name: str, challenger: Mapping[str, Any], champion: Mapping[str, Any]) -> tuple[str, ...]:
    title, lower_is_better = _METRICS[name]
    new, old = challenger[name], champion.get(name)
    if old is None:
        return title, f"{new:.4f}", "none", ""
    change = new - old
    word = "the same" if change == 0 else "better" if (change < 0) == lower_is_better else "worse"
    return title, f"{new:.4f}", f"{old:.4f}", f"{change:+.4f} ({word})"


def _drift(events: Sequence[Mapping[str, Any]], link: Callable[[str], str]) -> list[tuple[str, str]]:
    rows = []
    for event in events:
        names = [str(name) for name in event.get("features") or ()]
        moved = f" Moved: {', '.join(names[:_COLUMNS])}{' ...' if len(names) > _COLUMNS else ''}." if names else ""
        address = link(event["report_html_uri"])
        rows.append(("Started by drift", f"{event['sentence']}{moved} ([report]({address}))"))
    return rows


def _data(validation: Mapping[str, Any], link: Callable[[str], str]) -> list[tuple[str, str]]:
    if not validation:
        return []
    warnings = validation.get("warnings") or ()
    told = f"; {len(warnings)} warning{'s' * (len(warnings) != 1)}: {'; '.join(warnings)}" if warnings else ""
    docs = validation.get("data_docs_uri")
    report = f" ([report]({link(docs)}))" if docs else ""
    return [
        ("Training data", f"{validation['rows']:,} rows met {validation['expectations']} expectations{told}{report}")
    ]


def _model(package: Mapping[str, Any]) -> list[tuple[str, str]]:
    container = package["InferenceSpecification"]["Containers"][0]
    return [
        ("Model package", f"`{package['ModelPackageArn']}`"),
        ("Artifact", f"`{container.get('ModelDataUrl', '')}`"),
        ("Image", f"`{container['Image']}`"),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Keep a table a table: a cell has neither lines nor bars of its own."""
    return " ".join(str(text).split()).replace("|", "\\|")
