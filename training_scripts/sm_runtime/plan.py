"""How a model is trained, whatever it is: everything `fit` can be told in numbers and words."""

import argparse
import dataclasses
import math
from dataclasses import dataclass

PRECISIONS = ("float32", "bfloat16")
#: ddp: every process has the whole model. fsdp2: each holds a part of every parameter. population: each trains a model
#: of its own on all samples (for optimizers that cross models, such as Gadam); one process is a population of one.
PARALLELS = ("ddp", "fsdp2", "population")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The knobs of a training run; those that change the result first.

    :param batch_size: samples of a step, over all processes.
    :param micro_batches: pieces that every step is cut into, over all processes; more of them than processes is
        gradient accumulation. The same number gives the same random numbers at any number of processes. If left out:
        one for each process, and a resumed run keeps the number that it was started with.
    :param clip_norm: longest gradient, all parameters together; None leaves it as it is.
    :param precision: bfloat16 runs the forward pass under autocast, where the device has it.
    :param mtbf_s: mean seconds between failures of one host, for the checkpoint interval of Young and Daly. The
        default, a day, is pessimistic for spot machines: the interval grows with its root only.
    :param checkpoint_s: seconds between checkpoints, in place of the interval of Young and Daly; 0: every step.
    :param keep: how many checkpoints are kept.
    :param report_s: seconds between lines of metrics; 0: every step.
    :param prefetch: batches that a thread reads ahead; 0 reads them in the loop, which is best for data in memory.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    micro_batches: int | None = None
    clip_norm: float | None = None
    precision: str = "float32"
    parallel: str = "ddp"
    compile: bool = False
    deterministic: bool = True
    mtbf_s: float = 24 * 3600.0
    checkpoint_s: float | None = None
    keep: int = 2
    report_s: float = 10.0
    prefetch: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "keep", "mtbf_s"):
            self._check(name, getattr(self, name) > 0, "must be above 0")
        for name in ("micro_batches", "clip_norm"):
            value = getattr(self, name)
            self._check(name, value is None or (value > 0 and math.isfinite(value)), "must be above 0, or left out")
        for name in ("checkpoint_s", "report_s", "prefetch", "seed"):
            self._check(name, getattr(self, name) is None or getattr(self, name) >= 0, "must be at least 0")
        self._check("precision", self.precision in PRECISIONS, f"must be one of {PRECISIONS}")
        self._check("parallel", self.parallel in PARALLELS, f"must be one of {PARALLELS}")

    def _check(self, name: str, good: bool, rule: str) -> None:
        if not good:
            raise SystemExit(f"{name} is {getattr(self, name)!r}; it {rule}")


#: Options of the command line that set fields of the plan: those that a hyperparameter may want to change.
_OPTIONS: dict[str, tuple[type, str]] = {
    "epochs": (int, "passes over the data"),
    "batch_size": (int, "samples of a step, over all processes"),
    "seed": (int, "of the order of samples, dropout and first weights"),
    "micro_batches": (int, "pieces of each step over all processes; more than processes is accumulation"),
    "clip_norm": (float, "longest gradient"),
    "precision": (str, " or ".join(PRECISIONS)),
    "parallel": (str, ", ".join(PARALLELS)),
    "mtbf_s": (float, "mean seconds between failures of a host; sets the checkpoint interval"),
    "checkpoint_s": (float, "seconds between checkpoints, in place of the computed interval"),
    "report_s": (float, "seconds between lines of metrics"),
    "prefetch": (int, "batches read ahead"),
}


def add_options(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """Add --epochs, --batch_size (or --batch-size) and the other fields of the plan to a script's command line.

    :param defaults: values of fields; those that the plan leaves open (epochs, batch_size) must be given.
    """
    fields = {field.name: field.default for field in dataclasses.fields(Plan)} | defaults
    group = parser.add_argument_group("how it is trained")
    for name, (kind, text) in _OPTIONS.items():
        group.add_argument(*_spellings(name), dest=name, type=kind, default=fields[name], help=text)
    for name in ("compile", "deterministic"):
        group.add_argument(*_spellings(name), dest=name, type=_switch, default=fields[name], help="true or false")


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Return the plan that the options of `add_options` describe."""
    return Plan(
        **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Plan) if field.name in arguments}
    )


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))


def _switch(text: str) -> bool:
    """Read a boolean as hyperparameters spell it."""
    if text.lower() not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
