"""Train the image classifier: a small convolutional network that says which digit was written by hand.

On one processor:        PYTHONPATH=.. python train.py --train DATA/train --validation DATA/validation --model-dir OUT
On two, on one machine:  PYTHONPATH=.. torchrun --nproc-per-node 2 train.py (and the same arguments)
In SageMaker:            the SM_* variables name the folders, hyperparameters arrive as --name value

Channels hold .npz files as images.py reads them; `test`, where there is one, is asked once, at the end. Every host must
see all of them (FullyReplicated). sm_runtime does what is not about this model: processes, checkpoints, SIGTERM.

After every epoch the model is written, and a line of metrics is printed. So SIGTERM, by which a sweep ends a trial that
is behind, ends this after the step in work with exit code 143, and the model left behind is the one that the last line
of an epoch speaks of.
"""

import argparse
import math
import os
import pathlib
import sys

import torch
from torch.nn.functional import cross_entropy

import images
import inference
import sm_runtime
from sm_runtime import drift_profile, gadam, optimizers, options, package

#: Rows and columns of the pixels that the drift reference watches one by one: a grid over where digits are written. The
#: principal components watch all of them together.
WATCHED = (6, 11, 16, 21)


def arguments(environment: sm_runtime.Environment) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sm_runtime.add_options(parser, epochs=9, batch_size=64)
    optimizers.add_options(parser, optimizer="adam", learning_rate=3e-3, weight_decay=1e-4)
    parser.add_argument("--width", type=int, default=16, help="channels of the first convolution; the second has twice")
    parser.add_argument("--dropout", type=float, default=0.25)
    parser.add_argument("--shift", type=int, default=1, help="pixels by which training images are moved at most")
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    parser.add_argument("--threads", type=int, default=threads, help="of each process")
    options.add_folders(parser, environment, needed=["train", "validation"], optional=["test"])
    args = parser.parse_args()
    options.check_folders(parser, args)
    for name in ("width", "threads", "epochs", "batch_size"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name} is {getattr(args, name)}; it must be above 0")
    if not 0 <= args.dropout < 1:
        parser.error(f"--dropout is {args.dropout}; it must be at least 0 and below 1")
    if not 0 <= args.shift < images.SIDE:
        parser.error(f"--shift is {args.shift}; it must be at least 0 and below {images.SIDE}")
    return args


def main() -> int:
    environment = sm_runtime.read_environment()
    args = arguments(environment)
    plan = gadam.plan_for(args.optimizer, sm_runtime.plan_of(args))
    with sm_runtime.join(environment, plan) as group:
        torch.set_num_threads(args.threads)
        data, held_out = images.read(args.train), images.read(args.validation)
        group.must_agree("images", [data.files, held_out.files])
        gadam.seed_member(plan, group)
        network = inference.Network(args.width, args.dropout)
        watched = watch(data) if group.first else {}
        task = sm_runtime.Task(
            model=network,
            optimizer=optimizers.from_options(args),
            data=sm_runtime.Tensors(torch.from_numpy(data.pixels), torch.from_numpy(data.labels)).to(group.device),
            loss=lambda model, batch: loss(model, batch, args.shift),
            # The learning rate is constant: nothing but the length of the run depends on the epochs.
            identity={**options.identity(args, leave_out=["epochs"]), "data": [data.files, held_out.files]},
            validate=lambda model: measure("validation", model, held_out),
            write=lambda weights, history: write_model(args, group, weights, history, data, held_out, watched),
        )
        task = gadam.breed(task, plan, group)
        try:
            outcome = sm_runtime.fit(
                plan, group, task, checkpoint_dir=args.checkpoint_dir, hosts=len(environment.hosts)
            )
        except sm_runtime.Diverged as error:
            # A sweep reads from this line that the trial's parameters are to blame, and not the script.
            sm_runtime.report({"epoch": error.epoch, "validation:error": math.nan})
            settings = f"{args.optimizer}, learning_rate {args.learning_rate:g}, batch_size {args.batch_size}"
            raise FloatingPointError(f"{error} (with {settings})") from None
        if outcome.finished and group.first and args.test:
            sm_runtime.report(measure("test", served(args, group, outcome.weights), images.read(args.test)))
    return outcome.exit_code


