"""The reference profile: what the traffic of a healthy model looks like, small enough to keep beside the model.

A training job writes it as `drift_reference.json`; this module states the schema and reads it strictly. It is built by
drift/build.py here and by sm_runtime in a training container. One JSON object with exactly these keys:

    format         "dlaws-drift-reference/2"
    created        when it was written: ISO 8601 with a UTC offset, "2013-04-01T00:00:00+00:00"
    rows           how many rows the features were profiled on, an integer of at least 1
    feature_order  the columns of a request, in order: ["dep_delay", "hour", ...]
    features       one object for each profiled column, as drift/cells.py states; a column of feature_order without one
                   is not watched. Counts and missing of each add up to `rows`
    classes        the classes of the model's answer, in its order, as texts; null where it is no classifier
    outputs        objects for what the model answers on held-out rows, each of its own number of rows; or []. Names:
                     prediction        numeric: the score; the last number where the answer is a list
                     probability[C]    numeric: of class C of `classes`
                     confidence        numeric: the largest probability
                     predicted_label   categorical: the class of the largest probability, the first of equal ones
                   An answer of as many numbers as there are classes has their probabilities, and so have the last
                   numbers of a longer one ("label,score,p0,p1,p2") that add up to 1; one number p and two classes mean
                   probabilities 1 - p and p. Further names are fields of a JSON answer
    representation objects for rows as a whole (drift/representation.py); may be []
    embeddings     objects for vector outputs (drift/representation.py); may be []
    calibration    null, or {"output": "confidence", "correct": [...]}: of the rows in each cell of that numeric output,
                   how many the model got right

Format /1 is read as well. It had no classes, representation, embeddings or calibration, and one output or null under
"prediction" instead of `outputs`.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_dlaws.drift.cells import (
    FeatureProfile,
    NumericProfile,
    integer,
    parse_feature,
    require,
    require_keys,
)
from airflow_dlaws.drift.numbers import NumericReference
from airflow_dlaws.drift.representation import (
    COLUMNS,
    EmbeddingProfile,
    PcaProfile,
    parse_embedding,
    parse_representation,
)
from airflow_dlaws.errors import SpecificationError

FORMAT = "dlaws-drift-reference/2"
FORMAT_1 = "dlaws-drift-reference/1"

#: The names of what a model answers.
PREDICTION = "prediction"
CONFIDENCE = "confidence"
PREDICTED_LABEL = "predicted_label"

_KEYS_1 = frozenset({"format", "created", "rows", "feature_order", "features", "prediction"})
_KEYS = (_KEYS_1 - {"prediction"}) | {"classes", "outputs", "representation", "embeddings", "calibration"}
_CALIBRATION_KEYS = frozenset({"output", "correct"})
_ROWS = "which is not the document's number of rows: count every row once"


def probability_name(of_class: str) -> str:
    """Return the name of the output that holds the probability of a class."""
    return f"probability[{of_class}]"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How often the model was right, by the value of an output: `correct[i]` of the rows in its cell i."""

    output: str
    correct: tuple[int, ...]

    def document(self) -> dict[str, Any]:
        """Return the object of the profile document."""
        return {"output": self.output, "correct": list(self.correct)}


