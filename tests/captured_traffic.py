"""Captured traffic for tests: lines as SageMaker writes them, and rows with or without a shift."""

import itertools
import json
import random
from datetime import UTC, datetime

from airflow_dlaws.drift.build import build_profile

_EVENTS = itertools.count(1)


def captured(rows, scores, *, time="2013-07-01T10:00:00Z", encoding="CSV", content_type="text/csv"):
    """Return one captured request as SageMaker writes it, an event of its own; rows and scores are the bodies."""
    side = {"observedContentType": content_type, "encoding": encoding}
    return {
        "captureData": {
            "endpointInput": {**side, "mode": "INPUT", "data": rows},
            "endpointOutput": {**side, "mode": "OUTPUT", "data": scores},
        },
        "eventMetadata": {"eventId": f"event-{next(_EVENTS)}", "inferenceId": "replay-1", "inferenceTime": time},
        "eventVersion": "0",
    }


def lines(*documents):
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def healthy_rows(count, seed, *, delay=0.0, carriers="AAABBC"):
    """Return rows of delay, temp and carrier, and a score for each."""
    generator = random.Random(seed)
    rows = [(generator.gauss(10 + delay, 5), generator.gauss(60, 10), generator.choice(carriers)) for _ in range(count)]
    return rows, [min(1.0, max(0.0, 0.02 * row[0] + generator.random() * 0.1)) for row in rows]


def reference(rows=5000):
    """Return the profile of healthy rows."""
    table, scores = healthy_rows(rows, seed=1)
    return build_profile(
        dict(zip(["delay", "temp", "carrier"], zip(*table, strict=True), strict=True)),
        categorical=["carrier"],
        answers=scores,
        created=datetime(2013, 4, 1, tzinfo=UTC),
    )


def capture_file(rows, scores, *, times=("2013-07-01T10:00:00Z",), batch=20):
    """Return a capture file of these rows, `batch` of them a request."""
    documents = []
    for number, start in enumerate(range(0, len(rows), batch)):
        body = "\n".join(",".join(map(str, row)) for row in rows[start : start + batch])
        answer = "\n".join(f"{score:.6f}" for score in scores[start : start + batch])
        documents.append(captured(body, answer, time=times[number % len(times)]))
    return lines(*documents)
