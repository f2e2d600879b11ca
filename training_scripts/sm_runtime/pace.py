"""How fast training goes, and what it waits for, between two lines of metrics."""

import time

import torch

from sm_runtime.metrics import peak_memory_mb


class Pace:
    """Collects what one line of metrics says.

    :param every_s: seconds between lines; 0: a line at every talk.
    """

    def __init__(self, every_s: float, device: torch.device) -> None:
        self._every_s, self._device = every_s, device
        self._reset()

    def due(self) -> bool:
        """Tell whether it is time for a line."""
        return time.perf_counter() - self._began >= self._every_s

    def add(self, *, samples: float, loss: float, waited_s: float) -> None:
        """Take note of steps: samples and the sum of their losses over all processes, mean seconds of waiting."""
        self._samples += samples
        self._loss += loss
        self._waited_s += waited_s

    def stalled(self, seconds: float) -> None:
        """Take note of seconds that a checkpoint has cost."""
        self._stalled_s += seconds

    def take(self) -> dict[str, float]:
        """Return the metrics since the last call, and begin anew. The loss is left out where there were no samples."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        metrics = {
            "samples_per_second": round(self._samples / seconds, 2),
            "data_wait_share": round(self._waited_s / seconds, 4),
            "checkpoint_stall_share": round(self._stalled_s / seconds, 4),
            "peak_memory_mb": round(peak_memory_mb(self._device), 1),
        }
        if self._samples:
            metrics["loss"] = round(self._loss / self._samples, 6)
        self._reset()
        return metrics

    def _reset(self) -> None:
        self._began = time.perf_counter()
        self._samples = self._loss = self._waited_s = self._stalled_s = 0.0
