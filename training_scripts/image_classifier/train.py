"""Train the image classifier: a small convolutional network that says which digit was written by hand.

On one processor:        python train.py --train DATA/train --validation DATA/validation --model-dir OUT
On two, on one machine:  torchrun --nproc-per-node 2 train.py (and the same arguments)
In SageMaker:            the SM_* variables name the folders, hyperparameters arrive as --name value

Channels hold .npz files as images.py reads them. Every host must see all of them (S3DataDistributionType
FullyReplicated); the ranks compare what they read and refuse to train on different images. The same data, arguments and
number of processes give the same weights on processors, bit by bit; so does a resumed run.

After every epoch a line of metrics is printed, the model is written, and the state is saved where there is a folder for
checkpoints. So SIGTERM, by which a sweep ends a trial that is behind, ends this after the step in work with exit code
143, and the model left behind is the one that the last line speaks of.
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

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

import images
import inference

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

#: Ten bins: PSI's thresholds assume them.
DRIFT_BINS = 10
#: Rows and columns of the pixels that the drift reference watches: a grid over where digits are written.
WATCHED = (6, 11, 16, 21)
#: A peer that died must not hold the others for torch's default of 30 minutes.
PEER_TIMEOUT = datetime.timedelta(minutes=5)
#: What a process that SIGTERM ended returns: 128 + 15.
STOPPED = 143


def arguments() -> argparse.Namespace:
    environment = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--batch_size", type=int, default=64, help="images of a step, over all processes")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--momentum", type=float, default=0.9, help="of the optimizer momentum alone")
    parser.add_argument("--weight_decay", type=float, default=1e-4)
    parser.add_argument("--width", type=int, default=16, help="channels of the first convolution; the second has twice")
    parser.add_argument("--dropout", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=int(environment("OMP_NUM_THREADS") or 1), help="of each process")
    parser.add_argument("--train", default=environment("SM_CHANNEL_TRAIN"))
    parser.add_argument("--validation", default=environment("SM_CHANNEL_VALIDATION"))
    parser.add_argument("--model-dir", default=environment("SM_MODEL_DIR"))
    parser.add_argument("--output-dir", default=environment("SM_OUTPUT_DATA_DIR"))
    parser.add_argument("--checkpoint-dir", default=environment("SM_CHECKPOINT_DIR"))
    args = parser.parse_args()
    if not (args.train and args.validation and args.model_dir):
        parser.error("name --train, --validation and --model-dir, or set SM_CHANNEL_TRAIN and the like")
    for name in ("epochs", "batch_size", "width", "threads", "learning_rate"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name} is {getattr(args, name)}; it must be above 0")
    for name, end in (("momentum", 1), ("dropout", 1), ("weight_decay", math.inf)):
        if not 0 <= getattr(args, name) < end:
            parser.error(f"--{name} is {getattr(args, name)}; it must be at least 0 and below {end}")
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

    def reduce(self, value: float, operation: dist.ReduceOp) -> float:
        """Return the sum or the maximum over all processes."""
        if self.size == 1:
            return value
        values = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(values, op=operation)
        return values.item()

    def any(self, flag: bool) -> bool:
        """Tell every process whether the flag is up in one of them."""
        return self.reduce(float(flag), dist.ReduceOp.MAX) > 0

    def from_first(self, value: object) -> object:
        """Return the first process's value in every process."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


def main() -> int:
    args = arguments()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    torch.set_num_threads(args.threads)
    group = Group()
    # Equal bits are promised on processors; on CUDA a warning is enough.
    torch.use_deterministic_algorithms(True, warn_only=group.device.type == "cuda")

    data = images.read(args.train)
    held_out = images.read(args.validation)
    digest = hashlib.sha256(json.dumps([data.files, held_out.files]).encode()).hexdigest()
    if group.any(group.from_first(digest) != digest):
        raise SystemExit("the processes have different images: every host needs the whole channels (FullyReplicated)")
    torch.manual_seed(args.seed)
    network = inference.Network(args.width, args.dropout).to(group.device)
    finished = fit(args, group, network, data, held_out, digest, stopping)
    if group.size > 1:
        dist.destroy_process_group()
    return 0 if finished else STOPPED


