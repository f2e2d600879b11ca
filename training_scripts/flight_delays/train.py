"""Train the flight-delays model: a perceptron that says how likely a flight arrives more than 15 minutes late.

On one processor:        python train.py --train DATA --model-dir OUT
On two, on one machine:  torchrun --nproc-per-node 2 train.py --train DATA --model-dir OUT
In SageMaker:            the SM_* variables name the folders, hyperparameters arrive as --arguments

DATA holds CSV files in any subfolders: header, label first (0 or 1), the features after it. Every host must see all of
them (S3DataDistributionType FullyReplicated); the ranks compare what they read and refuse to train on different rows.
The same data, arguments and number of processes give the same weights, bit by bit; so does a resumed run.

SIGTERM finishes the step, writes a checkpoint and ends with exit code 143: no model is written, as none is finished.
"""

import argparse
import datetime
import hashlib
import json
import math
import os
import pathlib
import platform
import shutil
import signal
import sys
import threading
import time

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import binary_cross_entropy_with_logits

import inference
import measures
import tables

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}

#: Inner edges a number is cut at, for the network; 10 bins for the drift reference, which PSI's thresholds assume.
NUMBER_BINS, DRIFT_BINS = 16, 10
#: A peer that died must not hold the others for torch's default of 30 minutes.
PEER_TIMEOUT = datetime.timedelta(minutes=5)
#: What a process that SIGTERM ended returns: 128 + 15.
STOPPED = 143


def arguments() -> argparse.Namespace:
    environment = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=1024, help="rows of a step, over all processes")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--lr", type=float, default=3e-3, help="the highest learning rate; it warms up and decays")
    parser.add_argument("--weight-decay", type=float, default=1e-2)
    parser.add_argument("--hidden", default="128,64", help="units of the hidden layers")
    parser.add_argument("--embed", type=int, default=8, help="numbers that stand for a category")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--categorical", default="hour,weekday,carrier,origin,dest", help="all other features are numbers"
    )
    parser.add_argument(
        "--validation-share", type=float, default=0.1, help="held out where no validation folder is given"
    )
    parser.add_argument("--train", default=environment("SM_CHANNEL_TRAIN"))
    parser.add_argument("--validation", default=environment("SM_CHANNEL_VALIDATION"))
    parser.add_argument("--model-dir", default=environment("SM_MODEL_DIR"))
    parser.add_argument("--output-dir", default=environment("SM_OUTPUT_DATA_DIR"))
    parser.add_argument("--checkpoint-dir", default=environment("SM_CHECKPOINT_DIR"))
    args = parser.parse_args()
    if not args.train or not args.model_dir:
        parser.error("name the folders with --train and --model-dir, or with SM_CHANNEL_TRAIN and SM_MODEL_DIR")
    if args.epochs < 1 or args.batch_size < 1 or not 0 < args.validation_share < 1:
        parser.error("--epochs and --batch-size must be at least 1, --validation-share between 0 and 1")
    return args


def hyperparameters(args: argparse.Namespace) -> dict:
    folders = {"train", "validation", "model_dir", "output_dir", "checkpoint_dir"}
    return {name: value for name, value in vars(args).items() if name not in folders}


class Group:
    """The processes that train together; of one process, where torchrun did not start this."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        self.device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("nccl" if cuda else "gloo", timeout=PEER_TIMEOUT)
        if self.size > 1 or "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // self.on_this_machine()))

    def on_this_machine(self) -> int:
        """Count the processes that share these cores: those of other "hosts" too, where the hosts are one machine."""
        if self.size == 1:
            return 1
        machine = pathlib.Path("/proc/sys/kernel/random/boot_id")
        mine = machine.read_text() if machine.exists() else platform.node()
        machines = [None] * self.size
        dist.all_gather_object(machines, mine)
        return machines.count(mine)

    def from_first(self, value: object) -> object:
        """Return the first process's value in every process."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Tell every process whether the flag is up in one of them."""
        if self.size == 1:
            return flag
        raised = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return bool(raised.item())

    def must_agree(self, what: str, value: str) -> None:
        """Stop the job unless the processes have the same value."""
        if self.any(self.from_first(value) != value):
            raise SystemExit(
                f"the processes have different {what}: every host needs the whole channel (FullyReplicated)"
            )


def main() -> int:
    args = arguments()
    started = time.monotonic()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    group = Group()
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)

    rows = tables.read(args.train)
    data = hashlib.sha256(json.dumps(rows.files).encode()).hexdigest()
    group.must_agree("training files", data)
    held_out = tables.read(args.validation) if args.validation else None
    if held_out is None:
        rows, held_out = tables.split(rows, args.validation_share)
    preprocessing = prepare(rows, args)
    encoder = inference.Encoder(preprocessing)
    network = inference.Network(encoder.width, encoder.embeddings, len(encoder.places), **preprocessing["network"])
    network.to(group.device)
    inputs = [tensor.to(group.device) for tensor in (*encoder(rows.columns), torch.from_numpy(rows.labels))]
    probe = [tensor.to(group.device) for tensor in encoder(held_out.columns)]

    checkpoint = Checkpoint(args, group, data)
    history = fit(args, group, checkpoint, network, inputs, probe, held_out.labels, stopping)
    if history is None:
        return STOPPED
    if group.rank == 0:
        reference = drift_reference(rows, score(network, probe), preprocessing)
        card = model_card(args, group, rows, held_out, history, time.monotonic() - started)
        write_model(args, network, preprocessing, rows, reference, card)
    if group.size > 1:
        dist.destroy_process_group()
    return 0


