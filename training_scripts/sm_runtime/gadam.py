"""Gadam: a population of models, each trained with Adam, bred into better ones (Zhang and Gouza, arXiv:1805.07500).

One process trains one member, on all the data, and no gradient is averaged. After each generation (an epoch, or as many
steps as the script says) the members are judged by their validation loss and bred, here called evolution:

1. Fitness. P(i) = exp(-L(i)) / sum over j of exp(-L(j)), where L is the validation loss brought to the range 0 to 1
   over the population, since exp(-loss) of the raw losses would be 0 or the same for all.
2. Selection. As many pairs of parents as there are members, drawn by P. The two of a pair are different: the second is
   drawn by P from the others.
3. Crossover. Each weight of a child is that of parent i with probability exp(-L(i)) / (exp(-L(i)) + exp(-L(j))), else
   that of parent j.
4. Mutation. Each weight of a child is, with probability rate * (1 - P(i) - P(j)), replaced by a random draw: the fitter
   the parents, the fewer. Two members that are each other's parents (a population of two) have no mutation at all.
5. Survival. Of the members and their children the g with the lowest validation loss go on. The best is with rank 0.

Where the rules come from. The paper itself could not be fetched when this was written. 1, 3 and 5 and "replaced by
rand(0, 1), at a rate that falls with the parents' fitness" are as the collection github.com/junaidaliop/zij
(canon/math/gadam.md) states the paper's equations; the rate of 4 and P of 1 are those its page on BGADAM
(canon/math/bgadam.md; Bai, Ren and Zhang, arXiv:1908.08015, the same group's sequel) states, which also replaces by
N(0, 0.01). Both draws are here; "uniform" is Gadam's own. Not found in either: how exactly the losses are normalized
(here the lowest becomes 0 and the highest 1), that the two of a pair differ, and what a child's moments are. Here a
child inherits the moments of Adam with the weight they belong to, and a mutated weight starts without any.

What goes over the network at an evolution: the weights and moments of each member, twice, one member at a time. A
process holds four members at most, whatever the size of the population.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from sm_runtime.loop import Task
from sm_runtime.plan import Plan
from sm_runtime.ranks import Group
from sm_runtime.sampler import order_of
from sm_runtime.seeds import mix, set_seeds

#: Base rate of mutation: of a hundred weights one, where the parents have no fitness at all.
MUTATION_RATE = 0.01
#: Of the draw N(0, 0.01) of BGADAM, the second number being the variance.
GAUSSIAN_SPREAD = 0.1
MUTATIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "uniform": lambda generator, count: generator.uniform(0.0, 1.0, count),
    "gaussian": lambda generator, count: generator.normal(0.0, GAUSSIAN_SPREAD, count),
}


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one evolution did. It is the same in every process."""

    number: int
    losses: tuple[float, ...]
    parents: tuple[tuple[int, int], ...]
    child_losses: tuple[float, ...]
    #: By rank: below g a member of before, from g on a child.
    survivors: tuple[int, ...]

    def document(self) -> dict:
        return dataclasses.asdict(self)


def normalized(losses: list[float]) -> np.ndarray:
    """Return the losses brought to 0 (the lowest) to 1 (the highest); a loss that is no number becomes infinity."""
    values = np.array([loss if math.isfinite(loss) else math.inf for loss in losses])
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        raise FloatingPointError(
            f"the members' validation losses are {losses}: fewer than two have any; lower the rate"
        )
    span = float(finite.max() - finite.min())
    return (values - finite.min()) / (span or 1.0)


def fitness(losses: list[float]) -> np.ndarray:
    """Return P, the chance of each member to be a parent; a member without a loss has none."""
    strength = np.exp(-normalized(losses))
    return strength / strength.sum()