def fit(args, group: Group, network, data: images.Images, held_out: images.Images, digest: str, stopping) -> bool:
    """Train in place and write the model after every epoch; return False where SIGTERM came first."""
    # Each process takes an equal part of each batch, so that the mean of their gradients is the gradient of the batch.
    part = min(args.batch_size, len(data)) // group.size
    if part == 0:
        raise SystemExit(f"{group.size} processes cannot share batches of {min(args.batch_size, len(data))} images")
    batch = part * group.size
    pixels, labels = (torch.from_numpy(values).to(group.device) for values in (data.pixels, data.labels))
    momentum = {"momentum": args.momentum} if args.optimizer == "momentum" else {}
    optimizer = OPTIMIZERS[args.optimizer](
        network.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, **momentum
    )
    checkpoint = Checkpoint(args, group, digest)
    history = checkpoint.restore(network, optimizer)
    if history and group.rank == 0:  # a new machine has no model yet, its log no lines, and nothing may be left to do
        write_model(args, group, network, data, held_out, history)
        for metrics in history:
            report(metrics)
    parallel = torch.nn.parallel.DistributedDataParallel(network) if group.size > 1 else network

    for epoch in range(len(history) + 1, args.epochs + 1):
        order = torch.from_numpy(np.random.default_rng([args.seed, epoch]).permutation(len(data))).to(group.device)
        # Dropout draws by epoch and process, so a resumed run repeats it without a stored generator.
        torch.manual_seed((args.seed * 1_000_003 + epoch) * 1_009 + group.rank)
        losses = []
        for start in range(0, len(data) - batch + 1, batch):
            chosen = order[start + group.rank * part :][:part]
            loss = cross_entropy(parallel(pixels[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(finite("training loss", loss.item(), epoch, args))
            if group.any(stopping.is_set()):
                print(f"stopped by SIGTERM in epoch {epoch} of {args.epochs}", file=sys.stderr, flush=True)
                return False
        train_loss = group.reduce(sum(losses) / len(losses), dist.ReduceOp.SUM) / group.size
        if group.rank == 0:
            history.append({"epoch": epoch, "train:loss": round(train_loss, 6), **validate(network, held_out)})
            finite("validation loss", history[-1]["validation:loss"], epoch, args)
            write_model(args, group, network, data, held_out, history)
            checkpoint.save(history, network, optimizer)
            # Last, so that whoever reads the line and stops this process finds the model it speaks of.
            report(history[-1])
    return True


def report(metrics: dict) -> None:
    """Print the metrics as SageMaker and Airflow read them: one JSON line, at once."""
    print(json.dumps({"dlaws_metrics": metrics}), flush=True)


def finite(what: str, value: float, epoch: int, args: argparse.Namespace) -> float:
    """Return the value, or fail: weights that are no numbers learn no more, and no trial may look as if they did.

    The line of metrics tells a sweep that the trial has diverged: its parameters are to blame, and not the script.
    """
    if not math.isfinite(value):
        print(json.dumps({"dlaws_metrics": {"epoch": epoch, "validation:error": math.nan}}), flush=True)
        raise FloatingPointError(
            f"the {what} is {value} in epoch {epoch} with {args.optimizer}, learning_rate {args.learning_rate:g}, "
            f"batch_size {args.batch_size}: lower the learning rate"
        )
    return value


def ask(network, held_out: images.Images) -> torch.Tensor:
    """Return the logits of the held-out images."""
    device = next(network.parameters()).device
    return inference.logits(network, torch.from_numpy(held_out.pixels).to(device)).cpu()


def validate(network, held_out: images.Images) -> dict[str, float]:
    logits, labels = ask(network, held_out), torch.from_numpy(held_out.labels)
    wrong = logits.argmax(dim=1) != labels
    loss, error = cross_entropy(logits, labels).item(), wrong.double().mean().item()
    return {"validation:loss": round(loss, 6), "validation:error": round(error, 6)}


class Checkpoint:
    """The state after an epoch, in one file that is whole or not there. The first process reads and writes it."""

    def __init__(self, args: argparse.Namespace, group: Group, data: str) -> None:
        self.path = pathlib.Path(args.checkpoint_dir, "checkpoint.pt") if args.checkpoint_dir else None
        self.group = group
        #: A checkpoint of another run must not be continued. More epochs are the same run, as nothing depends on them.
        self.made_by = {**hyperparameters(args), "processes": group.size, "data": data}
        del self.made_by["epochs"]

    def restore(self, network, optimizer) -> list[dict]:
        """Load the newest state into the two; return the metrics of the epochs it has seen."""
        found = None
        if self.path and self.group.rank == 0 and self.path.exists():
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        found = self.group.from_first(found)
        if found is None:
            return []
        if found["made_by"] != self.made_by:
            raise SystemExit(f"{self.path} was made by {found['made_by']}, not by {self.made_by}: use another folder")
        network.load_state_dict(found["network"])
        optimizer.load_state_dict(found["optimizer"])
        print(f"resumed after epoch {len(found['history'])}", file=sys.stderr, flush=True)
        return found["history"]

    def save(self, history: list[dict], network, optimizer) -> None:
        if not self.path:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".tmp")
        states = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({"made_by": self.made_by, "history": history, **states}, unfinished)
        unfinished.replace(self.path)


def drift_reference(data: images.Images, chances: np.ndarray) -> dict:
    """Profile pixels of the training images, and the probability of the digit chosen for each held-out image.

    airflow_dlaws/drift/profile.py states the format. Its columns are those of a request: pixels. Of 784 tests many
    would fire by chance or ask for very many rows; a grid of 16 tells paper from ink and where it is.
    """
    side = range(images.SIDE)
    watched = [(row, column) for row in WATCHED for column in WATCHED]
    return {
        "format": "dlaws-drift-reference/1",
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "rows": len(data),
        "feature_order": [pixel_name(row, column) for row in side for column in side],
        "features": [numeric_profile(pixel_name(*place), data.pixels[:, *place].astype(float)) for place in watched],
        # As the handler answers them.
        "prediction": numeric_profile("prediction", chances.round(6)),
    }


def pixel_name(row: int, column: int) -> str:
    return f"pixel_{row}_{column}"


def numeric_profile(name: str, values: np.ndarray) -> dict:
    """Count values between edges, each halfway from the value at a quantile to the next that occurs."""
    distinct = np.unique(values)
    quantiles = np.quantile(values, np.arange(1, DRIFT_BINS) / DRIFT_BINS, method="lower")
    after = np.unique(np.searchsorted(distinct, quantiles))
    edges = ((distinct[:-1] + distinct[1:]) / 2)[after[after < len(distinct) - 1]]
    return {
        "name": name,
        "kind": "numeric",
        "edges": edges.tolist(),
        "counts": np.bincount(np.digitize(values, edges), minlength=len(edges) + 1).tolist(),
        "missing": 0,
        "low": float(distinct[0]),
        "high": float(distinct[-1]),
    }


def model_card(args, group: Group, data, held_out, history: list[dict]) -> dict:
    return {
        "model": "image-classifier",
        "label": "digit",
        "data": {"train": data.files, "validation": held_out.files},
        "metrics": history[-1],
        "history": history,
        "hyperparameters": hyperparameters(args),
        "processes": group.size,
        "device": group.device.type,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def write_model(args, group: Group, network, data, held_out, history: list[dict]) -> None:
    """Write all that serves, watches and explains the model, together."""
    folder = pathlib.Path(args.model_dir)
    reference = drift_reference(data, ask(network, held_out).softmax(dim=1).amax(dim=1).numpy())
    card = model_card(args, group, data, held_out, history)
    (folder / "code").mkdir(parents=True, exist_ok=True)
    features = [{"name": name, "kind": "numeric"} for name in reference["feature_order"]]
    kinds = ["text/csv", "application/json", "application/x-npy"]
    documents = {
        "network": {"width": args.width, "dropout": args.dropout},
        "input_schema": {"label": card["label"], "features": features, "content_types": kinds},
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
