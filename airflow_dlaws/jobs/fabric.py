"""Environment variables for the network between hosts, by instance type: Elastic Fabric Adapter and NCCL.

Sources, read on 2026-11-24: AWS's launcher in its own images (aws/sagemaker-training-toolkit 3383937,
torch_distributed.py and mpi.py) and AWS's "EFA Cheatsheet" (aws-samples/awsome-distributed-training,
1.architectures/efa-cheatsheet.md); for Trainium, the Neuron guide "Multi-instance training". Where the two differ the
newer one, the cheatsheet, wins: no RDMAV_FORK_SAFE, and NCCL's protocol is left to the plug-in where the network
reaches GPU memory. NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME are set on the host (`jobs/container_entry.py`), which
knows its interface. Which types have EFA is known from EC2; that SageMaker attaches it to all of them is assumed (AWS's
launcher lists the large types only). Without it NCCL says so in its log, and takes TCP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import instances

#: Where FI_EFA_USE_DEVICE_RDMA=1 is known to be right; newer libfabric (1.18 on) finds out by itself.
_DEVICE_RDMA = re.compile(r"ml\.(p4d|p4de|p5|p5e|p5en|p6e-gb200|trn1|trn1n)\..*")


def preset(instance_type: str) -> dict[str, str]:
    """Return the variables for hosts of one type; none for a type without EFA or without accelerators."""
    instance = instances.find(instance_type)
    if instance is None or not instance.efa:
        return {}
    variables = {"FI_PROVIDER": "efa"}
    if instance.gpudirect_rdma and _DEVICE_RDMA.fullmatch(instance_type):
        variables["FI_EFA_USE_DEVICE_RDMA"] = "1"
    if instance.neuron:
        return variables | {"FI_EFA_FORK_SAFE": "1"}
    # Huge pages run out where data loaders fork: "OSError: Cannot allocate memory".
    variables["FI_EFA_USE_HUGE_PAGE"] = "0"
    if not instance.gpudirect_rdma:
        # EFA delivers out of order; the other protocols of NCCL rely on the order.
        variables["NCCL_PROTO"] = "simple"
    return variables


def preset_for(instance_types: Sequence[str], hosts: int) -> dict[str, str]:
    """Return the variables that are right on all of these types; none for a single host, which has no network."""
    if hosts < 2 or not instance_types:
        return {}
    first, *others = [preset(name) for name in instance_types]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def check_fabric(*, efa: bool | None, environment: Mapping[str, str] | None, instance_types: Sequence[str]) -> None:
    """Refuse to ask for EFA where there is none.

    :raises SpecificationError: names the instance types.
    """
    asked = "efa=True" if efa else ""
    if (environment or {}).get("FI_PROVIDER") == "efa":
        asked = "environment['FI_PROVIDER']='efa'"
    without = [name for name in instance_types if not instances.has_efa(name)]
    if asked and without:
        larger = sorted({other for name in without for other in _with_efa(name)})
        raise SpecificationError(
            f"{asked}, but {', '.join(without)} has no Elastic Fabric Adapter: leave it out, or use "
            f"{' or '.join(larger) or 'a type that has it, such as ml.g6.8xlarge or ml.p4d.24xlarge'}"
        )


def _with_efa(instance_type: str) -> list[str]:
    """Return the types of the same family with EFA."""
    family = instance_type.rsplit(".", 1)[0]
    return [one.name for one in instances.CATALOGUE.values() if one.efa and one.name.startswith(f"{family}.")][:2]
