"""The lines that report metrics: JSON, as SageMaker's regular expressions and Airflow read them."""

import json
import resource

import torch


def report(metrics: dict[str, float]) -> None:
    """Print one line of metrics, at once: names and numbers."""
    print(json.dumps({"dlaws_metrics": metrics}), flush=True)


def peak_memory_mb(device: torch.device) -> float:
    """Return the largest amount of memory that this process has used so far: on its GPU, or else in all. In MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
