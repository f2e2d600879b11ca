"""Writes the same samples in every format, with a library that is not ours wherever there is one."""

import struct
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import tensorstore
import torch
from PIL import Image
from tfrecord.writer import TFRecordWriter

MAGIC = struct.pack("<I", 0xCED7230A)


def recordio(record: bytes) -> bytes:
    """Frame one record as dmlc-core's writer does: split where the magic number stands at a multiple of 4."""
    cuts = [at for at in range(0, len(record) - 3, 4) if record[at : at + 4] == MAGIC]
    starts, ends = [0, *(at + 4 for at in cuts)], [*cuts, len(record)]
    out = b""
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        part = record[start:end]
        flag = 0 if not cuts else 1 if number == 0 else 3 if number == len(cuts) else 2
        out += MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def write(format: str, folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images (uint8[n, h, w]) and labels in two shards."""
    folder.mkdir(parents=True)
    half = len(labels) // 3
    for number, part in enumerate((slice(0, half), slice(half, None))):
        _WRITERS[format](folder, number, images[part], labels[part])


def _npy(folder, number, images, labels):
    np.save(folder / f"image-{number:05}.npy", images)
    np.save(folder / f"label-{number:05}.npy", labels)


def _npz(folder, number, images, labels):
    (np.savez if number else np.savez_compressed)(folder / f"{number}.npz", image=images, label=labels)


def _pth(folder, number, images, labels):
    torch.save({"image": torch.from_numpy(images), "label": torch.from_numpy(labels)}, folder / f"{number}.pth")


def _parquet(folder, number, images, labels):
    flat = images.reshape(len(images), -1)
    table = pa.table({"image": pa.array([row.tobytes() for row in flat], pa.binary(flat.shape[1])), "label": labels})
    pa.parquet.write_table(table, folder / f"{number}.parquet", row_group_size=50, write_page_checksum=True)


def _csv(folder, number, images, labels):
    flat = images.reshape(len(images), -1)
    columns = {f"pixel{at}": flat[:, at] for at in range(flat.shape[1])}
    pa.csv.write_csv(pa.table({"label": labels, **columns}), folder / f"{number}.csv")


def _tfrecord(folder, number, images, labels):
    writer = TFRecordWriter(str(folder / f"{number}.tfrecord"))
    for image, label in zip(images, labels, strict=True):
        writer.write({"image": (image.tobytes(), "byte"), "label": (int(label), "int")})
    writer.close()


def _recordio(folder, number, images, labels):
    records = [
        recordio(struct.pack("<IfQQ", 0, float(label), at, 0) + image.tobytes())
        for at, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    (folder / f"{number}.rec").write_bytes(b"".join(records))


def _hdf5(folder, number, images, labels):
    with h5py.File(folder / f"{number}.h5", "w") as file:
        file.create_dataset("image", data=images, chunks=(50, *images.shape[1:]), compression="gzip", fletcher32=True)
        file.create_dataset("label", data=labels)


def _lmdb(folder, number, images, labels):
    with lmdb.open(str(folder / f"{number}.lmdb"), map_size=1 << 26) as store, store.begin(write=True) as transaction:
        for at, (image, label) in enumerate(zip(images, labels, strict=True)):
            transaction.put(b"%06d" % at, struct.pack("<q", label) + image.tobytes())


def _n5(folder, number, images, labels):
    for name, array in {"image": images, "label": labels}.items():
        shape = array.shape[::-1]
        metadata = {"dimensions": shape, "blockSize": [*shape[:-1], 50], "dataType": str(array.dtype)}
        store = {"driver": "file", "path": f"{folder}/{number}.n5/{name}"}
        spec = {"driver": "n5", "kvstore": store, "metadata": {**metadata, "compression": {"type": "gzip"}}}
        tensorstore.open(spec, create=True).result()[...] = array.T


def _images(folder, number, images, labels):
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{number}-{at:05}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)


_WRITERS = {
    "npy": _npy,
    "npz": _npz,
    "pth": _pth,
    "parquet": _parquet,
    "csv": _csv,
    "tfrecord": _tfrecord,
    "recordio": _recordio,
    "hdf5": _hdf5,
    "lmdb": _lmdb,
    "n5": _n5,
    "images": _images,
}
