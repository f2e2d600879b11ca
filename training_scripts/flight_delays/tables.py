"""CSV channels: the label first, the features after it, a header in every file. All values stay text here."""

import csv
import hashlib
import io
import pathlib
import zlib
from dataclasses import dataclass

import numpy as np


@dataclass
class Table:
    """Rows of a channel: `labels` (float32, 0 or 1), the features by name, and where they come from."""

    label: str
    labels: np.ndarray
    columns: dict[str, list[str]]
    files: list[dict]

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: np.ndarray) -> "Table":
        """Return the rows whose flag in `chosen` is true."""
        places = np.flatnonzero(chosen)
        columns = {name: [values[place] for place in places] for name, values in self.columns.items()}
        return Table(self.label, self.labels[places], columns, self.files)


def read(folder: str) -> Table:
    """Read every *.csv under `folder`, in the order of their paths."""
    root = pathlib.Path(folder)
    paths = sorted(root.rglob("*.csv"))
    if not paths:
        raise SystemExit(f"there is no .csv file under {root}: the channel is empty, or its S3 prefix is wrong")
    header, rows, files = None, [], []
    for path in paths:
        content = path.read_bytes()
        first, *found = read_rows(path, content) or [[]]
        header = header or first
        if first != header or not found:
            raise SystemExit(f"{path} has {len(found)} rows of {first}; expected at least one of {header}")
        for number, row in enumerate(found, start=2):
            if len(row) != len(header):
                raise SystemExit(f"{path}, row {number}: {len(row)} values for the {len(header)} columns {header}")
        digest = hashlib.sha256(content).hexdigest()
        files.append({"path": str(path.relative_to(root)), "rows": len(found), "sha256": digest})
        rows += found
    label, *names = header
    labels, *columns = zip(*rows, strict=True)
    if wrong := sorted(set(labels) - {"0", "1"}):
        raise SystemExit(f"the first column, {label!r}, must be a label of 0 or 1; it has {wrong[:3]}")
    features = {name: list(values) for name, values in zip(names, columns, strict=True)}
    return Table(label, np.array(labels, dtype=np.float32), features, files)


def read_rows(path: pathlib.Path, content: bytes) -> list[list[str]]:
    """Return the rows of a file, the header first; end with the reason where it is no CSV in UTF-8."""
    try:
        # Not splitlines(): a value in quotes may have lines of its own, and Unicode has more line ends than CSV.
        return [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{path} is no CSV file in UTF-8: {error}") from None


def split(table: Table, share: float) -> tuple[Table, Table]:
    """Return (training rows, held-out rows). Its own text decides, so a row always falls on the same side."""
    texts = map(",".join, zip(*table.columns.values(), strict=True))
    held_out = np.array([zlib.crc32(text.encode()) for text in texts]) < share * 2**32
    if held_out.all() or not held_out.any():
        raise SystemExit(f"{len(table)} rows cannot be split with a validation share of {share}")
    return table.where(~held_out), table.where(held_out)
