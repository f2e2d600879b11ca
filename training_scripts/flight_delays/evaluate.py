"""Score a challenger, and a champion where there is one, on the same rows, each through its own handler.

    python evaluate.py --evaluation DATA --challenger FOLDER [--champion FOLDER] --output-dir OUT
    In SageMaker: SM_CHANNEL_EVALUATION, SM_CHANNEL_CHALLENGER, SM_CHANNEL_CHAMPION and SM_OUTPUT_DATA_DIR

DATA holds CSV files as train.py reads them. A model's FOLDER holds its model.tar.gz, with code/inference.py inside. The
two models may differ in code and in features: each gets the columns that its input_schema.json names.

Writes OUT/scores.csv, `row,label,challenger,champion` with probabilities, and prints log loss and AUC of both. Which
of them is better is decided elsewhere, from that file (airflow_dlaws/evaluation).
"""

import argparse
import csv
import importlib.util
import io
import json
import os
import pathlib
import sys
import tarfile
import tempfile
import types

import numpy as np

import measures
import tables

#: Rows in one request to a handler: enough to be quick, few enough for any memory.
CHUNK = 5_000


def arguments() -> argparse.Namespace:
    environment = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", default=environment("SM_CHANNEL_EVALUATION"))
    parser.add_argument("--challenger", default=environment("SM_CHANNEL_CHALLENGER"))
    parser.add_argument("--champion", default=environment("SM_CHANNEL_CHAMPION"))
    parser.add_argument("--output-dir", default=environment("SM_OUTPUT_DATA_DIR"))
    args = parser.parse_args()
    if not (args.evaluation and args.challenger and args.output_dir):
        parser.error("name --evaluation, --challenger and --output-dir, or set their SM_* variables")
    return args


def main() -> None:
    args = arguments()
    rows = tables.read(args.evaluation)
    models = {"challenger": args.challenger} | ({"champion": args.champion} if args.champion else {})
    scores, metrics = {}, {"rows": len(rows)}
    for role, channel in models.items():
        with tempfile.TemporaryDirectory() as folder:
            scores[role] = score(role, unpack(role, channel, folder), rows)
        metrics[f"{role}:log_loss"] = measures.log_loss(rows.labels, scores[role])
        metrics[f"{role}:auc"] = measures.auc(rows.labels, scores[role])
    write_scores(pathlib.Path(args.output_dir), rows.labels, scores)
    measures.report(metrics)


def unpack(role: str, channel: str, folder: str) -> pathlib.Path:
    """Unpack the model of a channel into `folder`, refusing members that would land outside it."""
    archives = sorted(pathlib.Path(channel).rglob("model.tar.gz"))
    if len(archives) != 1:
        raise SystemExit(f"{channel} has {len(archives)} files model.tar.gz; the {role} needs exactly one")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return pathlib.Path(folder)


def score(role: str, model_dir: pathlib.Path, rows: tables.Table) -> np.ndarray:
    """Return the model's probability for each row."""
    handler = import_handler(role, model_dir)
    model = handler.load(str(model_dir))
    columns = select(role, model_dir, rows)
    lines = list(zip(*columns, strict=True))
    scores = []
    for start in range(0, len(lines), CHUNK):
        body = io.StringIO()
        csv.writer(body, lineterminator="\n").writerows(lines[start : start + CHUNK])
        answer, _ = handler.predict(model, body.getvalue().encode(), "text/csv")
        scores += [float(value) for value in answer.decode().split()]
    probabilities = np.array(scores)
    if len(scores) != len(rows) or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise SystemExit(
            f"the {role} must give a probability for each of {len(rows)} rows; it gave {len(scores)} numbers"
        )
    return probabilities


def import_handler(role: str, model_dir: pathlib.Path) -> types.ModuleType:
    """Import the model's own code/inference.py, under a name that another model's handler does not have."""
    path = model_dir / "code" / "inference.py"
    if not path.exists():
        raise SystemExit(f"the {role}'s archive has no code/inference.py, so nothing says how to ask it")
    spec = importlib.util.spec_from_file_location(f"{role}_inference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    spec.loader.exec_module(module)
    return module


def select(role: str, model_dir: pathlib.Path, rows: tables.Table) -> list[list[str]]:
    """Return the columns that the model wants, in its order; all of them where it does not say."""
    schema = model_dir / "input_schema.json"
    if not schema.exists():
        return list(rows.columns.values())
    names = [feature["name"] for feature in json.loads(schema.read_text())["features"]]
    if absent := [name for name in names if name not in rows.columns]:
        raise SystemExit(f"the {role} needs {absent}; the evaluation rows have {list(rows.columns)}")
    return [rows.columns[name] for name in names]


def write_scores(output: pathlib.Path, labels: np.ndarray, scores: dict[str, np.ndarray]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with (output / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "label", *scores])
        for row, (label, *values) in enumerate(zip(labels, *scores.values(), strict=True)):
            writer.writerow([row, int(label), *(f"{value:.8f}" for value in values)])


if __name__ == "__main__":
    sys.exit(main())
