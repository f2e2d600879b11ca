"""The frame around a script's work: joins the other processes, and leaves word of what went wrong."""

import contextlib
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator

import torch.distributed as dist

from sm_runtime import stopping
from sm_runtime.environment import Environment
from sm_runtime.plan import Plan
from sm_runtime.precision import set_determinism
from sm_runtime.ranks import Group
from sm_runtime.seeds import set_seeds

#: SageMaker reads this much of the failure file.
FAILURE_LENGTH = 1024


@contextlib.contextmanager
def join(environment: Environment, plan: Plan) -> Iterator[Group]:
    """Listen for SIGTERM, join the group, and seed what the first weights are drawn from.

    What is raised inside is written to the failure file, with the process it happened in, and raised on.
    """
    stopping.listen()
    try:
        group = Group(environment)
        set_determinism(plan)
        set_seeds(plan.seed)
        yield group
        group.close()
    except BaseException as error:
        _leave_word(environment, error)
        raise


def _is_lost_peer(error: BaseException) -> bool:
    """Tell whether the fault is another process's. gloo raises plain RuntimeErrors."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or "gloo" in text or "Connection closed by peer" in text
    )


def _leave_word(environment: Environment, error: BaseException) -> None:
    """Write the failure file unless another process of this host has: the first failure is the cause."""
    if not environment.failure_file or (isinstance(error, SystemExit) and error.code in {0, None, stopping.STOPPED}):
        return
    where = f"process {environment.rank} of {environment.world_size} on {environment.host}"
    said = f"{type(error).__name__}: {error}"
    if environment.world_size > 1 and _is_lost_peer(error):
        said = f"another process has ended or does not answer, and its host may say why: {said}"
    words = "\n".join([said, where, "".join(traceback.format_tb(error.__traceback__))])
    try:
        handle = os.open(environment.failure_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return
    except OSError as reason:
        print(f"cannot write {pathlib.Path(environment.failure_file)}: {reason}", file=sys.stderr, flush=True)
        return
    with os.fdopen(handle, "w") as file:
        file.write(words[:FAILURE_LENGTH])