def fit(args, group: Group, checkpoint, network, inputs, probe, probe_labels, stopping) -> list[dict] | None:
    """Train in place; return the metrics of each epoch, or None where SIGTERM came first."""
    # Each process takes an equal part of each batch, so that the mean of their gradients is the gradient of the batch.
    count = len(inputs[0])
    part = min(args.batch_size, count) // group.size
    if part == 0:
        raise SystemExit(f"{group.size} processes cannot share batches of {min(args.batch_size, count)} rows")
    batch = part * group.size
    steps_per_epoch = count // batch
    steps = args.epochs * steps_per_epoch
    optimizer = OPTIMIZERS[args.optimizer](network.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_up_and_decay(step, steps))
    step, history = checkpoint.restore(network, optimizer, schedule)
    parallel = torch.nn.parallel.DistributedDataParallel(network) if group.size > 1 else network

    losses, clock = [], time.monotonic()
    while step < steps:
        epoch, place = divmod(step, steps_per_epoch)
        if not losses:
            order = torch.from_numpy(np.random.default_rng([args.seed, epoch]).permutation(count)).to(group.device)
        chosen = order[place * batch + group.rank * part :][:part]
        # Dropout draws by step and process, so a resumed run repeats it without a stored generator.
        torch.manual_seed((args.seed * 1_000_003 + step) * 1_009 + group.rank)
        numbers, categories, labels = (tensor[chosen] for tensor in inputs)
        loss = binary_cross_entropy_with_logits(parallel(numbers, categories), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        step += 1

        end_of_epoch = step % steps_per_epoch == 0
        if end_of_epoch and group.rank == 0:
            metrics = {"epoch": epoch + 1, "train:loss": float(torch.stack(losses).mean())}
            metrics |= validate(network, probe, probe_labels)
            metrics["samples_per_second"] = len(losses) * batch / (time.monotonic() - clock)
            measures.report(metrics)
            history.append(metrics)
        stop = group.any(stopping.is_set())
        if end_of_epoch or stop:
            checkpoint.save(step, history, network, optimizer, schedule)
            losses, clock = [], time.monotonic()
        if stop and step < steps:
            print(f"stopped by SIGTERM after step {step} of {steps}", file=sys.stderr, flush=True)
            return None
    return history


def prepare(rows: tables.Table, args: argparse.Namespace) -> dict:
    """Learn from the training rows what inference.Encoder needs."""
    categorical = [name.strip() for name in args.categorical.split(",") if name.strip()]
    if unknown := [name for name in categorical if name not in rows.columns]:
        raise SystemExit(f"--categorical names {unknown}; the features are {list(rows.columns)}")
    numeric = {}
    for name in (name for name in rows.columns if name not in categorical):
        try:
            values = inference.to_numbers(name, rows.columns[name])
        except ValueError as error:
            raise SystemExit(f"{error}: list it in --categorical if it is none") from None
        known = values[~np.isnan(values)]
        if not len(known):
            raise SystemExit(f"{name} is missing in all {len(rows)} training rows: leave the column out")
        edges = [known.min(), *quantile_edges(known, NUMBER_BINS), known.max()]
        numeric[name] = {"mean": float(known.mean()), "edges": [float(edge) for edge in np.unique(edges)]}
    values = {name: sorted({value.strip() for value in rows.columns[name]} - {""}) for name in categorical}
    hidden = [int(units) for units in str(args.hidden).split(",")]
    network = {"hidden": hidden, "embed": args.embed, "dropout": args.dropout}
    return {"numeric": numeric, "categorical": values, "network": network}


def quantile_edges(known: np.ndarray, bins: int) -> list[float]:
    """Return inner edges of about equally filled bins, each halfway between two values that occur."""
    values, counts = np.unique(known, return_counts=True)
    edges, filled = [], 0
    for value, following, seen in zip(values, values[1:], np.cumsum(counts), strict=False):
        if (seen - filled) * bins >= len(known):
            edges.append(float(value / 2 + following / 2))
            filled = seen
    return edges


def warm_up_and_decay(step: int, steps: int) -> float:
    """Share of the highest learning rate: up over the first tenth of the steps, then down along a cosine."""
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.inference_mode()
def score(network: torch.nn.Module, probe: list[torch.Tensor]) -> np.ndarray:
    network.eval()
    scores = torch.sigmoid(network(*probe).double()).cpu().numpy()
    network.train()
    return scores


def validate(network: torch.nn.Module, probe: list[torch.Tensor], labels: np.ndarray) -> dict[str, float]:
    scores = score(network, probe)
    return {"validation:loss": measures.log_loss(labels, scores), "validation:auc": measures.auc(labels, scores)}


class Checkpoint:
    """The state after a step, in one file that is whole or not there. The first process reads and writes it."""

    def __init__(self, args: argparse.Namespace, group: Group, data: str) -> None:
        self.path = pathlib.Path(args.checkpoint_dir, "checkpoint.pt") if args.checkpoint_dir else None
        self.group = group
        #: A checkpoint of another run must not be continued: its schedule or its rows would be others.
        self.made_by = {**hyperparameters(args), "processes": group.size, "data": data}

    def restore(self, network, optimizer, schedule) -> tuple[int, list[dict]]:
        """Load the newest state into the three; return the step to go on from and the metrics so far."""
        found = None
        if self.path and self.group.rank == 0 and self.path.exists():
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        found = self.group.from_first(found)
        if found is None:
            return 0, []
        if found["made_by"] != self.made_by:
            raise SystemExit(f"{self.path} was made by {found['made_by']}, not by {self.made_by}: use another folder")
        network.load_state_dict(found["network"])
        optimizer.load_state_dict(found["optimizer"])
        schedule.load_state_dict(found["schedule"])
        print(f"resumed from step {found['step']}", file=sys.stderr, flush=True)
        return found["step"], found["history"]

    def save(self, step: int, history: list[dict], network, optimizer, schedule) -> None:
        if not self.path or self.group.rank:
            return
        states = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".tmp")
        torch.save({"made_by": self.made_by, "step": step, "history": history, **states}, unfinished)
        unfinished.replace(self.path)


