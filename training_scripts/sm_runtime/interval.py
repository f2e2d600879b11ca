"""How often to save: Young's and Daly's interval from measured cost.

Saving costs C seconds of training each time; a failure, every M seconds on average, costs what was done since the last
checkpoint. The sum is least at an interval of about sqrt(2 C M) (Young, CACM 17(9), 1974; Daly, FGCS 22(3), 2006).
"""

import math

#: Between checkpoints, in seconds: writing them all the time wears out disks and uploads; and what is computed from a
#: guessed failure rate must not put half an hour of every machine at stake.
SHORTEST_S, LONGEST_S = 5.0, 1800.0
#: The first checkpoint comes early, since until then neither its cost is known nor anything saved.
FIRST_S = 10.0
#: Of each new measurement in the running mean: one slow write does not decide.
_WEIGHT = 0.3


class Interval:
    """Says when the next checkpoint is due. The clock is an argument.

    :param fixed_s: this interval, whatever a checkpoint costs.
    :param mtbf_s: mean seconds between failures of one host.
    :param hosts: any of them stops the job, so that failures come so many times as often.
    """

    def __init__(self, *, mtbf_s: float, hosts: int = 1, fixed_s: float | None = None, now: float) -> None:
        self._mtbf_s, self._fixed_s, self._last = mtbf_s / hosts, fixed_s, now
        self._stall_s = self._write_s = 0.0
        self._measured = False

    @property
    def seconds(self) -> float:
        """The interval now."""
        if self._fixed_s is not None:
            return self._fixed_s
        if not self._measured:
            return FIRST_S
        # Never so short that a write has no rest until the next.
        shortest = max(SHORTEST_S, 2 * self._write_s)
        return max(shortest, min(LONGEST_S, young_daly(self._stall_s, self._mtbf_s)))

    def due(self, now: float) -> bool:
        """Tell whether it is time."""
        return now - self._last >= self.seconds

    def saved(self, now: float) -> None:
        """Count from here."""
        self._last = now

    def measured(self, *, stall_s: float, write_s: float) -> None:
        """Take note of what a checkpoint has cost: seconds that training stood still, and that its writing took."""
        weight = _WEIGHT if self._measured else 1.0
        self._stall_s += weight * (stall_s - self._stall_s)
        self._write_s += weight * (write_s - self._write_s)
        self._measured = True


def young_daly(cost_s: float, mtbf_s: float) -> float:
    """Return the interval with the least loss, in seconds."""
    return math.sqrt(2 * cost_s * mtbf_s)
