"""The handler of the flight-delays model: from the rows of a request to the probabilities of being late.

train.py writes this file beside the weights as code/inference.py and uses the same Encoder and Network itself, so what
is served is what was trained. Anything that serves the model needs two names:

    load(model_dir) -> model
    predict(model, body, content_type) -> (body, content_type)

A request is text/csv (rows of feature values in the order of input_schema.json; no header, no label; an empty field is
a missing value) or application/json ({"instances": [[...], ...]}, or a list of objects by feature name). The answer
to CSV is one probability a line, to JSON {"predictions": [...]}. ValueError means that the request is at fault.
"""

import csv
import io
import json
import pathlib

import numpy as np
import torch

#: Decimals of a probability in an answer.
DIGITS = 8


class Encoder:
    """Turns columns of text into the network's inputs, by what was learned from the training rows.

    preprocessing = {"numeric": {name: {"mean": m, "edges": [e0, e1, ...]}}, "categorical": {name: [value, ...]}}

    A number becomes its share of each bin between two edges (0 below, 1 above: piecewise linear encoding, Gorishniy et
    al., 2022), so a value beyond all that was seen in training moves no further than the last edge. Two more inputs
    say whether it was missing. A category becomes its place in the list, 0 if it is unknown or missing.
    """

    def __init__(self, preprocessing: dict) -> None:
        self.numeric = {
            name: (spec["mean"], np.array(spec["edges"])) for name, spec in preprocessing["numeric"].items()
        }
        self.places, start = {}, 0
        for name, values in preprocessing["categorical"].items():
            self.places[name] = (start, {value: start + place for place, value in enumerate(values, start=1)})
            start += len(values) + 1
        self.embeddings = start
        self.width = sum(len(edges) for _, edges in self.numeric.values())

    def __call__(self, columns: dict[str, list[str]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the numbers (rows x width, float32) and the categories (rows x features, int64)."""
        numbers = [self._number(name, columns[name]) for name in self.numeric]
        categories = [
            [known.get(value.strip(), start) for value in columns[name]] for name, (start, known) in self.places.items()
        ]
        return torch.from_numpy(np.concatenate(numbers, axis=1)), torch.tensor(categories).T

    def _number(self, name: str, values: list[str]) -> np.ndarray:
        mean, edges = self.numeric[name]
        number = to_numbers(name, values)
        missing = np.isnan(number)[:, None]
        number = np.where(missing, mean, number[:, None])
        share = np.clip((number - edges[:-1]) / (edges[1:] - edges[:-1]), 0, 1)
        return np.concatenate([share, missing], axis=1, dtype=np.float32)


class Network(torch.nn.Module):
    """A perceptron on numbers and embedded categories; gives one logit a row."""

    def __init__(
        self, width: int, embeddings: int, categories: int, hidden: list[int], embed: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(embeddings, embed)
        torch.nn.init.normal_(self.embedding.weight, std=0.1)
        layers, size = [], width + categories * embed
        for units in hidden:
            layers += [torch.nn.Linear(size, units), torch.nn.ReLU(), torch.nn.Dropout(dropout)]
            size = units
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(size, 1))

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([numbers, self.embedding(categories).flatten(1)], dim=1)).squeeze(1)


class Model:
    """What load() returns: schema, encoder and network."""

    def __init__(self, features: list[dict], preprocessing: dict) -> None:
        self.features = [feature["name"] for feature in features]
        self.encoder = Encoder(preprocessing)
        shape = preprocessing["network"]
        self.network = Network(self.encoder.width, self.encoder.embeddings, len(self.encoder.places), **shape)

    @torch.inference_mode()
    def probabilities(self, columns: dict[str, list[str]]) -> np.ndarray:
        return torch.sigmoid(self.network(*self.encoder(columns)).double()).numpy()


def load(model_dir: str) -> Model:
    """Load the model; every file that is needed must be there and fit."""
    folder = pathlib.Path(model_dir)
    schema = json.loads((folder / "input_schema.json").read_text())
    preprocessing = json.loads((folder / "preprocessing.json").read_text())
    model = Model(schema["features"], preprocessing)
    model.network.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    model.network.eval()
    return model


def predict(model: Model, body: bytes, content_type: str) -> tuple[bytes, str]:
    """Answer one request. Raises ValueError if the request is at fault."""
    kind = content_type.partition(";")[0].strip().lower()
    readers = {"text/csv": read_csv, "application/json": read_json}
    if kind not in readers:
        raise ValueError(f"content type {content_type!r} is unknown: send {' or '.join(readers)}")
    rows = readers[kind](body, model.features)
    probabilities = model.probabilities(dict(zip(model.features, zip(*rows, strict=True), strict=True)))
    if kind == "application/json":
        return json.dumps({"predictions": [round(float(value), DIGITS) for value in probabilities]}).encode(), kind
    return "".join(f"{value:.{DIGITS}f}\n" for value in probabilities).encode(), kind


def read_csv(body: bytes, features: list[str]) -> list[list[str]]:
    """Return the rows of a CSV body."""
    try:
        # Not splitlines(): a value in quotes may have lines of its own, and Unicode has more line ends than CSV.
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row]
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8 text: {error}") from None
    except csv.Error as error:
        raise ValueError(f"the body is not CSV: {error}") from None
    return check_width(rows, features)


def read_json(body: bytes, features: list[str]) -> list[list[str]]:
    """Return the rows of a JSON body as text, null as the empty field."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    instances = document.get("instances") if isinstance(document, dict) else document
    if not isinstance(instances, list) or not all(isinstance(row, list | dict) for row in instances):
        raise ValueError('expected {"instances": [[...], ...]} or a list of objects by feature name')
    for number, row in enumerate(instances, start=1):
        if isinstance(row, dict) and set(row) != set(features):
            absent, foreign = sorted(set(features) - set(row)), sorted(set(row) - set(features))
            raise ValueError(f"row {number} lacks {absent} and has unknown {foreign}: the features are {features}")
    rows = [[row[name] for name in features] if isinstance(row, dict) else row for row in instances]
    return check_width([["" if value is None else str(value) for value in row] for row in rows], features)


def check_width(rows: list[list[str]], features: list[str]) -> list[list[str]]:
    if not rows:
        raise ValueError("the request has no rows")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(features):
            raise ValueError(f"row {number} has {len(row)} values, not {len(features)}: send {','.join(features)}")
    return rows


def to_numbers(name: str, values: list[str]) -> np.ndarray:
    """Return the values as float64, NaN where the field is empty. Raises ValueError on what is no finite number."""
    try:
        numbers = np.array([value or "nan" for value in values], dtype=np.float64)
    except ValueError:
        row, wrong = next((row, value) for row, value in enumerate(values, 1) if value and not _is_number(value))
        raise ValueError(f"row {row}: {name} is {wrong!r}, which is no number") from None
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax()) + 1
        raise ValueError(f"row {row}: {name} is infinite: send a finite number, or an empty field if it is missing")
    return numbers


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
