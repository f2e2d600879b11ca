"""Where a script reads and writes, as options: SageMaker's folders are their defaults."""

import argparse
from collections.abc import Sequence

from sm_runtime.environment import Environment

_FOLDERS = ("model_dir", "output_dir", "checkpoint_dir")


def add_options(
    parser: argparse.ArgumentParser, environment: Environment, *, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Add an option for each channel, and --model-dir, --output-dir and --checkpoint-dir.

    :param needed: channels without which the script cannot work; `check` looks for them.
    :param optional: channels that it can do without.
    """
    group = parser.add_argument_group("folders")
    for name in (*needed, *optional):
        group.add_argument(f"--{name}", default=environment.channels.get(name), help="a channel's folder")
    for name in _FOLDERS:
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, dest=name, default=getattr(environment, name), help="where it writes")
    parser.set_defaults(_needed=tuple(needed), _folders=(*needed, *optional, *_FOLDERS))


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End the program where a folder is missing without which it cannot work."""
    missing = [name for name in (*arguments._needed, "model_dir") if not getattr(arguments, name)]
    if missing:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        variables = " and ".join(f"SM_{name.upper() if name == 'model_dir' else f'CHANNEL_{name.upper()}'}" for name in missing)
        parser.error(f"name the folders with {options}, or set {variables}")


def hyperparameters(arguments: argparse.Namespace) -> dict:
    """Return the arguments that are no folders."""
    return {name: value for name, value in vars(arguments).items() if name[0] != "_" and name not in arguments._folders}
