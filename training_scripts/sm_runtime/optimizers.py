"""Optimizers by name, as a hyperparameter gives them.

| name | update | source |
|---|---|---|
| sgd | w -= lr * g | Robbins and Monro, 1951 |
| momentum | SGD with heavy-ball momentum | Polyak, 1964 |
| adagrad | steps divided by the root of the summed squares of the gradients | Duchi, Hazan and Singer, 2011 |
| rmsprop | the same of a running mean of the squares | Hinton, 2012 (lecture 6e) |
| adam | momentum and RMSprop together, bias-corrected | Kingma and Ba, arXiv:1412.6980 |
| adamw | Adam, its weight decay apart from the gradient | Loshchilov and Hutter, arXiv:1711.05101 |
| gadam | Adam in each process, and a population bred from them | Zhang and Gouza, arXiv:1805.07500; see gadam.py |

The arithmetic is torch's own (torch.optim); what is here is the names, their settings, and clear refusals.
"""

import argparse
import math
from collections.abc import Callable, Iterable

import torch

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "gadam": torch.optim.Adam,
}

#: For `choices=` of an argument.
NAMES = tuple(OPTIMIZERS)


def add_options(parser: argparse.ArgumentParser, *, optimizer: str, learning_rate: float, weight_decay: float) -> None:
    """Add --optimizer, --learning_rate (or --lr), --weight_decay and --momentum; the parameters are the defaults."""
    group = parser.add_argument_group("optimizer")
    group.add_argument("--optimizer", choices=NAMES, default=optimizer)
    spellings = ("--learning_rate", "--learning-rate", "--lr")
    group.add_argument(*spellings, dest="learning_rate", type=float, default=learning_rate, help="the highest one")
    group.add_argument("--weight_decay", "--weight-decay", dest="weight_decay", type=float, default=weight_decay)
    group.add_argument("--momentum", type=float, default=0.9, help="of the optimizer momentum alone")


def from_options(arguments: argparse.Namespace) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:
    """Return what makes the optimizer of a model from the options of `add_options`.

    :raises SystemExit: a number is outside its range.
    """
    names = ("learning_rate", "weight_decay", "momentum")
    settings = {name: getattr(arguments, name) for name in names}
    try:
        check(arguments.optimizer, **settings)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    return lambda model: make(arguments.optimizer, model.parameters(), **settings)


def warm_up_and_decay(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Raise the learning rate over the first tenth of the steps, then lower it along a cosine to 0."""
    warm = max(1, steps // 10)

    def share(step: int) -> float:
        falling = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
        return (step + 1) / warm if step < warm else falling

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def make(
    name: str,
    parameters: Iterable[torch.nn.Parameter] | Iterable[dict],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """Return the optimizer called `name`; `momentum` matters to the optimizer of that name alone.

    For "gadam" this is the Adam of one member; gadam.Population does the rest.

    :raises ValueError: the name is unknown, or a number is outside its range.
    """
    check(name, learning_rate=learning_rate, weight_decay=weight_decay, momentum=momentum)
    more = {"momentum": momentum} if name == "momentum" else {}
    return OPTIMIZERS[name](parameters, lr=learning_rate, weight_decay=weight_decay, **more)


def check(name: str, *, learning_rate: float, weight_decay: float, momentum: float) -> None:
    """Raise ValueError unless `make` would take these settings."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is unknown: choose one of {', '.join(NAMES)}")
    _check("learning_rate", learning_rate, learning_rate > 0, "above 0")
    _check("weight_decay", weight_decay, weight_decay >= 0, "at least 0")
    _check("momentum", momentum, 0 <= momentum < 1, "at least 0 and below 1")


def _check(name: str, value: float, holds: bool, allowed: str) -> None:
    if not (holds and math.isfinite(value)):
        raise ValueError(f"{name} is {value}; it must be finite and {allowed}")
