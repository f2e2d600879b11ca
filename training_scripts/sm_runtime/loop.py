"""The training loop: steps through the data, exchanges gradients, saves, reports, and stops in time."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sm_runtime import parallel, seeds, stopping
from sm_runtime.checkpoints import Checkpoints, to_host
from sm_runtime.data import Data
from sm_runtime.feed import Feed
from sm_runtime.interval import Interval
from sm_runtime.memory import keep_freed_memory
from sm_runtime.metrics import report
from sm_runtime.pace import Pace
from sm_runtime.plan import Plan
from sm_runtime.precision import autocast
from sm_runtime.pulse import PULSE_S, Pulse
from sm_runtime.ranks import Group
from sm_runtime.sampler import MicroBatch, Order, Sampler, Step, order_of


class Stateful(Protocol):
    """Anything that has a state to save."""

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, and on what.

    :param model: on any device; `fit` moves it.
    :param optimizer: makes the optimizer from the model, once that is where it belongs.
    :param loss: (model, batch) -> the loss of each sample, float[n]. No mean: the last step of an epoch may be shared
        unevenly, and the mean over all processes is taken with the right weights.
    :param schedule: makes the learning rate's schedule from the optimizer and the number of steps; stepped after each.
    :param order: in which order the samples come; if left out, as `data.order(seed)` says where data have that method
        (readers of files do), else a new permutation for each epoch. It must depend on the epoch alone: it is asked up
        to `feed.AT_ONCE` steps before the epoch begins, and again after a resume.
    :param identity: what else defines the run: hyperparameters, digests of the data. A checkpoint with another identity
        is refused. Leave `epochs` out if nothing but the length of the run depends on it.
    :param also: further things whose state belongs to the run, such as moving averages, by name.
    :param validate: called in every process after each epoch with the model; returns metrics, of which the first
        process's count. Leave the model in training mode.
    :param write: called in the first process after each epoch, and after a resume, with the weights (whole, on
        processors) and the metrics of each epoch so far.
    :param on_step: called after each step of this process.
    """

    model: torch.nn.Module
    optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer]
    data: Data
    loss: Callable[[torch.nn.Module, Any], torch.Tensor]
    schedule: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler] | None = None
    order: Order | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    also: Mapping[str, Stateful] = dataclasses.field(default_factory=dict)
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None
    write: Callable[[dict[str, torch.Tensor], list[dict]], None] | None = None
    on_step: Callable[[int, Step], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How training ended.

    :param finished: False where SIGTERM came first; the state is saved then, if there is a folder for it.
    :param history: metrics of each epoch.
    :param weights: the model's state, whole and on processors.
    """

    finished: bool
    steps: int
    history: list[dict]
    weights: dict[str, torch.Tensor]

    @property
    def exit_code(self) -> int:
        """What the script should return."""
        return 0 if self.finished else stopping.STOPPED


class Diverged(FloatingPointError):
    """The loss is no number any more, or a weight.

    :param what: such as "the training loss is nan".
    :param epoch: in which it was noticed, from 1.
    """

    def __init__(self, what: str, epoch: int) -> None:
        super().__init__(f"{what} in epoch {epoch}: lower the learning rate, or clip the gradient")
        self.epoch = epoch


def fit(plan: Plan, group: Group, task: Task, *, checkpoint_dir: str | None = None, hosts: int = 1) -> Outcome:
    """Train from the newest checkpoint, or from the start, to the end of the last epoch or until SIGTERM.

    :param checkpoint_dir: where checkpoints lie; None saves none.
    :param hosts: how many machines there are, for the checkpoint interval.
    :raises Diverged: the loss is no number any more, or a weight.
    :raises SystemExit: the checkpoint is another run's, or broken; or the processes have different data.
    """
    keep_freed_memory()
    run = _Run(plan, group, task, checkpoint_dir, hosts)
    try:
        finished = run.train()
    finally:
        run.feed.close()
    # Nobody leaves before the last checkpoint is written: torchrun kills the others soon after a process has ended by
    # SIGTERM (torch before 2.13 in 30 seconds).
    run.checkpoints.finish_together()
    return Outcome(finished=finished, steps=run.step, history=run.history, weights=run.weights())


class _Run:
    def __init__(self, plan: Plan, group: Group, task: Task, checkpoint_dir: str | None, hosts: int) -> None:
        self.plan, self.group, self.task = plan, group, task
        self.step, self.history = 0, []
        self.epoch_loss = self.epoch_samples = 0.0
        self.model = parallel.place(task.model, plan, group).train()
        self.optimizer = task.optimizer(self.model)
        self.population = plan.parallel == "population"
        self.member = group.rank if self.population else 0
        rank, size = (0, 1) if self.population else (group.rank, group.size)
        samples = len(task.data)
        group.must_agree("data", [samples, getattr(task.data, "digest", None)])
        order = task.order or order_of(task.data, plan.seed)
        micro_batches = plan.micro_batches or size
        even = plan.parallel == "fsdp2"
        self.sampler = Sampler(samples, plan.batch_size, micro_batches, order=order, rank=rank, size=size, even=even)
        self.steps = plan.epochs * self.sampler.steps_per_epoch
        self.schedule = task.schedule(self.optimizer, self.steps) if task.schedule else None
        self.checkpoints = Checkpoints(checkpoint_dir, group, keep=plan.keep, identity=self._identity())
        self.interval = Interval(mtbf_s=plan.mtbf_s, hosts=hosts, fixed_s=plan.checkpoint_s, now=time.monotonic())
        self.restore()
        self.position = self.sampler.state_dict()
        self.parallel = parallel.Parallel(self.model, plan, group)
        self.feed = Feed(self.sampler, task.data, epochs=plan.epochs, device=group.device, ahead=plan.prefetch)
        shortest = min(PULSE_S, plan.report_s, PULSE_S if plan.checkpoint_s is None else plan.checkpoint_s)
        self.pulse = Pulse(group, shortest)
        self.pace = Pace(plan.report_s, group.device)
        self.autocast = autocast(plan, group.device)
        # Of each micro-batch since the last talk, added up then: a sum kept on the way costs a kernel more in each.
        self.losses: list[torch.Tensor] = []
        self.samples = 0
        # A few: a batch, the rest at the end of an epoch, and 0 for processes without a part of a step.
        self.factors: dict[float, torch.Tensor] = {}
        self.saved_step = self.step

    def train(self) -> bool:
        """Go on to the end of the last epoch; return False where SIGTERM came first."""
        if (ended := self.position["epoch"]) > len(self.history):  # SIGTERM came before it could be validated
            self.end_epoch(ended)
        begun = False
        for number, step, micro, batch in self.feed:
            if not begun:
                self.parallel.warm_up(lambda: self.backward(step, micro, batch, True))  # noqa: B023  called at once
                begun = True
            last = number == len(step.micro_batches) - 1
            self.losses.append(self.backward(step, micro, batch, last))
            if not last:
                continue
            self.update(step)
            if (self.pulse.due() or step.last) and self.talk(step):
                print(f"stopped by SIGTERM after step {self.step} of {self.steps}", file=sys.stderr, flush=True)
                return False
        if self.step > self.saved_step:
            self.save()
        return True

    def backward(self, step: Step, micro: MicroBatch, batch: Any, last: bool) -> torch.Tensor:
        """Add the gradient of a micro-batch; return the sum of its losses, float[]."""
        seeds.set_seeds(self.plan.seed, self.member, self.step, micro.number)
        with self.parallel.micro_batch(last):
            with self.autocast:
                losses = self.task.loss(self.parallel.forward, batch)
            if losses.shape != (len(micro.indices),):
                raise ValueError(
                    f"loss returned {tuple(losses.shape)} for {len(micro.indices)} samples: it must return the loss of "
                    "each sample (reduction='none'), not their mean"
                )
            total = losses.float().sum()
            total.backward(self.factor(micro.weight * self.parallel.scale / step.count))
        return total.detach() * micro.weight if micro.weight != 1 else total.detach()

    def factor(self, value: float) -> torch.Tensor:
        """Return what the gradient of a micro-batch's losses is multiplied by, float32[].

        Handed to `backward` it costs nothing; multiplying the losses by it would be two kernels more in each direction.
        """
        if value not in self.factors:
            self.factors[value] = torch.tensor(value, dtype=torch.float32, device=self.group.device)
        return self.factors[value]

    def update(self, step: Step) -> None:
        if self.plan.clip_norm is not None:
            self.parallel.clip(self.plan.clip_norm)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += step.count
        self.position = step.after
        if self.task.on_step:
            self.task.on_step(self.step, step)

    def talk(self, step: Step) -> bool:
        """Agree with the other processes on what to do after this step; return True where training has to stop."""
        now, first = time.monotonic(), self.group.first
        save = first and self.checkpoints.wanted and self.interval.due(now) and not self.checkpoints.writing
        line = first and self.pace.due()
        own = torch.stack(self.losses).sum(dtype=torch.float64).item()
        known = math.isfinite(own)
        told = [stopping.stop_wanted(), save, line, own if known else 0.0, self.feed.waited, known]
        stop, save, line, loss, waited, many = self.pulse.talk([float(value) for value in told])
        # One process without a loss spoils the model that all share; of a population the others go on and breed.
        if many < (1 if self.population else self.group.size):
            raise Diverged(f"the training loss is {math.nan if known else own}", step.epoch + 1)
        self.note(loss / (1 if self.parallel.together else many), waited / self.group.size)
        if step.last and stop and self.checkpoints.wanted:
            # Validation may take longer than SIGTERM leaves: save before it, and let the next run validate.
            self.save()
            if self.step < self.steps:
                return True
        if step.last:
            self.end_epoch(step.epoch + 1)
        elif line and first:
            self.report({"epoch": step.epoch + 1})
        if save or stop:
            self.save()
        return bool(stop) and self.step < self.steps

    def note(self, loss: float, waited: float) -> None:
        self.pace.add(samples=self.samples, loss=loss, waited_s=waited)
        self.epoch_loss += loss
        self.epoch_samples += self.samples
        self.losses.clear()
        self.samples, self.feed.waited = 0, 0.0

    def end_epoch(self, epoch: int) -> None:
        """Validate, write the model, and report: last, so that whoever reads the line finds the model it speaks of."""
        metrics = {"epoch": epoch, "train:loss": round(self.epoch_loss / self.epoch_samples, 6)}
        self.epoch_loss = self.epoch_samples = 0.0
        if self.task.validate:
            seeds.set_seeds(self.plan.seed, self.member, self.step)
            metrics |= self.group.from_first(self.task.validate(self.model))
        # The loss of a step is that of the weights before it: nothing else would tell of the last one.
        if self.group.any(not parallel.finite(self.model)):
            raise Diverged("weights are no numbers", epoch)
        self.history.append({name: _number(value) for name, value in metrics.items()})
        self.saved_step = min(self.saved_step, self.step - 1)  # what is saved of this step knows nothing of this
        self.write()
        if self.group.first:
            self.report(self.history[-1])

    def report(self, metrics: dict[str, float]) -> None:
        """Print a line of metrics; the first process only."""
        written = self.checkpoints.written_step
        saved = {} if written is None else {"checkpoint_step": written}
        report({**metrics, "step": self.step, "steps": self.steps, **saved, **self.pace.take()})

    def write(self) -> None:
        if self.task.write:
            weights = self.weights()
            if self.group.first:
                self.task.write(weights, self.history)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: parallel.whole(tensor) for name, tensor in self.model.state_dict().items()}

    def save(self) -> None:
        stalled = self.checkpoints.save(self.step, self.snapshot)
        self.saved_step = self.step
        self.pace.stalled(stalled)
        self.interval.saved(time.monotonic())
        if cost := self.checkpoints.take_cost():
            self.interval.measured(stall_s=cost.stall_s, write_s=cost.write_s)

    def snapshot(self) -> dict:
        """Return what defines the rest of the run, sharded as it is. Collective in a population."""
        own = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else {},
            "also": {name: part.state_dict() for name, part in self.task.also.items()},
        }
        return {
            "step": self.step,
            "position": self.position,
            "micro_batches": self.sampler.micro_batches,
            "history": self.history,
            "epoch_loss": self.epoch_loss,
            "epoch_samples": self.epoch_samples,
            # In a population every process has a state of its own; otherwise they are the same.
            "members": self.group.gather(to_host(own)) if self.population else [own],
        }

    def restore(self) -> None:
        """Go to the newest checkpoint, where there is one."""
        state = self.checkpoints.newest()
        if state is None:
            return
        own = state["members"][self.member]
        parallel.load_model(self.model, own["model"])
        parallel.load_optimizer(self.optimizer, own["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(own["schedule"])
        for name, part in self.task.also.items():
            part.load_state_dict(own["also"][name])
        if state["step"] > self.steps:
            raise SystemExit(
                f"the checkpoint was made after {state['step']} steps, and {self.plan.epochs} epochs are {self.steps}: "
                "ask for as many epochs as before or more, or give this run another folder for checkpoints"
            )
        self.sampler.load_state_dict(state["position"])
        self.sampler.micro_batches = state["micro_batches"]
        self.step, self.history = state["step"], state["history"]
        self.epoch_loss, self.epoch_samples = state["epoch_loss"], state["epoch_samples"]
        if self.group.first:
            print(f"resumed after step {self.step} of {self.steps}", file=sys.stderr, flush=True)
        if self.history:  # a new machine has no model yet, and its log no lines
            self.write()
            for metrics in self.history if self.group.first else ():
                report(metrics)

    def _identity(self) -> dict:
        plan = {"batch_size": self.plan.batch_size, "seed": self.plan.seed, "samples": len(self.task.data)}
        if self.plan.micro_batches:
            plan["micro_batches"] = self.plan.micro_batches
        if self.population:
            plan["members"] = self.group.size
        shapes = [f"{name}{list(tensor.shape)}" for name, tensor in self.model.state_dict().items()]
        return {**plan, "optimizer": type(self.optimizer).__name__, "model": shapes, **self.task.identity}


def _number(value):
    """Return a metric as Python's own number: a checkpoint and a line of JSON take no other."""
    return value.item() if hasattr(value, "item") else value
