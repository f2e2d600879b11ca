"""How often the processes talk about other things than gradients: a few times a second, at the same step in all."""

import time
from collections.abc import Sequence

from sm_runtime import stopping
from sm_runtime.ranks import Group

#: Seconds between two talks. A talk costs a tenth of a millisecond and, on GPUs, waits for the device; of the 120
#: seconds after SIGTERM it takes this much.
PULSE_S = 0.5
#: Steps between two talks: steps that become slow, as where data come from elsewhere, must not put a stop off for
#: minutes. Of steps of a tenth of a millisecond a talk after so many costs less than a hundredth.
MOST_STEPS = 256


class Pulse:
    """Counts steps between talks, and sets their number so that they take `seconds`. Alone, one stops at once.

    :param seconds: 0 talks after every step.
    """

    def __init__(self, group: Group, seconds: float = PULSE_S) -> None:
        self._group, self._seconds = group, seconds
        self._every, self._steps, self._began = 1, 0, time.perf_counter()

    def due(self) -> bool:
        """Count a step; tell whether to talk after it. The same answer in every process."""
        self._steps += 1
        return self._steps >= self._every or (self._group.size == 1 and stopping.stop_wanted())

    def talk(self, values: Sequence[float]) -> list[float]:
        """Return the sums of the values over all processes."""
        now = time.perf_counter()
        *sums, seconds = self._group.sum([*values, now - self._began])
        # The same number everywhere, as every process computes it from the same sums.
        step_seconds = max(seconds / self._group.size / max(1, self._steps), 1e-6)
        # At most twice as many as before: the first steps tell little, and a stop must not wait for a wrong guess.
        self._every = max(1, min(int(self._seconds / step_seconds), 2 * self._every, MOST_STEPS))
        self._steps, self._began = 0, now
        return sums
