"""How exactly a device computes: autocast to bfloat16 where it exists, and the same bits every time where asked for."""

import contextlib
import os

import torch

from sm_runtime.plan import Plan


def autocast(plan: Plan, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context of forward passes. Raises SystemExit where the device has no bfloat16.

    bfloat16 needs no loss scaling, as it has float32's range.
    """
    if plan.precision == "float32":
        return contextlib.nullcontext()
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SystemExit(f"{torch.cuda.get_device_name(device)} has no bfloat16: choose the precision float32")
    return torch.autocast(device.type, dtype=torch.bfloat16)


def set_determinism(plan: Plan) -> None:
    """Choose algorithms that give the same bits every time. On CUDA some have none: a warning says so."""
    cuda = torch.cuda.is_available()
    if plan.deterministic:
        # cuBLAS is deterministic with a workspace of its own (docs.nvidia.com/cuda/cublas, "Results reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(plan.deterministic, warn_only=cuda)
    torch.backends.cudnn.benchmark = cuda and not plan.deterministic