def drift_reference(rows: tables.Table, scores: np.ndarray, preprocessing: dict) -> dict:
    """Profile the training rows and the held-out scores; airflow_dlaws/drift/profile.py states the format."""
    features = [
        numeric_profile(name, inference.to_numbers(name, values))
        if name in preprocessing["numeric"]
        else categorical_profile(name, values)
        for name, values in rows.columns.items()
    ]
    return {
        "format": "dlaws-drift-reference/1",
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "rows": len(rows),
        "feature_order": list(rows.columns),
        "features": features,
        "prediction": numeric_profile("prediction", scores),
    }


def numeric_profile(name: str, values: np.ndarray) -> dict:
    known = values[~np.isnan(values)]
    edges = quantile_edges(known, DRIFT_BINS)
    counts = np.bincount(np.digitize(known, edges), minlength=len(edges) + 1)
    return {
        "name": name,
        "kind": "numeric",
        "edges": edges,
        "counts": counts.tolist(),
        "missing": len(values) - len(known),
        "low": float(known.min()),
        "high": float(known.max()),
    }


def categorical_profile(name: str, values: list[str]) -> dict:
    found, counts = np.unique([value.strip() for value in values], return_counts=True)
    known = dict(zip(found.tolist(), counts.tolist(), strict=True))
    missing = known.pop("", 0)
    return {"name": name, "kind": "categorical", "counts": known, "missing": missing}


def model_card(
    args, group: Group, kept: tables.Table, held_out: tables.Table, history: list[dict], seconds: float
) -> dict:
    return {
        "model": "flight-delays",
        "label": kept.label,
        "data": {"files": kept.files, "rows": len(kept), "validation_rows": len(held_out)},
        "label_rate": round(float(kept.labels.mean()), 6),
        "metrics": history[-1] if history else {},
        "hyperparameters": hyperparameters(args),
        "seed": args.seed,
        "processes": group.size,
        "device": group.device.type,
        "seconds": round(seconds, 3),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def write_model(args, network, preprocessing: dict, rows: tables.Table, reference: dict, card: dict) -> None:
    """Write all that serves, watches and explains the model, together."""
    folder = pathlib.Path(args.model_dir)
    (folder / "code").mkdir(parents=True, exist_ok=True)
    kinds = [
        {"name": name, "kind": "numeric" if name in preprocessing["numeric"] else "categorical"}
        for name in rows.columns
    ]
    schema = {"label": rows.label, "features": kinds, "content_types": ["text/csv", "application/json"]}
    documents = {
        "preprocessing": preprocessing,
        "input_schema": schema,
        "model_card": card,
        "drift_reference": reference,
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1))
    shutil.copy(pathlib.Path(inference.__file__), folder / "code" / "inference.py")
    torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, folder / "model.pt")
    if args.output_dir:
        output = pathlib.Path(args.output_dir)
        output.mkdir(parents=True, exist_ok=True)
        for name in ("drift_reference.json", "model_card.json"):
            shutil.copy(folder / name, output / name)
        (output / "metrics.json").write_text(json.dumps(card["metrics"], indent=1))


if __name__ == "__main__":
    sys.exit(main())
