"""A training script on sm_runtime, small enough to be killed often.

It has what a resume can get wrong: dropout, momentum, a schedule, accumulation, clipping, an uneven last step.

203 samples in batches of 16, so that the last step of an epoch has 11. Each process notes, for each step it has done,
which samples it has added: `steps-ATTEMPT-RANK.txt` in --notes, lines `step sample sample ...`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

import sm_runtime

SAMPLES, BATCH, EPOCHS = 203, 16, 3
STEPS = EPOCHS * -(-SAMPLES // BATCH)


def main(argv: list[str] | None = None) -> int:
    """Train; leave the weights in --weights."""
    environment = sm_runtime.read_environment()
    parser = argparse.ArgumentParser()
    sm_runtime.add_options(parser, epochs=EPOCHS, batch_size=BATCH, micro_batches=4, clip_norm=1.0, report_s=0.0)
    parser.add_argument("--weights", type=Path, default=Path(environment.model_dir or ".", "weights.pt"))
    parser.add_argument("--notes", type=Path, default=Path(environment.output_dir or "."))
    parser.add_argument("--attempt", default="0")
    parser.add_argument("--width", type=int, default=int(os.environ.get("SMALL_TRAINING_WIDTH", "32")))
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each step")
    parser.add_argument("--checkpoint-dir", default=environment.checkpoint_dir)
    arguments = parser.parse_args(argv)
    plan = sm_runtime.plan_of(arguments)
    with sm_runtime.join(environment, plan) as group:
        task = small_task(arguments, group.rank)
        hosts = len(environment.hosts)
        outcome = sm_runtime.fit(plan, group, task, checkpoint_dir=arguments.checkpoint_dir, hosts=hosts)
        if group.first and outcome.finished:
            torch.save(outcome.weights, arguments.weights)
    return outcome.exit_code


def small_task(arguments: argparse.Namespace, rank: int) -> sm_runtime.Task:
    """Return a model that has something to learn, and all that can go wrong in a resume."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, 12, generator=generator)
    labels = (inputs[:, :4].sum(dim=1) + 0.5 * torch.randn(SAMPLES, generator=generator) > 0).long()
    width, linear = arguments.width, torch.nn.Linear
    layers = [linear(12, width), torch.nn.ReLU(), torch.nn.Dropout(0.3)]
    layers += [linear(width, width), torch.nn.ReLU(), linear(width, 2)]
    notes = os.open(arguments.notes / f"steps-{arguments.attempt}-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(number: int, step: sm_runtime.Step) -> None:
        os.write(notes, f"{number} {' '.join(map(str, step.indices))}\n".encode())
        time.sleep(arguments.pause)

    def optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
        own = [each.to_local() if isinstance(each, DTensor) else each for each in model.parameters()]
        print(f"holds {sum(map(torch.numel, own))} of {sum(map(torch.numel, model.parameters()))} parameters")
        return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

    return sm_runtime.Task(
        model=torch.nn.Sequential(*layers),
        optimizer=optimizer,
        schedule=lambda optimizer, steps: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        data=sm_runtime.Tensors(inputs, labels),
        loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1], reduction="none"),
        identity={"width": width},
        on_step=note,
    )


if __name__ == "__main__":
    sys.exit(main())
