"""One model on many processes: DistributedDataParallel, FSDP2, or one model each; and its state as if it were whole."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from sm_runtime.plan import Plan
from sm_runtime.ranks import Group

_NOTHING = contextlib.nullcontext()


def place(model: torch.nn.Module, plan: Plan, group: Group) -> torch.nn.Module:
    """Move the model to this process's device, and shard it where the plan says FSDP2. Before the optimizer is made."""
    model.to(group.device)
    if plan.parallel == "fsdp2" and group.size > 1:
        mesh = dist.init_device_mesh(group.device.type, (group.size,))
        for unit in shard_units(model):
            fully_shard(unit, mesh=mesh)
        fully_shard(model, mesh=mesh)
    if plan.compile:
        model.compile()
    return model


def shard_units(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Return the modules whose parameters are gathered and freed together: children, looking through containers."""
    for child in model.children():
        if isinstance(child, torch.nn.ModuleList | torch.nn.ModuleDict | torch.nn.Sequential):
            yield from shard_units(child)
        elif any(True for _ in child.parameters()):
            yield child


class Parallel:
    """Runs the model, and adds the gradients of all processes up.

    :param scale: what a loss is multiplied by, so that the mean of gradients that DDP and FSDP2 take is a sum.
    """

    def __init__(self, model: torch.nn.Module, plan: Plan, group: Group) -> None:
        self.model = self.forward = model
        self.together = group.size > 1 and plan.parallel != "population"
        self.scale = group.size if self.together else 1
        if self.together and plan.parallel == "ddp" and any(p.requires_grad for p in model.parameters()):
            devices = [group.device.index] if group.device.type == "cuda" else None
            self.forward = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def warm_up(self, backward: Callable[[], None]) -> None:
        """Run one backward pass that changes nothing, before the first step of this process.

        DDP sums gradients in buckets, and sorts these anew after its first backward pass. With three processes and more
        the place in a bucket decides in which order numbers are added, so that without this the first step after a
        resume would differ in the last bits from the same step of a run that went on.
        """
        if self.forward is self.model:
            return
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        backward()
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager:
        """Return the context of a micro-batch: gradients are exchanged after the last one of a step only."""
        if isinstance(self.forward, FSDPModule):
            self.forward.set_requires_gradient_sync(last)
        elif not last and isinstance(self.forward, DistributedDataParallel):
            return self.forward.no_sync()
        return _NOTHING

    def clip(self, longest: float) -> None:
        """Shorten the gradient of the step to `longest`."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), longest)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that may be sharded whole and on a processor. Collective, where it is sharded."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def finite(model: torch.nn.Module) -> bool:
    """Tell whether every weight that this process holds is a number."""
    held = (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())
    return all(bool(torch.isfinite(part).all()) for part in held)


def load_model(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load whole tensors into a model that may be sharded."""
    model.load_state_dict({name: _like(value, model_tensor) for (name, value), model_tensor in _pairs(model, state)})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load whole tensors into an optimizer whose parameters may be sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        number: {name: _like(value, parameters[number]) for name, value in moments.items()}
        for number, moments in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": sharded})


def _pairs(model: torch.nn.Module, state: dict[str, torch.Tensor]):
    own = model.state_dict()
    for name, value in state.items():
        yield (name, value), own.get(name)


def _like(value, place):
    """Shard a value as `place` is; scalars, such as the number of steps, are whole everywhere."""
    if isinstance(place, DTensor) and isinstance(value, torch.Tensor) and value.shape == place.shape:
        return distribute_tensor(value.to(place.device), place.device_mesh, place.placements)
    return value
