"""The rules of Gadam, each as the paper has it; the population itself is tested with real processes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from sm_runtime import gadam

LOSSES = [0.2, 0.5, 0.3, 1.2]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_fitness_is_the_softmax_of_the_negative_normalized_loss() -> None:
    normal = [(loss - 0.2) / 1.0 for loss in LOSSES]
    total = sum(math.exp(-loss) for loss in normal)
    assert gadam.fitness(LOSSES) == pytest.approx([math.exp(-loss) / total for loss in normal])
    assert gadam.fitness([3.0, 3.0]) == pytest.approx([0.5, 0.5])
    assert gadam.fitness([1e6 * loss for loss in LOSSES]) == pytest.approx(gadam.fitness(LOSSES))


def test_a_member_without_a_loss_is_never_a_parent_nor_survives() -> None:
    chances = gadam.fitness([0.5, math.nan, 0.7])
    assert chances[1] == 0
    assert all(1 not in pair for seed in range(50) for pair in gadam.choose_parents(chances, generator(seed)))
    assert gadam.choose_survivors([0.5, math.nan, 0.7], [math.inf, 0.6, 0.8]) == (0, 4, 2)
    with pytest.raises(FloatingPointError, match="fewer than two"):
        gadam.fitness([math.nan, 0.5])


def test_pairs_are_drawn_by_fitness_and_never_of_one_member() -> None:
    chances, draws = gadam.fitness(LOSSES), 5000
    pairs = [pair for seed in range(draws) for pair in gadam.choose_parents(chances, generator(seed))]
    assert len(pairs) == draws * len(LOSSES)
    seen = Counter(pairs)
    for first, chance in enumerate(chances):
        assert seen[first, first] == 0
        for second, other in enumerate(chances):
            if first != second:
                expected = chance * other / (1 - chance)
                # Four standard errors of a share of 20,000 draws.
                assert seen[first, second] / len(pairs) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(pairs)))


def test_a_weight_comes_from_a_parent_by_the_softmax_of_the_two_losses() -> None:
    share = gadam.inheritance(LOSSES, (0, 3))
    assert share == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert share + gadam.inheritance(LOSSES, (3, 0)) == pytest.approx(1)
    first, second = torch.full((3, 40_000), 1.0), torch.full((3, 40_000), 2.0)
    child = gadam.cross(first, second, share, 0.0, "uniform", generator())
    assert set(child.unique().tolist()) == {1.0, 2.0}
    assert (child[0] == 1).double().mean().item() == pytest.approx(share, abs=4 * math.sqrt(0.25 / 40_000))
    assert torch.equal(child[0], child[1]), "moments stay with the weight they belong to"


def test_the_fitter_the_parents_the_fewer_weights_mutate() -> None:
    chances = gadam.fitness(LOSSES)
    rates = {pair: gadam.mutation_chance(LOSSES, pair, 0.5) for pair in ((0, 2), (0, 3), (1, 3))}
    assert rates[0, 2] < rates[0, 3] < rates[1, 3]
    assert rates[0, 3] == pytest.approx(0.5 * (1 - chances[0] - chances[3]))
    assert gadam.mutation_chance([0.1, 0.2], (0, 1), 0.5) == pytest.approx(0), "a population of two has none"


@pytest.mark.parametrize(("mutation", "mean", "spread"), [("uniform", 0.5, math.sqrt(1 / 12)), ("gaussian", 0.0, 0.1)])
def test_a_mutated_weight_is_drawn_anew_and_loses_its_moments(mutation: str, mean: float, spread: float) -> None:
    parents = torch.full((3, 100_000), 7.0)
    child = gadam.cross(parents, parents, 0.5, 0.2, mutation, generator())
    mutated = child[0] != 7
    count = int(mutated.sum())
    assert count / 100_000 == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 100_000))
    assert child[0][mutated].mean().item() == pytest.approx(mean, abs=4 * spread / math.sqrt(count))
    assert child[0][mutated].std().item() == pytest.approx(spread, rel=0.05)
    assert (child[1:, mutated] == 0).all()
    assert (child[1:, ~mutated] == 7).all()


def test_the_best_of_members_and_children_survive_and_a_tie_is_the_members() -> None:
    random = generator(3)
    for _ in range(200):
        losses, children = random.random(5).round(1).tolist(), random.random(5).round(1).tolist()
        survivors = gadam.choose_survivors(losses, children)
        everyone = losses + children
        kept = [everyone[place] for place in survivors]
        assert kept == sorted(everyone)[:5]
        assert len(set(survivors)) == 5
    assert gadam.choose_survivors([0.5, 0.9], [0.5, 0.5]) == (0, 2)
