"""What the training scripts share: everything about a distributed run that is not about its model.

    environment = sm_runtime.read_environment()            # SM_* and torchrun's variables, or /opt/ml
    plan = sm_runtime.Plan(epochs=5, batch_size=64)        # or add_options(parser, ...) and plan_of(arguments)
    with sm_runtime.join(environment, plan) as group:      # SIGTERM, process group, seeds, failure file
        task = sm_runtime.Task(model=..., optimizer=..., data=..., loss=...)
        outcome = sm_runtime.fit(plan, group, task, checkpoint_dir=environment.checkpoint_dir)
    sys.exit(outcome.exit_code)

docs/training.md says how to write a script on it, and what it guarantees.
"""

from sm_runtime.data import Data, Tensors
from sm_runtime.environment import Environment, read_environment
from sm_runtime.job import join
from sm_runtime.loop import Diverged, Outcome, Stateful, Task, fit
from sm_runtime.metrics import report
from sm_runtime.plan import Plan, add_options, plan_of
from sm_runtime.ranks import Group
from sm_runtime.sampler import Sampler, in_order, shuffled, shuffled_blocks
from sm_runtime.stopping import STOPPED

__all__ = [
    "STOPPED",
    "Data",
    "Diverged",
    "Environment",
    "Group",
    "Outcome",
    "Plan",
    "Sampler",
    "Stateful",
    "Task",
    "Tensors",
    "add_options",
    "fit",
    "in_order",
    "join",
    "plan_of",
    "read_environment",
    "report",
    "shuffled",
    "shuffled_blocks",
]
