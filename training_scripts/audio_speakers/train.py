"""Train the speaker model: a recurrent network that says which of nine people spoke a vowel.

On one processor:        PYTHONPATH=.. python train.py --train DATA/train --validation DATA/validation --model-dir OUT
On two, on one machine:  PYTHONPATH=.. torchrun --nproc-per-node 2 train.py (and the same arguments)
In SageMaker:            the SM_* variables name the folders, hyperparameters arrive as --name value

Channels hold .npz files as utterances.py reads them; `test`, where there is one, is asked once, at the end. Every host
must see all of them (FullyReplicated). sm_runtime does what is not about this model: processes, checkpoints, SIGTERM.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import inference
import sm_runtime
import utterances
from sm_runtime import drift_profile, gadam, optimizers, options, package


def arguments(environment: sm_runtime.Environment) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sm_runtime.add_options(parser, epochs=40, batch_size=16, clip_norm=1.0)
    optimizers.add_options(parser, optimizer="adamw", learning_rate=5e-3, weight_decay=1e-2)
    parser.add_argument("--hidden", type=int, default=32, help="units of the network in each direction")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--noise", type=float, default=0.6, help="added to frames in training, in standard deviations")
    options.add_folders(parser, environment, needed=["train", "validation"], optional=["test"])
    args = parser.parse_args()
    options.check_folders(parser, args)
    if min(args.hidden, args.layers) < 1 or not 0 <= args.dropout < 1 or not args.noise >= 0:
        parser.error("--hidden and --layers must be at least 1, --dropout from 0 to below 1, --noise at least 0")
    return args


def main() -> int:
    environment = sm_runtime.read_environment()
    args = arguments(environment)
    plan = gadam.plan_for(args.optimizer, sm_runtime.plan_of(args))
    with sm_runtime.join(environment, plan) as group:
        data, held_out = utterances.read(args.train), utterances.read(args.validation)
        group.must_agree("utterances", [data.files, held_out.files])
        gadam.seed_member(plan, group)
        network = inference.Network(args.hidden, args.layers, args.dropout)
        network.learn_scale(np.concatenate(data.spoken))
        task = sm_runtime.Task(
            model=network,
            optimizer=optimizers.from_options(args),
            schedule=optimizers.warm_up_and_decay,
            data=sm_runtime.Tensors(data.frames, data.lengths, data.labels).to(group.device),
            loss=lambda model, batch: loss(model, batch, args.noise),
            identity={**options.identity(args), "data": [data.files, held_out.files]},
            validate=lambda model: measure("validation", model, held_out),
        )
        task = gadam.breed(task, plan, group)
        outcome = sm_runtime.fit(plan, group, task, checkpoint_dir=args.checkpoint_dir, hosts=len(environment.hosts))
        if outcome.finished and group.first:
            write_model(args, group, outcome, data, held_out)
    return outcome.exit_code


def loss(network: torch.nn.Module, batch: tuple[torch.Tensor, ...], noise: float) -> torch.Tensor:
    """Return the loss of each utterance. Noise on the frames: 225 utterances are few."""
    frames, lengths, labels = batch
    frames = frames[:, : int(lengths.max())]
    return cross_entropy(network(frames, lengths, noise), labels, reduction="none")


def measure(name: str, network: torch.nn.Module, held_out: utterances.Utterances) -> dict[str, float]:
    """Return loss and accuracy on held-out utterances."""
    logits = ask(network, held_out)
    right = logits.argmax(dim=1) == held_out.labels
    loss, accuracy = cross_entropy(logits, held_out.labels).item(), right.double().mean().item()
    return {f"{name}:loss": round(loss, 6), f"{name}:accuracy": round(accuracy, 6)}


def ask(network: torch.nn.Module, held_out: utterances.Utterances) -> torch.Tensor:
    device = next(network.parameters()).device
    return inference.logits(network, held_out.frames.to(device), held_out.lengths).cpu()


def drift_reference(data: utterances.Utterances, chances: np.ndarray, labels: np.ndarray) -> dict:
    """Profile what describe() tells of the training utterances, and the answers (n x 9) to held-out ones."""
    described = np.array([[*inference.describe(frames).values()] for frames in data.spoken])
    return drift_profile.document(
        rows=len(data),
        feature_order=inference.FEATURES,
        features=[drift_profile.numeric(*pair) for pair in zip(inference.FEATURES, described.T, strict=True)],
        representation=[drift_profile.pca("pca", inference.FEATURES, described)] if len(described) >= 4 else [],
        **drift_profile.classifier(chances, inference.NAMES, labels),
    )


def write_model(args, group, outcome: sm_runtime.Outcome, data, held_out) -> None:
    """Write all that serves, watches and explains the model, together."""
    network = inference.Network(args.hidden, args.layers, args.dropout)
    network = package.served(network, outcome.weights, group.device)
    metrics, files = outcome.history[-1], {"train": data.files, "validation": held_out.files}
    if args.test:
        test = utterances.read(args.test)
        files["test"] = test.files
        metrics = metrics | measure("test", network, test)
        sm_runtime.report({name: value for name, value in metrics.items() if name.startswith("test:")})
    chances = ask(network, held_out).softmax(dim=1).numpy().round(inference.DECIMALS)
    features = [{"name": name, "kind": "numeric"} for name in inference.FEATURES]
    package.write(
        args.model_dir,
        outcome.weights,
        handler=pathlib.Path(inference.__file__),
        documents={"network": {"hidden": args.hidden, "layers": args.layers, "dropout": args.dropout}},
        input_schema={
            "label": "speaker",
            "instance": "frames: 1 to 200 lists of 12 LPC cepstra; features: what is watched, optional",
            "features": features,
            "content_types": ["application/json"],
        },
        model_card=package.model_card(
            model="audio-speakers",
            label="speaker",
            data=files,
            metrics=metrics,
            history=outcome.history,
            hyperparameters=options.hyperparameters(args),
            seed=args.seed,
            processes=group.size,
            device=group.device.type,
        ),
        drift_reference=drift_reference(data, chances, held_out.labels.numpy()),
        output=args.output_dir,
    )


if __name__ == "__main__":
    sys.exit(main())