def choose_parents(chances: np.ndarray, generator: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Return as many pairs as there are members, each of two different ones."""
    count = len(chances)
    pairs = (generator.choice(count, size=2, replace=False, p=chances) for _ in range(count))
    return tuple((int(first), int(second)) for first, second in pairs)


def inheritance(losses: list[float], pair: tuple[int, int]) -> float:
    """Return the chance of a weight to come from the first of the pair."""
    chances = fitness(losses)
    return float(chances[pair[0]] / (chances[pair[0]] + chances[pair[1]]))


def mutation_chance(losses: list[float], pair: tuple[int, int], rate: float) -> float:
    """Return the chance of a weight to be replaced by a random draw."""
    chances = fitness(losses)
    return max(0.0, rate * float(1 - chances[pair[0]] - chances[pair[1]]))


def cross(
    first: torch.Tensor, second: torch.Tensor, share: float, rate: float, mutation: str, generator: np.random.Generator
) -> torch.Tensor:
    """Return a child of two genomes (rows x weights: the weights in row 0, moments in the others)."""
    count = first.shape[1]
    from_first = torch.from_numpy(generator.random(count) < share).to(first.device)
    child = torch.where(from_first, first, second)
    mutated = generator.random(count) < rate
    draws = torch.from_numpy(MUTATIONS[mutation](generator, int(mutated.sum()))).to(child)
    places = torch.from_numpy(np.flatnonzero(mutated)).to(child.device)
    child[:, places] = 0
    child[0, places] = draws
    return child


def choose_survivors(losses: list[float], child_losses: list[float]) -> tuple[int, ...]:
    """Return the places of the lowest losses among members and children, the best first; a tie is the member's."""
    values = np.array([loss if math.isfinite(loss) else math.inf for loss in (*losses, *child_losses)])
    return tuple(np.argsort(values, kind="stable")[: len(losses)].tolist())


class Population:
    """The members of all processes: each process makes one of these and trains one member.

    :param mutation: "uniform" or "gaussian", what a mutated weight is drawn from.
    :raises ValueError: this is the only process, or a setting is outside its range.
    """

    def __init__(self, group: Group, *, seed: int, rate: float = MUTATION_RATE, mutation: str = "uniform") -> None:
        if group.size < 2:
            raise ValueError(
                "gadam breeds a population with one member a process, and this is the only process: "
                "start it with `torchrun --nproc-per-node N`, N at least 2, or choose adam"
            )
        if mutation not in MUTATIONS:
            raise ValueError(f"mutation {mutation!r} is unknown: choose one of {', '.join(MUTATIONS)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"the mutation rate is {rate}; it must be from 0 to 1")
        self.group, self.rank, self.size = group, group.rank, group.size
        self.seed, self.rate, self.mutation = seed, rate, mutation
        self.history: list[Generation] = []

    def join(self, network: torch.nn.Module, optimizer: torch.optim.Adam) -> None:
        """Take note of this process's member.

        :raises ValueError: the network has running statistics, or the optimizer no moments of Adam.
        """
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            raise ValueError(
                f"a population is bred with the moments of Adam, and the optimizer is {type(optimizer).__name__}: "
                "choose gadam, or leave the parallel mode population"
            )
        if any(buffer.is_floating_point() for buffer in network.buffers()):
            raise ValueError("gadam breeds weights; running statistics (BatchNorm) of two members make none of a child")
        self.network, self.optimizer = network, optimizer

    @torch.no_grad()
    def evolve(self, evaluate: Callable[[], float]) -> Generation:
        """Breed the next generation; `evaluate` returns the validation loss of this process's network as it is."""
        number = len(self.history) + 1
        losses = self.group.gather(evaluate())
        parents = choose_parents(fitness(losses), np.random.default_rng([self.seed, number]))
        mine = self._genome()
        first, second = self._fetch(mine, parents[self.rank])
        share = inheritance(losses, parents[self.rank])
        rate = mutation_chance(losses, parents[self.rank], self.rate)
        generator = np.random.default_rng([self.seed, number, 1 + self.rank])
        child = cross(first, second, share, rate, self.mutation, generator)
        del first, second
        self._express(child)
        child_losses = self.group.gather(evaluate())
        survivors = choose_survivors(losses, child_losses)
        self._express(self._exchange(mine, child, survivors))
        generation = Generation(
            number=number,
            losses=tuple(losses),
            parents=parents,
            child_losses=tuple(child_losses),
            survivors=survivors,
        )
        self.history.append(generation)
        return generation

    def state_dict(self) -> dict:
        """Return what a checkpoint needs beside the network and the optimizer, of plain values only."""
        return {"history": [generation.document() for generation in self.history]}

    def load_state_dict(self, state: dict) -> None:
        self.history = [
            Generation(
                number=saved["number"],
                losses=tuple(saved["losses"]),
                parents=tuple(map(tuple, saved["parents"])),
                child_losses=tuple(saved["child_losses"]),
                survivors=tuple(saved["survivors"]),
            )
            for saved in state["history"]
        ]

    def _learned(self) -> list[torch.nn.Parameter]:
        """Return what is bred: what does not learn is the same in every member."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _genome(self) -> torch.Tensor:
        """Return weights and moments of this member, 3 x weights."""
        parameters = self._learned()
        zeros = dict.fromkeys(("exp_avg", "exp_avg_sq"), torch.zeros_like)
        states = [self.optimizer.state.get(parameter, {}) for parameter in parameters]
        rows = [torch.cat([parameter.flatten() for parameter in parameters])]
        for name, empty in zeros.items():
            moments = (state.get(name, empty(weights)) for state, weights in zip(states, parameters, strict=True))
            rows.append(torch.cat([moment.flatten() for moment in moments]))
        return torch.stack(rows)

    def _express(self, genome: torch.Tensor) -> None:
        """Make this process's network and Adam those of the genome. Adam's step count is every member's."""
        parameters = self._learned()
        sizes = [parameter.numel() for parameter in parameters]
        weights, averages, squares = (row.split(sizes) for row in genome)
        for parameter, *values in zip(parameters, weights, averages, squares, strict=True):
            parameter.copy_(values[0].view_as(parameter))
            if state := self.optimizer.state.get(parameter):
                state["exp_avg"].copy_(values[1].view_as(parameter))
                state["exp_avg_sq"].copy_(values[2].view_as(parameter))

    def _fetch(self, mine: torch.Tensor, wanted: tuple[int, int]) -> list[torch.Tensor]:
        """Return the genomes of two members; every process sends its own to all, one after the other."""
        found: dict[int, torch.Tensor] = {}
        for rank in range(self.size):
            genome = self._broadcast(mine, rank)
            if rank in wanted:
                found[rank] = genome.clone()
        return [found[rank] for rank in wanted]

    def _exchange(self, mine: torch.Tensor, child: torch.Tensor, survivors: tuple[int, ...]) -> torch.Tensor:
        """Return the genome that goes on in this process."""
        kept = None
        for place in sorted(survivors):
            own = mine if place < self.size else child
            genome = self._broadcast(own, place % self.size)
            if survivors[self.rank] == place:
                kept = genome.clone()
        return kept

    def _broadcast(self, own: torch.Tensor, rank: int) -> torch.Tensor:
        genome = own if rank == self.rank else torch.empty_like(own)
        dist.broadcast(genome, src=rank)
        return genome


def plan_for(optimizer: str, plan: Plan) -> Plan:
    """Return the plan with a model of its own for each process, where the optimizer's name is gadam."""
    return dataclasses.replace(plan, parallel="population") if optimizer == "gadam" else plan


def seed_member(plan: Plan, group: Group) -> None:
    """Let each member of a population draw first weights of its own. Call it before the network is made."""
    if plan.parallel == "population":
        set_seeds(plan.seed, group.rank)


def breed(task: Task, plan: Plan, group: Group, *, judge: str = "validation:loss") -> Task:
    """Return a task that breeds a new generation after each epoch; of another plan, the task as it is.

    :param judge: the metric of task.validate by which members are compared; the lowest is the best.
    :raises SystemExit: this is the only process.
    """
    if plan.parallel != "population":
        return task
    try:
        population = Population(group, seed=plan.seed)
    except ValueError as error:
        raise SystemExit(str(error)) from None

    def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = task.optimizer(model)
        population.join(model, optimizer)
        return optimizer

    def validate(model: torch.nn.Module) -> dict[str, float]:
        generation = population.evolve(lambda: task.validate(model).get(judge, math.nan))
        children = sum(place >= group.size for place in generation.survivors)
        return {**task.validate(model), "population:children": children}

    return dataclasses.replace(
        task,
        optimizer=make_optimizer,
        # Every member sees every sample in each epoch, in an order of its own.
        order=order_of(task.data, mix(plan.seed, group.rank)),
        validate=validate,
        also={**task.also, "population": population},
    )
