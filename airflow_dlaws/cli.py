"""The command line: `dlaws local up|status|down`, `dlaws demo`. Each group registers itself with a small function."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dlaws import __version__
from airflow_dlaws.errors import DlawsError

if TYPE_CHECKING:
    from airflow_dlaws.local.process import LocalAws

#: What `add_parser` is called on.
Commands = Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="dlaws", description="Deep learning on AWS with Airflow.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for register in GROUPS:
        register(commands)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except DlawsError as error:
        print(f"dlaws: {error}", file=sys.stderr)
        return 1


def register_local(commands: Commands) -> None:
    """Add `dlaws local`."""
    group = commands.add_parser("local", help="a local AWS whose SageMaker runs real jobs and endpoints")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    up = actions.add_parser("up", help="start it and print the environment to use it")
    up.add_argument("--foreground", action="store_true", help="serve here until Ctrl-C")
    _add_server_arguments(up)
    up.set_defaults(run=_local_up)
    for name, text, run in (
        ("status", "say whether it runs, and where", _local_status),
        ("down", "end it, its jobs and its endpoints", _local_down),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--state-dir", type=Path, default=Path(".dlaws/local"), help="folder of its files")
        action.set_defaults(run=run)
    for action in actions.choices.values():
        action.add_argument("--json", action="store_true", help="print JSON")


def register_demo(commands: Commands) -> None:
    """Add `dlaws demo`."""
    from airflow_dlaws.local.demo.command import add_arguments

    add_arguments(commands.add_parser("demo", help="the whole loop on this machine: train, drift, retrain, roll out"))


#: New groups of commands are added here.
GROUPS: list[Callable[[Commands], None]] = [register_local, register_demo]


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    from airflow_dlaws.local.options import add_arguments

    add_arguments(parser)


def _local_up(chosen: argparse.Namespace) -> int:
    from airflow_dlaws.local.process import LocalAws

    aws = LocalAws(
        chosen.state_dir,
        port=chosen.port,
        time_scale=chosen.time_scale,
        images={pattern: Path(folder) for pattern, folder in chosen.image},
        tied=chosen.foreground,
    )
    if not chosen.foreground:
        _start(chosen, aws)
        return 0
    try:
        _start(chosen, aws)
        aws.wait()
    except KeyboardInterrupt:
        print("ending the local AWS", file=sys.stderr)
        aws.stop()
    return 0


def _start(chosen: argparse.Namespace, aws: LocalAws) -> None:
    aws.start()
    environment = aws.environment()
    lines = [f"export {name}={value}" for name, value in environment.items()]
    _show(chosen, {"running": True, "environment": environment}, "\n".join(lines))


def _local_status(chosen: argparse.Namespace) -> int:
    from airflow_dlaws.local.process import LocalAws

    aws = LocalAws(chosen.state_dir)
    if not aws.running:
        _show(chosen, {"running": False}, f"no local AWS runs in {aws.state_dir}")
        return 1
    health = aws.health()
    text = [f"the local AWS runs at {aws.endpoint_url}", f"programs run as hosts by: {health['isolation']}"]
    text.append(f"running processes of jobs and endpoints: {aws.children() or 'none'}")
    _show(chosen, {"running": True, **health, "children": aws.children()}, "\n".join(text))
    return 0


def _local_down(chosen: argparse.Namespace) -> int:
    from airflow_dlaws.local.process import LocalAws

    aws = LocalAws(chosen.state_dir)
    ran = aws.stop()
    _show(chosen, {"ran": ran}, "ended" if ran else f"no local AWS ran in {aws.state_dir}")
    return 0


def _show(chosen: argparse.Namespace, document: dict[str, Any], text: str) -> None:
    print(json.dumps(document) if chosen.json else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
