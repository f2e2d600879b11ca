"""What a model answered, out of captured responses: one answer a row, and from it the outputs of the reference profile.

An answer is a number or a text, a list (probabilities, or a vector), or an object with named fields. A response does
not say which: `[0.2, 0.8]` may answer two rows or one. So it is read in the way that gives an answer to each row of its
request, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_dlaws.drift.body import Fault, Unreadable, csv_rows, documents, text_of
from airflow_dlaws.drift.profile import CONFIDENCE, PREDICTED_LABEL, PREDICTION, ReferenceProfile, probability_name
from airflow_dlaws.drift.values import number_of

Answer = object

#: Names under which serving programs wrap the answers of a JSON response.
_WRAPPERS = ("predictions", "scores", "outputs", "probabilities")
#: Names of what a profile knows, in the answers of serving programs; the first that is there counts.
_SCORES = (PREDICTION, "score", "probability", "predictions", "scores")
_PROBABILITIES = ("probabilities", "probability", "scores", "score", "predictions", PREDICTION)
_LABELS = (PREDICTED_LABEL, "label", "predicted_class", "class")

#: Probabilities are told from other numbers by their sum; so far it may be off, printed with few digits.
_SUM_ERROR = 0.01

#: A value under such a name is of one row, whatever lists stand beside it.
_ONE_ANSWER = (*_LABELS, PREDICTION, "score")


def read_answers(side: Mapping[str, Any], rows: int | None) -> list[Answer]:
    """Return the answers of `endpointOutput`.

    :param rows: how many there should be; None where the request is not captured.
    :raises Unreadable: the body is none of the known kinds.
    """
    kind, text = text_of(side)
    readings = _csv_readings(csv_rows(text)) if kind == "csv" else _json_readings(list(documents(kind, text)))
    return next((reading for reading in readings if len(reading) == rows), readings[0])


def _csv_readings(table: list[list[str]]) -> list[list[Answer]]:
    by_line: list[Answer] = [row if len(row) > 1 else row[0] for row in table]
    # Some of SageMaker's own algorithms answer all rows in one line.
    return [by_line, list(table[0])] if len(table) == 1 else [by_line]


def _json_readings(found: list[Any]) -> list[list[Answer]]:
    unwrapped = [answer for document in found for answer in _unwrapped(document)]
    return [unwrapped, found] if len(found) == 1 else [found, unwrapped]


def _unwrapped(document: Any) -> list[Answer]:
    if not isinstance(document, dict):
        return document if isinstance(document, list) else [document]
    wrapper = next((name for name in _WRAPPERS if isinstance(document.get(name), list)), None)
    single = any(document.get(name) is not None and not isinstance(document[name], list) for name in _ONE_ANSWER)
    if wrapper is None or single:
        return [document]
    answers: list[Answer] = document[wrapper]
    columns = {
        name: values
        for name, values in document.items()
        if isinstance(values, list) and len(values) == len(answers) and name != wrapper
    }
    if not columns:
        return answers
    # Columns side by side, one entry a row.
    return [
        {wrapper: answer, **{name: values[place] for name, values in columns.items()}}
        for place, answer in enumerate(answers)
    ]


def output_columns(profile: ReferenceProfile, answers: Sequence[Answer]) -> dict[str, list[object]]:
    """Return the columns of the profile's outputs, one entry an answer; None where an answer has no such output.

    Under the names of embeddings are vectors (lists), under the others single values.

    :raises Unreadable: an answer has nothing of what the profile knows.
    """
    names, vectors = [output.name for output in profile.outputs], _vectors(profile)
    read = []
    for answer in answers:
        found = {
            **{name: _value(profile, name, answer) for name in names},
            **{name: _vector(name, answer) for name in vectors},
        }
        # A single value may be missing; an object or a list with nothing known in it is another schema.
        if found and isinstance(answer, (list, dict)) and all(value is None for value in found.values()):
            raise Unreadable(Fault.UNKNOWN_JSON_LAYOUT)
        read.append(found)
    return {name: [each[name] for each in read] for name in (*names, *vectors)}


def _vectors(profile: ReferenceProfile) -> list[str]:
    """Return the names of the vector outputs that the profile reads."""
    sources = [each.source for each in profile.representation if not each.columns]
    return list(dict.fromkeys([*(each.name for each in profile.embeddings), *sources]))


def _value(profile: ReferenceProfile, name: str, answer: Answer) -> object:
    if isinstance(answer, dict) and not isinstance(answer.get(name, []), (list, dict)):
        return answer[name]
    if name == PREDICTION:
        return _score(answer)
    if name == PREDICTED_LABEL:
        return _label(profile, answer)
    probabilities = _probabilities(profile, answer)
    if name == CONFIDENCE:
        return max(probabilities.values(), default=None)
    return probabilities.get(name)


def _vector(name: str, answer: Answer) -> object:
    """Return a list of single values: the field of this name, or the whole answer."""
    value = answer.get(name) if isinstance(answer, dict) else answer
    flat = isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value)
    return value if flat else None


def _score(answer: Answer) -> object:
    if isinstance(answer, dict):
        answer = next((answer[name] for name in _SCORES if name in answer), None)
    if isinstance(answer, list):
        answer = answer[-1] if answer else None
    return None if isinstance(answer, (list, dict)) else answer


def _probabilities(profile: ReferenceProfile, answer: Answer) -> dict[str, float]:
    """Return the probability of each class by the name of its output, or nothing where the answer has none."""
    names = [probability_name(each) for each in profile.classes or ()]
    for candidate in _candidates(answer):
        values = candidate if isinstance(candidate, list) else [candidate]
        numbers = _numbers(values[-len(names) :] if len(values) > len(names) else values)
        if len(values) > len(names) and abs(sum(numbers) - 1) > _SUM_ERROR:
            continue
        if len(numbers) == 1 and len(names) == 2:
            numbers = [1.0 - numbers[0], numbers[0]]
        if numbers and len(numbers) == len(names):
            return dict(zip(names, numbers, strict=True))
    return {}


def _candidates(answer: Answer) -> Iterator[object]:
    if isinstance(answer, dict):
        yield from (answer[name] for name in _PROBABILITIES if name in answer)
    else:
        yield answer


def _numbers(values: Sequence[object]) -> list[float]:
    """Return the values as numbers, or nothing where one of them is none."""
    try:
        numbers = [None if isinstance(value, (list, dict)) else number_of(value) for value in values]
    except ValueError:
        return []
    return [number for number in numbers if number is not None] if None not in numbers else []


def _label(profile: ReferenceProfile, answer: Answer) -> object:
    if isinstance(answer, dict):
        named = next((answer[name] for name in _LABELS if name in answer), None)
        if named is not None:
            return None if isinstance(named, (list, dict)) else named
    probabilities = list(_probabilities(profile, answer).values())
    if probabilities and profile.classes:
        return profile.classes[probabilities.index(max(probabilities))]
    return None if isinstance(answer, (list, dict)) else answer


def outcome_of(answer: Answer) -> str | float | None:
    """Return what an answer comes to where no profile says what to look for: a class, a number, or None (unreadable).

    A list of numbers is the class of its largest one, by place; a label stands before scores.
    """
    if isinstance(answer, dict):
        labels = (answer[name] for name in _LABELS if answer.get(name) is not None)
        scores = (answer[name] for name in (*_PROBABILITIES, *_SCORES) if answer.get(name) is not None)
        label = next(labels, None)
        if label is not None:
            return str(label) if not isinstance(label, (list, dict)) else outcome_of(label)
        found = next(scores, next(iter(answer.values())) if len(answer) == 1 else None)
        return None if isinstance(found, dict) else outcome_of(found)
    if isinstance(answer, list):
        return _class_by_place(answer)
    if isinstance(answer, bool):
        return str(answer).lower()
    try:
        return number_of(answer)
    except ValueError:
        return answer if isinstance(answer, str) else None


def _class_by_place(values: Sequence[object]) -> str | float | None:
    if len(values) == 1:
        return outcome_of(values[0]) if not isinstance(values[0], dict) else None
    numbers = _numbers(values)
    return f"class {numbers.index(max(numbers))}" if numbers else None
