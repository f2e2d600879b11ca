"""Train the sentiment model: a recurrent network that rates a text from -4 (negative) to 4 (positive), a regression.

On one processor:        PYTHONPATH=.. python train.py --train DATA/train --validation DATA/validation --model-dir OUT
On two, on one machine:  PYTHONPATH=.. torchrun --nproc-per-node 2 train.py (and the same arguments)
In SageMaker:            the SM_* variables name the folders, hyperparameters arrive as --name value

Channels hold .csv files as snippets.py reads them; `test`, where there is one, is asked once, at the end, and so is a
linear model on the same words (baseline.py). Every host must see all of them (FullyReplicated). sm_runtime does what
is not about this model: processes, checkpoints, SIGTERM.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from torch.nn.functional import mse_loss

import baseline
import inference
import sm_runtime
import snippets
from sm_runtime import drift_embedding, drift_profile, gadam, optimizers, options, package


def arguments(environment: sm_runtime.Environment) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sm_runtime.add_options(parser, epochs=4, batch_size=64, clip_norm=1.0)
    optimizers.add_options(parser, optimizer="adamw", learning_rate=3e-3, weight_decay=1e-2)
    parser.add_argument("--embed", type=int, default=64, help="numbers that stand for a word")
    parser.add_argument("--hidden", type=int, default=64, help="units of the network in each direction")
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument("--least", type=int, default=2, help="texts that must have a word before it is learned")
    options.add_folders(parser, environment, needed=["train", "validation"], optional=["test"])
    args = parser.parse_args()
    options.check_folders(parser, args)
    if min(args.embed, args.hidden, args.least) < 1 or not 0 <= args.dropout < 1:
        parser.error("--embed, --hidden and --least must be at least 1, --dropout from 0 to below 1")
    return args


def main() -> int:
    environment = sm_runtime.read_environment()
    args = arguments(environment)
    plan = gadam.plan_for(args.optimizer, sm_runtime.plan_of(args))
    with sm_runtime.join(environment, plan) as group:
        data, held_out = snippets.read(args.train), snippets.read(args.validation)
        group.must_agree("texts", [data.files, held_out.files])
        vocabulary = snippets.choose_vocabulary(data.texts, args.least)
        gadam.seed_member(plan, group)
        shape = {"embed": args.embed, "hidden": args.hidden, "dropout": args.dropout}
        network = inference.Model(vocabulary, shape).network
        probe = held_out.encode(vocabulary)
        task = sm_runtime.Task(
            model=network,
            optimizer=optimizers.from_options(args),
            schedule=optimizers.warm_up_and_decay,
            data=sm_runtime.Tensors(*data.encode(vocabulary), data.ratings).to(group.device),
            loss=loss,
            identity={**options.identity(args), "data": [data.files, held_out.files]},
            validate=lambda model: measure("validation", ask(model, *probe), held_out.ratings),
        )
        task = gadam.breed(task, plan, group)
        outcome = sm_runtime.fit(plan, group, task, checkpoint_dir=args.checkpoint_dir, hosts=len(environment.hosts))
        if outcome.finished and group.first:
            documents = {"network": shape, "vocabulary": vocabulary}
            write_model(args, group, outcome, documents, data, held_out)
    return outcome.exit_code


def loss(network: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the squared error of each text."""
    places, lengths, ratings = batch
    return mse_loss(network(places[:, : int(lengths.max())], lengths), ratings, reduction="none")


def ask(network: torch.nn.Module, places: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return inference.ratings(network, places.to(next(network.parameters()).device), lengths).cpu()


def measure(name: str, scores: torch.Tensor, ratings: torch.Tensor) -> dict[str, float]:
    """Return mean squared and mean absolute error, and Pearson's correlation with people's ratings."""
    errors = scores - ratings
    values = {
        "loss": errors.square().mean().item(),
        "mae": errors.abs().mean().item(),
        "correlation": baseline.correlation(scores, ratings),
    }
    return {f"{name}:{what}": round(value, 6) for what, value in values.items()}


def measure_test(args, network, vocabulary: list[str], data, held_out, test: snippets.Snippets) -> dict[str, float]:
    """Measure the network and the linear model on the test texts."""
    encoded = {
        name: part.encode(vocabulary) for name, part in (("train", data), ("validation", held_out), ("test", test))
    }
    ours = measure("test", ask(network, *encoded["test"]), test.ratings)
    pairs = [
        (encoded[name][0], part.ratings) for name, part in (("train", data), ("validation", held_out), ("test", test))
    ]
    linear = baseline.correlations(*pairs, words=len(vocabulary) + inference.UNKNOWN + 1)
    metrics = ours | {f"baseline:{name}_correlation": round(value, 6) for name, value in linear.items()}
    sm_runtime.report(metrics)
    return metrics


def drift_reference(network: torch.nn.Module, vocabulary: list[str], held_out: snippets.Snippets) -> dict:
    """Profile held-out texts and what is answered to them: training texts have hardly a word that is unknown."""
    places = {word: place for place, word in enumerate(vocabulary, start=inference.UNKNOWN + 1)}
    described = np.array([[*inference.describe(places, text).values()] for text in held_out.texts])
    words, lengths = held_out.encode(vocabulary)
    ratings, vectors = inference.answers(network, words.to(next(network.parameters()).device), lengths)
    enough = len(held_out) >= drift_embedding.LEAST_ROWS
    return drift_profile.document(
        rows=len(held_out),
        feature_order=inference.FEATURES,
        features=[drift_profile.numeric(*pair) for pair in zip(inference.FEATURES, described.T, strict=True)],
        representation=[drift_profile.pca("pca", inference.FEATURES, described)] if len(described) >= 4 else [],
        embeddings=[drift_embedding.embedding("embedding", vectors.cpu().numpy())] if enough else [],
        **drift_profile.regressor(ratings.cpu().numpy().round(inference.DECIMALS)),
    )


def write_model(args, group, outcome: sm_runtime.Outcome, documents: dict, data, held_out) -> None:
    """Write all that serves, watches and explains the model, together."""
    vocabulary = documents["vocabulary"]
    network = package.served(inference.Model(vocabulary, documents["network"]).network, outcome.weights, group.device)
    metrics, files = outcome.history[-1], {"train": data.files, "validation": held_out.files}
    if args.test:
        test = snippets.read(args.test)
        files["test"] = test.files
        metrics = metrics | measure_test(args, network, vocabulary, data, held_out, test)
    package.write(
        args.model_dir,
        outcome.weights,
        handler=pathlib.Path(inference.__file__),
        documents=documents,
        input_schema={
            "label": "rating",
            "instance": "text: the text; features: what is watched, optional",
            "features": [{"name": name, "kind": "numeric"} for name in inference.FEATURES],
            "content_types": ["text/csv", "application/json"],
        },
        model_card=package.model_card(
            model="text-sentiment",
            label="rating",
            data=files,
            metrics=metrics,
            history=outcome.history,
            hyperparameters=options.hyperparameters(args),
            seed=args.seed,
            processes=group.size,
            device=group.device.type,
        ),
        drift_reference=drift_reference(network, vocabulary, held_out),
        output=args.output_dir,
    )


if __name__ == "__main__":
    sys.exit(main())
