"""What SageMaker and torchrun tell a process: which part of the job it is, and where its folders lie.

Read from SM_* and torchrun's variables; where SM_* are missing, from the files under /opt/ml (SAGEMAKER_BASE_DIR).
"""

import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

#: Folders of the container contract: variable -> place below the base folder.
_FOLDERS = {
    "SM_MODEL_DIR": "model",
    "SM_OUTPUT_DATA_DIR": "output/data",
    "SM_CHECKPOINT_DIR": "checkpoints",
}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One process of the job. Folders are None where neither a variable nor a container names them.

    :param rank: number of this process among all, from 0; `local_rank` among those of its host.
    :param hosts: names of all hosts, the first one is the master; `host` is this one.
    :param channels: name of each input channel -> its folder.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    hosts: tuple[str, ...] = ("localhost",)
    host: str = "localhost"
    channels: Mapping[str, str]
    hyperparameters: Mapping[str, str]
    model_dir: str | None = None
    output_dir: str | None = None
    checkpoint_dir: str | None = None
    failure_file: str | None = None

    @property
    def seed(self) -> int:
        """The hyperparameter `seed`; 0 where there is none."""
        return int(self.hyperparameters.get("seed", 0))


def read_environment(variables: Mapping[str, str] = os.environ) -> Environment:
    """Read the environment of this process. Raises SystemExit with the reason where the variables do not fit."""
    base = pathlib.Path(variables.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    resources = _document(variables.get("SM_RESOURCE_CONFIG"), base / "input/config/resourceconfig.json")
    hosts = json.loads(variables["SM_HOSTS"]) if "SM_HOSTS" in variables else resources.get("hosts", ["localhost"])
    folders = {name: _folder(variables, name, base / place) for name, place in _FOLDERS.items()}
    rank, world_size = int(variables.get("RANK", 0)), int(variables.get("WORLD_SIZE", 1))
    if not 0 <= rank < world_size:
        raise SystemExit(f"RANK={rank} with WORLD_SIZE={world_size}: start the script with torchrun, or without both")
    return Environment(
        rank=rank,
        world_size=world_size,
        local_rank=int(variables.get("LOCAL_RANK", 0)),
        hosts=tuple(hosts),
        host=variables.get("SM_CURRENT_HOST") or resources.get("current_host", hosts[0]),
        channels=_channels(variables, base),
        hyperparameters=_document(variables.get("SM_HPS"), base / "input/config/hyperparameters.json"),
        model_dir=folders["SM_MODEL_DIR"],
        output_dir=folders["SM_OUTPUT_DATA_DIR"],
        checkpoint_dir=folders["SM_CHECKPOINT_DIR"],
        failure_file=_failure_file(variables, base),
    )


def _document(text: str | None, path: pathlib.Path) -> dict:
    if text:
        return json.loads(text)
    return json.loads(path.read_text()) if path.exists() else {}


def _folder(variables: Mapping[str, str], name: str, place: pathlib.Path) -> str | None:
    return variables.get(name) or (str(place) if place.is_dir() else None)


def _channels(variables: Mapping[str, str], base: pathlib.Path) -> dict[str, str]:
    """Return the channels that SM_CHANNEL_* name, or the folders of /opt/ml/input/data."""
    prefix = "SM_CHANNEL_"
    named = {name.removeprefix(prefix).lower(): path for name, path in variables.items() if name.startswith(prefix)}
    data = base / "input/data"
    if named or not data.is_dir():
        return named
    return {entry.name.lower(): str(entry) for entry in sorted(data.iterdir()) if entry.is_dir()}


def _failure_file(variables: Mapping[str, str], base: pathlib.Path) -> str | None:
    output = variables.get("SM_OUTPUT_DIR") or (str(base / "output") if (base / "output").is_dir() else None)
    return str(pathlib.Path(output) / "failure") if output else None
