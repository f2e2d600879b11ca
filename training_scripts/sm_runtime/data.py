"""What the loop asks of data, and the simplest thing that answers: tensors in memory."""

from typing import Any, Protocol

import numpy as np
import torch


class Data(Protocol):
    """Samples by number, the same ones in every process. Readers of files fit too (`sm_runtime.readers`)."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def batch(self, indices: np.ndarray) -> Any:
        """Return the samples (int64[n]) in that order: tensors with n rows, or tuples, lists, dicts of them."""


class Tensors:
    """Tensors that all have a row a sample.

    :param tensors: on processors, or on the device already, which saves a copy for each step.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        if not tensors or len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"tensors with {[len(tensor) for tensor in tensors]} rows: each sample needs one in each")
        self.tensors = tensors
        self._away = None if tensors[0].device.type == "cpu" else tensors[0].device

    def __len__(self) -> int:
        return len(self.tensors[0])

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
        chosen = torch.from_numpy(indices)
        if self._away:
            chosen = chosen.to(self._away)
        return tuple(tensor.index_select(0, chosen) for tensor in self.tensors)

    def to(self, device: torch.device) -> "Tensors":
        """Return the same samples on a device."""
        return Tensors(*(tensor.to(device) for tensor in self.tensors))


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch to the device, without waiting where they lie in pinned memory."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)([to_device(value, device) for value in batch])
    return batch


def pinned(batch: Any) -> Any:
    """Return the batch in pinned memory, from which copies to a GPU need no waiting."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.is_cuda or batch.is_pinned() else batch.pin_memory()
    if isinstance(batch, dict):
        return {name: pinned(value) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)([pinned(value) for value in batch])
    return batch
