"""A model that fails on a share of requests, made from one that does not: what the canary of the demo must refuse.

The fault is an ordinary one. Somebody adds the airlines' names to the handler, for the service's logs, and the table
misses an airline: each request for it raises KeyError. Weights, schema and every other answer stay as they were, so the
model loads and passes its health check; only traffic shows it.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile

from airflow_dlaws.errors import SpecificationError

HANDLER = "code/inference.py"
PREPROCESSING = "preprocessing.json"

#: United flies every sixth flight out of New York (58,665 of 336,776 in 2013): a fault that a canary has to see.
FORGOTTEN = "UA"

CHANGE = '''

#: Airlines by name, for the service's logs.
AIRLINES = {airlines!r}

answer = predict


def predict(model, body, content_type):
    """Answer one request, and say for which airlines."""
    rows = read_json(body, model.features) if "json" in content_type else read_csv(body, model.features)
    place = model.features.index("carrier")
    print("airlines:", ", ".join(sorted({{AIRLINES[row[place]] for row in rows}})), flush=True)
    return answer(model, body, content_type)
'''


def break_model(archive: bytes, *, forgotten: str = FORGOTTEN) -> bytes:
    """Return a copy of a model.tar.gz whose handler raises KeyError for the flights of one airline.

    :raises SpecificationError: the archive is not of a flight-delays model, or its model never met that airline.
    """
    output = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as good,
        gzip.GzipFile(fileobj=output, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as bad,
    ):
        members = {member.name.removeprefix("./"): member for member in good.getmembers()}
        if not {HANDLER, PREPROCESSING} <= set(members):
            raise SpecificationError(f"the archive has {sorted(members)}; a flight-delays model has {HANDLER} in it")
        carriers = json.loads(_content(good, members[PREPROCESSING]))["categorical"]["carrier"]
        if forgotten not in carriers:
            raise SpecificationError(f"the model knows no airline {forgotten!r}; it knows {', '.join(carriers)}")
        airlines = {code: f"airline {code}" for code in carriers if code != forgotten}
        for name, member in members.items():
            content = _content(good, member)
            if name == HANDLER:
                content += CHANGE.format(airlines=airlines).encode()
                member.size = len(content)
            bad.addfile(member, io.BytesIO(content))
    return output.getvalue()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()