@dataclass(frozen=True, kw_only=True)
class ReferenceProfile:
    """The whole document."""

    created: datetime
    rows: int
    feature_order: tuple[str, ...]
    features: tuple[FeatureProfile, ...]
    classes: tuple[str, ...] | None = None
    outputs: tuple[FeatureProfile, ...] = ()
    representation: tuple[PcaProfile, ...] = ()
    embeddings: tuple[EmbeddingProfile, ...] = ()
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        names = [profile.name for profile in self.watched]
        require(self.created.tzinfo is not None, "created", "must carry a UTC offset")
        require(self.rows >= 1, "rows", f"must be at least 1, not {self.rows}")
        require(
            len(set(names)) == len(names), "features", f"names must be unique, also among outputs; they are {names}"
        )
        require(len(set(self.feature_order)) == len(self.feature_order), "feature_order", "names must be unique")
        require(self.classes is None or len(set(self.classes)) == len(self.classes) >= 2, "classes", _CLASSES)
        self._check_features()
        self._check_representation()
        self._check_calibration()

    def _check_features(self) -> None:
        unknown = sorted({feature.name for feature in self.features} - set(self.feature_order))
        require(not unknown, "features", f"{unknown} stand not in feature_order {list(self.feature_order)}")
        for feature in self.features:
            require(feature.rows == self.rows, feature.name, f"counts and missing give {feature.rows} rows, {_ROWS}")

    def _check_representation(self) -> None:
        for each in self.representation:
            unknown = sorted(set(each.columns) - set(self.feature_order))
            require(not unknown, each.name, f"columns {unknown} stand not in feature_order {list(self.feature_order)}")
            require(each.source != COLUMNS or bool(each.columns), each.name, "source 'columns' needs some columns")

    def _check_calibration(self) -> None:
        if self.calibration is None:
            return
        cells = self.calibrated.counts
        require(len(self.calibration.correct) == len(cells), "calibration", f"correct must have {len(cells)} entries")
        fits = all(0 <= right <= count for right, count in zip(self.calibration.correct, cells, strict=True))
        require(
            fits, "calibration", f"correct must not be above the counts of {self.calibration.output!r}, nor below 0"
        )

    @property
    def calibrated(self) -> NumericProfile:
        """The numeric output whose cells `calibration` is about.

        :raises SpecificationError: there is none.
        """
        wanted = self.calibration.output if self.calibration else None
        for each in self.outputs:
            if each.name == wanted and isinstance(each, NumericProfile):
                return each
        raise SpecificationError(f"drift reference, calibration: there is no numeric output {wanted!r}")

    @property
    def watched(self) -> tuple[FeatureProfile, ...]:
        """All that is counted in cells: features, then outputs, then the errors of the representations."""
        return (*self.features, *self.outputs, *(each.error for each in self.representation))

    @functools.cached_property
    def numbers(self) -> NumericReference:
        """The numeric ones of `watched`, made ready to compare all of them at once."""
        return NumericReference(self.watched)

    @property
    def prediction(self) -> NumericProfile | None:
        """The profile of the score, where there is one."""
        found = (each for each in self.outputs if each.name == PREDICTION and isinstance(each, NumericProfile))
        return next(found, None)

    def document(self) -> dict[str, Any]:
        """Return the document, ready for `json.dumps`."""
        return {
            "format": FORMAT,
            "created": self.created.isoformat(),
            "rows": self.rows,
            "feature_order": list(self.feature_order),
            "features": [feature.document() for feature in self.features],
            "classes": None if self.classes is None else list(self.classes),
            "outputs": [output.document() for output in self.outputs],
            "representation": [each.document() for each in self.representation],
            "embeddings": [each.document() for each in self.embeddings],
            "calibration": None if self.calibration is None else self.calibration.document(),
        }


_CLASSES = "must be null, or at least two different texts"


def parse_profile(text: bytes | str) -> ReferenceProfile:
    """Read a profile document of format /2 or /1.

    :raises SpecificationError: it is no such document; the message names the place and the rule.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecificationError(f"the drift reference is no JSON document: {error}") from error
    require(isinstance(document, dict), "document", f"must be an object, not {type(document).__name__}")
    found = document.get("format")
    require(found in {FORMAT, FORMAT_1}, "format", f"is {found!r}; this version reads {FORMAT!r} and {FORMAT_1!r}")
    require_keys("document", document, _KEYS if found == FORMAT else _KEYS_1)
    try:
        return _parsed(document if found == FORMAT else _upgraded(document))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise error if isinstance(error, SpecificationError) else _malformed(error) from error


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of format /1 in the layout of /2."""
    prediction = document.pop("prediction")
    if prediction is not None:
        fits = isinstance(prediction, dict) and (prediction.get("name"), prediction.get("kind")) == (
            PREDICTION,
            "numeric",
        )
        require(fits, "prediction", f"must be a numeric object named {PREDICTION!r}, or null")
    outputs = [] if prediction is None else [prediction]
    return {
        **document, "classes": None, "outputs": outputs, "representation": [], "embeddings": [], "calibration": None,
    }  # fmt: skip


def _parsed(document: dict[str, Any]) -> ReferenceProfile:
    classes = document["classes"]
    require(classes is None or isinstance(classes, list), "classes", _CLASSES)
    return ReferenceProfile(
        created=datetime.fromisoformat(document["created"]),
        rows=integer("rows", document["rows"]),
        feature_order=tuple(map(str, document["feature_order"])),
        features=tuple(map(parse_feature, document["features"])),
        classes=None if classes is None else tuple(map(str, classes)),
        outputs=tuple(map(parse_feature, document["outputs"])),
        representation=tuple(map(parse_representation, document["representation"])),
        embeddings=tuple(map(parse_embedding, document["embeddings"])),
        calibration=_calibration(document["calibration"]),
    )


def _calibration(item: Any) -> Calibration | None:
    if item is None:
        return None
    require(isinstance(item, dict), "calibration", "must be an object or null")
    require_keys("calibration", item, _CALIBRATION_KEYS)
    correct = tuple(integer("calibration", count) for count in item["correct"])
    return Calibration(output=str(item["output"]), correct=correct)


def _malformed(error: Exception) -> SpecificationError:
    return SpecificationError(f"the drift reference is malformed: {error}; airflow_dlaws/drift/profile.py states how")
