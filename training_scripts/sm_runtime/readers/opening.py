"""One door for all formats: `open_dataset(folder)`."""

from collections.abc import Collection, Mapping
from pathlib import Path

from sm_runtime.readers import arrays, records, stores, tables
from sm_runtime.readers.codecs import Codec, decoder
from sm_runtime.readers.dataset import Dataset
from sm_runtime.readers.errors import DataRefused
from sm_runtime.readers.fields import Field
from sm_runtime.readers.images import SUFFIXES, ImageFolder
from sm_runtime.readers.shard import BlockCache, Shard

#: Format -> how its files end.
FORMATS: dict[str, frozenset[str]] = {
    "npy": frozenset({".npy"}),
    "npz": frozenset({".npz"}),
    "pth": frozenset({".pth", ".pt"}),
    "parquet": frozenset({".parquet"}),
    "csv": frozenset({".csv"}),
    "tfrecord": frozenset({".tfrecord", ".tfrecords"}),
    "recordio": frozenset({".rec", ".recordio"}),
    "hdf5": frozenset({".h5", ".hdf5"}),
    "lmdb": frozenset({".lmdb", ".mdb"}),
    "n5": frozenset({".n5"}),
    "images": SUFFIXES,
}
#: Blocks in memory before `Dataset.order` asks for more.
BLOCKS = 4
#: Keys in which writers of LMDB keep the number of samples or the list of keys.
LMDB_SKIP = frozenset({b"__len__", b"__keys__"})


def open_dataset(
    folder: str | Path,
    format: str | None = None,
    *,
    fields: Mapping[str, Field] | None = None,
    columns: Collection[str] | None = None,
    codec: Codec | None = None,
    index_folder: str | Path | None = None,
    image_mode: str = "RGB",
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Open the files of a folder, and of its subfolders, as one data set; shards stand in the order of their names.

    :param format: one of FORMATS; None: told by how the files end.
    :param fields: what the format does not say of a field.
    :param columns: fields to return; None: all.
    :param codec: what a record of TFRecord ("example"), RecordIO ("mxnet"; or "record", SageMaker's) or LMDB
        ("bytes") holds.
    :param index_folder: where indices of TFRecord and RecordIO are kept between runs; None: built at each start.
    :raises DataRefused: no files of a known format, or several formats.
    :raises DataCorrupt: an index or a checksum is wrong.
    """
    root = Path(folder)
    found = files(root)
    chosen = format or detect(root, found)
    if chosen not in FORMATS:
        raise DataRefused(f"format={format!r}: allowed are {sorted(FORMATS)}")
    paths = [path for path in found if path.suffix.lower() in FORMATS[chosen]]
    cache = BlockCache(BLOCKS)
    options = dict(fields or {})
    if chosen in ("tfrecord", "recordio"):
        kept = Path(index_folder) if index_folder else None
        shards = _records(chosen, paths, codec, kept)
    else:
        wanted = None if columns is None else list(columns)
        shards = _others(chosen, root, paths, cache, options, wanted, codec, image_mode, image_size)
    if not shards:
        raise DataRefused(f"{root} has no files of {chosen} ({', '.join(sorted(FORMATS[chosen]))})")
    return Dataset(shards, cache=cache, fields=options, columns=columns)


def files(root: Path) -> list[Path]:
    """Return the files and containers under a folder in the order of their names; hidden ones are left out."""
    if not root.exists():
        raise DataRefused(
            f"{root} does not exist: name the folder of a channel of the input mode File or FastFile; one of the mode "
            "Pipe has none"
        )
    if root.is_file() or root.suffix == ".n5" or (root / "attributes.json").exists() or (root / "data.mdb").exists():
        return [root]
    found: list[Path] = []
    for child in sorted(root.iterdir()):
        if child.name[0] in "._":
            continue
        found += files(child) if child.is_dir() else [child]
    return found


def detect(root: Path, found: list[Path]) -> str:
    """Tell the format by how files end."""
    if (root / "attributes.json").exists():
        return "n5"
    formats = {name for name, ends in FORMATS.items() for path in found if path.suffix.lower() in ends}
    if any((path / "data.mdb").exists() for path in found):
        formats.add("lmdb")
    if len(formats) == 1:
        return formats.pop()
    what = f"files of several formats ({sorted(formats)})" if formats else "no file of a known format"
    if not formats and any(path.suffix == ".gz" for path in found):
        raise DataRefused(f"{root} has {what}, but files of gzip, which allow no random access: decompress them first")
    raise DataRefused(f"{root} has {what}: name one with format=, allowed are {sorted(FORMATS)}")


def _records(format: str, paths: list[Path], codec: Codec | None, kept: Path | None) -> list[Shard]:
    if format == "tfrecord":
        build, unpack, decode = records.tfrecord_index, records.unpack_tfrecord(), decoder(codec or "example")
    else:
        build, unpack, decode = records.recordio_index, records.unpack_recordio, decoder(codec or "mxnet")
    return [records.RecordShard(path, records.cached_index(build, path, kept), unpack, decode) for path in paths]


def _others(
    format: str,
    root: Path,
    paths: list[Path],
    cache: BlockCache,
    fields: dict[str, Field],
    columns: list[str] | None,
    codec: Codec | None,
    mode: str,
    size: tuple[int, int] | None,
) -> list[Shard]:
    if format == "images":
        return [ImageFolder(root, mode, size)]
    if format == "npy":
        return list(arrays.npy_shards(paths))
    if format == "n5":
        return [stores.N5Shard(path, cache) for path in paths or [root]]
    if format == "lmdb":
        found = [path for path in files(root) if path in paths or (path / "data.mdb").exists()]
        return [stores.LmdbShard(path, codec or "bytes", LMDB_SKIP) for path in found]
    if format == "csv":
        types = tables.csv_types(paths, fields, columns)
        return [tables.CsvShard(path, cache, types, columns) for path in paths]
    open_shard = {
        "npz": lambda path: arrays.npz_shard(path, cache),
        "pth": arrays.pth_shard,
        "parquet": lambda path: tables.ParquetShard(path, cache, columns),
        "hdf5": lambda path: stores.Hdf5Shard(path, cache),
    }[format]
    return [open_shard(path) for path in paths]
