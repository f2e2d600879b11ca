"""Random numbers as a function of place: (seed, step, micro-batch) names the state, so a resume needs none stored.

A micro-batch draws the same numbers whichever process works on it, and however many there are.
"""

import random

import numpy as np
import torch

_MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """Return 64 bits that depend on all numbers and their order (SplitMix64, Steele et al., OOPSLA 2014)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def set_seeds(*place: int) -> None:
    """Set torch's, numpy's and Python's generators to the state that `place` names."""
    bits = mix(*place)
    # Not torch.manual_seed: its detours through devices that are not there take 70 microseconds, these take 7.
    torch.default_generator.manual_seed(bits)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(bits)
    np.random.seed(bits & 0xFFFFFFFF)
    random.seed(bits)
