"""The command line: `dlaws local`, `demo`, `templates`, `jobs`, `rollout`, `drift`. One small function a group."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dlaws import __version__
from airflow_dlaws.errors import DlawsError

if TYPE_CHECKING:
    from airflow_dlaws.local.process import LocalAws


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="dlaws", description="Deep learning on AWS with Airflow.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    words = sys.argv[1:] if arguments is None else arguments
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, (text, register) in GROUPS.items():
        group = commands.add_parser(name, help=text)
        # Only the group asked for says what it takes: others would import what this command has no need of.
        if name == asked:
            register(group)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except DlawsError as error:
        print(f"dlaws: {error}", file=sys.stderr)
        return 1


def register_local(group: argparse.ArgumentParser) -> None:
    """Say what `dlaws local` takes."""
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


def register_demo(group: argparse.ArgumentParser) -> None:
    """Say what `dlaws demo` takes."""
    from airflow_dlaws.local.demo.command import add_arguments

    add_arguments(group)


def register_templates(group: argparse.ArgumentParser) -> None:
    """Say what `dlaws templates` takes."""
    actions = group.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="say what there is")
    listing.set_defaults(run=_templates_list)
    copy = actions.add_parser("copy", help="copy them to a folder, to change them and keep them")
    copy.add_argument("folder", type=Path, help="gets dags/ and training_scripts/; may lie in Airflow's DAGs folder")
    copy.add_argument("--force", action="store_true", help="overwrite files that differ from the templates")
    copy.set_defaults(run=_templates_copy)
    for action in actions.choices.values():
        action.add_argument("--json", action="store_true", help="print JSON")


def register_jobs(group: argparse.ArgumentParser) -> None:
    """Say what `dlaws jobs` takes."""
    from airflow_dlaws.commands.jobs import add_arguments

    add_arguments(group.add_subparsers(required=True, metavar="ACTION"))


def register_rollout(group: argparse.ArgumentParser) -> None:
    """Say what `dlaws rollout` takes."""
    from airflow_dlaws.commands.rollout import add_arguments

    add_arguments(group.add_subparsers(required=True, metavar="ACTION"))


def register_drift(group: argparse.ArgumentParser) -> None:
    """Say what `dlaws drift` takes."""
    from airflow_dlaws.commands.drift import add_arguments

    add_arguments(group.add_subparsers(required=True, metavar="ACTION"))


#: New groups of commands are added here: what each is for, and what adds its actions and arguments.
GROUPS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "local": ("a local AWS whose SageMaker runs real jobs and endpoints", register_local),
    "demo": ("the whole loop on this machine: train, drift, retrain, roll out", register_demo),
    "templates": ("the template DAGs and training scripts of this version", register_templates),
    "jobs": ("the jobs that tasks have started; those that no task owns", register_jobs),
    "rollout": ("the rollouts on an endpoint: where they are, what they saw", register_rollout),
    "drift": ("profile data, and compare other data with the profile", register_drift),
}


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
        spot_price=chosen.spot_price,
        prices=chosen.prices,
        file_systems=dict(chosen.file_system),
        tied=chosen.foreground,
    )
    if not chosen.foreground:
        _start(chosen, aws)
        return 0
    # Shells let what a script starts in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def _templates_list(chosen: argparse.Namespace) -> int:
    from airflow_dlaws.template_files import template_files

    rows = [{"path": file.path, "bytes": len(file.content), "summary": file.summary} for file in template_files()]
    _show(chosen, {"files": rows}, "\n".join(f"{row['path']}  {row['summary']}".rstrip() for row in rows))
    return 0


def _templates_copy(chosen: argparse.Namespace) -> int:
    from airflow_dlaws.template_copies import copy_templates

    states = copy_templates(chosen.folder, force=chosen.force)
    counts = Counter(states.values())
    text = ", ".join(f"{count} files {state}" for state, count in sorted(counts.items()))
    _show(chosen, {"folder": str(chosen.folder.resolve()), "files": states}, f"{chosen.folder}: {text}")
    return 0


def _show(chosen: argparse.Namespace, document: dict[str, Any], text: str) -> None:
    print(json.dumps(document) if chosen.json else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