def loss(network: torch.nn.Module, batch: tuple[torch.Tensor, ...], shift: int) -> torch.Tensor:
    """Return the loss of each image, moved at random: a digit is the same digit one pixel further."""
    pixels, labels = batch
    return cross_entropy(network(move(pixels, shift) if shift else pixels), labels, reduction="none")


def move(pixels: torch.Tensor, shift: int) -> torch.Tensor:
    """Move each image (n x 28 x 28) up or down and left or right by `shift` pixels at most; paper comes in."""
    count, device = len(pixels), pixels.device
    padded = torch.nn.functional.pad(pixels, [shift] * 4)
    rows, columns = torch.randint(0, 2 * shift + 1, (2, count, 1), device=device) + torch.arange(
        images.SIDE, device=device
    )
    return padded[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def measure(name: str, network: torch.nn.Module, held_out: images.Images) -> dict[str, float]:
    """Return loss and share of wrong answers on held-out images."""
    logits, labels = ask(network, held_out), torch.from_numpy(held_out.labels)
    wrong = logits.argmax(dim=1) != labels
    loss, error = cross_entropy(logits, labels).item(), wrong.double().mean().item()
    return {f"{name}:loss": round(loss, 6), f"{name}:error": round(error, 6)}


def ask(network: torch.nn.Module, held_out: images.Images) -> torch.Tensor:
    device = next(network.parameters()).device
    return inference.logits(network, torch.from_numpy(held_out.pixels).to(device)).cpu()


def pixel_name(row: int, column: int) -> str:
    return f"pixel_{row}_{column}"


def watch(data: images.Images) -> dict:
    """Profile the training images: some pixels, and how well principal components of all pixels explain an image.

    The columns of a request are pixels. Of 784 tests many would ask for very many rows; a grid of 16 tells paper from
    ink and where it is, and what no single pixel shows, such as noise, the components cannot explain.
    """
    side = range(images.SIDE)
    order = [pixel_name(row, column) for row in side for column in side]
    watched = [(row, column) for row in WATCHED for column in WATCHED]
    return {
        "rows": len(data),
        "feature_order": order,
        "features": [drift_profile.numeric(pixel_name(*at), data.pixels[:, *at]) for at in watched],
        "representation": [drift_profile.pca("pca", order, data.pixels.reshape(len(data), -1), one_scale=True)],
    }


def served(args: argparse.Namespace, group: sm_runtime.Group, weights: dict) -> torch.nn.Module:
    return package.served(inference.Network(args.width, args.dropout), weights, group.device)


def write_model(args, group, weights: dict, history: list[dict], data, held_out, watched: dict) -> None:
    """Write all that serves, watches and explains the model, together."""
    chances = ask(served(args, group, weights), held_out).softmax(dim=1).numpy().round(inference.DECIMALS)
    answered = drift_profile.classifier(chances, inference.NAMES, held_out.labels)
    reference = drift_profile.document(**watched, **answered)
    package.write(
        args.model_dir,
        weights,
        handler=pathlib.Path(inference.__file__),
        documents={"network": {"width": args.width, "dropout": args.dropout}},
        input_schema={
            "label": "digit",
            "features": [{"name": name, "kind": "numeric"} for name in reference["feature_order"]],
            "content_types": ["text/csv", "application/json", "application/x-npy"],
        },
        model_card=package.model_card(
            model="image-classifier",
            label="digit",
            data={"train": data.files, "validation": held_out.files},
            metrics=history[-1],
            history=history,
            hyperparameters=options.hyperparameters(args),
            seed=args.seed,
            processes=group.size,
            device=group.device.type,
        ),
        drift_reference=reference,
        output=args.output_dir,
    )


if __name__ == "__main__":
    sys.exit(main())
