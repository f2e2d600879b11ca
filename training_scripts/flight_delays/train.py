"""Train the flight-delays model: a perceptron that says how likely a flight arrives more than 15 minutes late.

On one processor:        PYTHONPATH=.. python train.py --train DATA --model-dir OUT
On two, on one machine:  PYTHONPATH=.. torchrun --nproc-per-node 2 train.py --train DATA --model-dir OUT
In SageMaker:            the SM_* variables name the folders, hyperparameters arrive as --arguments

DATA holds CSV files in any subfolders: header, label first (0 or 1), the features after it. Every host must see all of
them (S3DataDistributionType FullyReplicated); the ranks compare what they read and refuse to train on different rows.
sm_runtime does what is not about this model: processes, checkpoints, SIGTERM.

SIGTERM finishes the step, writes a checkpoint and ends with exit code 143: no model is written, as none is finished.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import inference
import measures
import preprocessing
import sm_runtime
import tables
from sm_runtime import gadam, optimizers, options, package


def arguments(environment: sm_runtime.Environment) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sm_runtime.add_options(parser, epochs=5, batch_size=1024)
    optimizers.add_options(parser, optimizer="adamw", learning_rate=3e-3, weight_decay=1e-2)
    parser.add_argument("--hidden", default="128,64", help="units of the hidden layers")
    parser.add_argument("--embed", type=int, default=8, help="numbers that stand for a category")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--categorical", default="hour,weekday,carrier,origin,dest", help="the others are numbers")
    share = "held out where no validation folder is given"
    parser.add_argument("--validation-share", type=float, default=0.1, help=share)
    options.add_folders(parser, environment, needed=["train"], optional=["validation"])
    args = parser.parse_args()
    options.check_folders(parser, args)
    if args.epochs < 1 or args.batch_size < 1 or not 0 < args.validation_share < 1:
        parser.error("--epochs and --batch-size must be at least 1, --validation-share between 0 and 1")
    return args


def main() -> int:
    environment = sm_runtime.read_environment()
    args = arguments(environment)
    started = time.monotonic()
    plan = gadam.plan_for(args.optimizer, sm_runtime.plan_of(args))
    with sm_runtime.join(environment, plan) as group:
        rows = tables.read(args.train)
        group.must_agree("training files", rows.files)
        held_out = tables.read(args.validation) if args.validation else None
        group.must_agree("validation files", held_out and held_out.files)
        if held_out is None:
            rows, held_out = tables.split(rows, args.validation_share)
        elif list(held_out.columns) != list(rows.columns):
            raise SystemExit(
                f"the validation files have {list(held_out.columns)}, the training files {list(rows.columns)}"
            )
        learned = learn(args, rows)
        encoder = inference.Encoder(learned)
        gadam.seed_member(plan, group)
        network = make_network(encoder, learned)
        data = sm_runtime.Tensors(*encoder(rows.columns), torch.from_numpy(rows.labels)).to(group.device)
        probe = [tensor.to(group.device) for tensor in encoder(held_out.columns)]
        task = sm_runtime.Task(
            model=network,
            optimizer=optimizers.from_options(args),
            schedule=optimizers.warm_up_and_decay,
            data=data,
            loss=loss,
            identity={**options.identity(args), "data": rows.files},
            validate=lambda model: validate(model, probe, held_out.labels),
        )
        task = gadam.breed(task, plan, group)
        outcome = sm_runtime.fit(plan, group, task, checkpoint_dir=args.checkpoint_dir, hosts=len(environment.hosts))
        if outcome.finished and group.first:
            card = model_card(args, group, rows, held_out, outcome.history, time.monotonic() - started)
            network = package.served(make_network(encoder, learned), outcome.weights, group.device)
            reference = preprocessing.drift_reference(rows, learned["numeric"], score(network, probe), held_out.labels)
            write_model(args, outcome.weights, learned, rows, reference, card)
    return outcome.exit_code


def learn(args: argparse.Namespace, rows: tables.Table) -> dict:
    """Learn from the training rows what inference.Encoder and Network need."""
    categorical = [name.strip() for name in args.categorical.split(",") if name.strip()]
    hidden = [int(units) for units in str(args.hidden).split(",")]
    return preprocessing.learn(rows, categorical, {"hidden": hidden, "embed": args.embed, "dropout": args.dropout})


def make_network(encoder: inference.Encoder, learned: dict) -> inference.Network:
    return inference.Network(encoder.width, encoder.embeddings, len(encoder.places), **learned["network"])


def loss(network: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the loss of each row."""
    numbers, categories, labels = batch
    return binary_cross_entropy_with_logits(network(numbers, categories), labels, reduction="none")


@torch.inference_mode()
def score(network: torch.nn.Module, probe: list[torch.Tensor]) -> np.ndarray:
    """Return the probability of each held-out row."""
    network.eval()
    scores = torch.sigmoid(network(*probe).double()).cpu().numpy()
    network.train()
    return scores


def validate(network: torch.nn.Module, probe: list[torch.Tensor], labels: np.ndarray) -> dict[str, float]:
    scores = score(network, probe)
    metrics = {"validation:loss": measures.log_loss(labels, scores), "validation:auc": measures.auc(labels, scores)}
    return {name: round(value, 6) for name, value in metrics.items() if value == value}  # JSON has no NaN


def model_card(args, group, kept: tables.Table, held_out: tables.Table, history: list[dict], seconds: float) -> dict:
    return package.model_card(
        model="flight-delays",
        label=kept.label,
        data={"files": kept.files, "rows": len(kept), "validation_rows": len(held_out)},
        metrics=history[-1],
        history=history,
        hyperparameters=options.hyperparameters(args),
        seed=args.seed,
        processes=group.size,
        device=group.device.type,
        label_rate=round(float(kept.labels.mean()), 6),
        seconds=round(seconds, 3),
    )


def write_model(args, weights: dict, learned: dict, rows: tables.Table, reference: dict, card: dict) -> None:
    """Write all that serves, watches and explains the model, together."""
    kinds = {name: "numeric" if name in learned["numeric"] else "categorical" for name in rows.columns}
    package.write(
        args.model_dir,
        weights,
        handler=pathlib.Path(inference.__file__),
        documents={"preprocessing": learned},
        input_schema={
            "label": rows.label,
            "features": [{"name": name, "kind": kind} for name, kind in kinds.items()],
            "content_types": ["text/csv", "application/json"],
        },
        model_card=card,
        drift_reference=reference,
        output=args.output_dir,
    )


if __name__ == "__main__":
    sys.exit(main())
