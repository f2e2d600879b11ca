"""What every script's command line has beside its own options: folders, with SageMaker's as their defaults."""

import argparse
from collections.abc import Sequence

from sm_runtime.environment import Environment

_FOLDERS = ("model_dir", "output_dir", "checkpoint_dir")
#: Options that say how a run is operated and not what comes out: a checkpoint is continued although they differ.
#: sm_runtime.fit itself looks after those of the plan that matter.
_OPERATED = {"report_s", "checkpoint_s", "mtbf_s", "prefetch", "micro_batches", "threads", "parallel"}


def add_folders(
    parser: argparse.ArgumentParser, environment: Environment, *, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Add an option for each channel, and --model-dir, --output-dir and --checkpoint-dir.

    :param needed: channels without which the script cannot work; `check_folders` looks for them.
    :param optional: channels that it can do without.
    """
    group = parser.add_argument_group("folders")
    for name in (*needed, *optional):
        group.add_argument(f"--{name}", default=environment.channels.get(name), help="a channel's folder")
    for name in _FOLDERS:
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, dest=name, default=getattr(environment, name), help="where it writes")
    parser.set_defaults(_needed=tuple(needed), _folders=(*needed, *optional, *_FOLDERS))


def check_folders(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End the program where a folder is missing without which it cannot work."""
    missing = [name for name in (*arguments._needed, "model_dir") if not getattr(arguments, name)]
    if missing:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        variables = ["SM_MODEL_DIR" if name == "model_dir" else f"SM_CHANNEL_{name.upper()}" for name in missing]
        parser.error(f"name the folders with {flags}, or set {' and '.join(variables)}")


def hyperparameters(arguments: argparse.Namespace) -> dict:
    """Return the arguments that are no folders: for the model card."""
    return {name: value for name, value in vars(arguments).items() if name[0] != "_" and name not in arguments._folders}


def identity(arguments: argparse.Namespace, *, leave_out: Sequence[str] = ()) -> dict:
    """Return the hyperparameters on which the weights depend: for `Task.identity`.

    :param leave_out: names that do not matter to this script, such as epochs where there is no schedule.
    """
    return {
        name: value
        for name, value in hyperparameters(arguments).items()
        if name not in _OPERATED and name not in leave_out
    }
