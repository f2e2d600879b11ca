"""The accelerator instances that SageMaker trains on, and what AWS refuses to train on.

Read on 2026-11-24. Names: `TrainingInstanceType` of botocore 1.44.5 (a test compares them). GPUs, memory, local storage
and EFA interfaces: EC2's DescribeInstanceTypes of August 2026, as https://karpenter.sh/docs/reference/instance-types/
publishes it; types that EC2 lists no more, and ml.p6e-gb200: https://aws.amazon.com/ec2/instance-types/. GPUDirect
RDMA: the pages of the families there; False where they say nothing. ml.trn2: cores as the Neuron runtime shows them by
default, two physical ones as one (NEURON_LOGICAL_NC_CONFIG=2).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.limits import check_instance_type

#: Families with accelerators, known here or not: `ml.p9.48xlarge` is one, `ml.m7i-flex.large` is not.
_ACCELERATED_FAMILY = re.compile(r"ml\.(p|g|trn|inf)\d[a-z0-9-]*\..*")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One instance type with accelerators.

    :param accelerators: GPUs, or Neuron cores: as many worker processes as use all of it.
    :param memory_gib: of each of them.
    :param efa: network interfaces with Elastic Fabric Adapter; 0 for none.
    :param gpudirect_rdma: the network reads and writes the accelerators' memory.
    :param local_storage: the volume is NVMe on the machine, of fixed size and encrypted with the machine's own key.
    :param architecture: of the CPU; images must match it.
    :param retired: AWS launches it no more.
    :param successor: what to use instead of a retired or an old one.
    """

    name: str
    accelerator: str
    accelerators: int
    memory_gib: int
    efa: int = 0
    gpudirect_rdma: bool = False
    local_storage: bool = True
    architecture: str = "x86_64"
    retired: bool = False
    successor: str | None = None

    @property
    def neuron(self) -> bool:
        """Whether it is AWS's own accelerator, which CUDA and NCCL do not know."""
        return self.accelerator.startswith("Trainium")


def _family(family: str, accelerator: str, memory_gib: int, sizes: str, **common: Any) -> dict[str, Instance]:
    """Read `size:accelerators:EFA interfaces` words."""
    found = {}
    for word in sizes.split():
        size, accelerators, efa = word.split(":")
        name = f"ml.{family}.{size}"
        found[name] = Instance(
            name=name,
            accelerator=accelerator,
            accelerators=int(accelerators),
            memory_gib=memory_gib,
            efa=int(efa),
            **common,
        )
    return found


_RDMA = {"gpudirect_rdma": True}
_RETIRED = {"retired": True, "local_storage": False}
_SINGLE = "xlarge:1:0 2xlarge:1:0 4xlarge:1:0 8xlarge:1:1 16xlarge:1:1"

CATALOGUE: Mapping[str, Instance] = {
    **_family("p2", "K80", 12, "xlarge:1:0 8xlarge:8:0 16xlarge:16:0", successor="ml.g6.xlarge", **_RETIRED),
    **_family("p3", "V100", 16, "2xlarge:1:0 8xlarge:4:0 16xlarge:8:0", successor="ml.g6e.12xlarge", **_RETIRED),
    **_family("p3dn", "V100", 32, "24xlarge:8:1", successor="ml.p4d.24xlarge"),
    **_family("p4d", "A100", 40, "24xlarge:8:4", **_RDMA),
    **_family("p4de", "A100", 80, "24xlarge:8:4", **_RDMA),
    **_family("p5", "H100", 80, "4xlarge:1:1 48xlarge:8:32", **_RDMA),
    **_family("p5e", "H200", 141, "48xlarge:8:32", **_RDMA),
    **_family("p5en", "H200", 141, "48xlarge:8:16", **_RDMA),
    **_family("p6-b200", "B200", 179, "48xlarge:8:8", **_RDMA),
    **_family("p6-b300", "B300", 268, "48xlarge:8:16", **_RDMA),
    **_family("p6e-gb200", "GB200", 185, "36xlarge:4:17", architecture="arm64", **_RDMA),
    **_family(
        "g4dn",
        "T4",
        16,
        "xlarge:1:0 2xlarge:1:0 4xlarge:1:0 8xlarge:1:1 12xlarge:4:1 16xlarge:1:1",
        successor="ml.g6.xlarge",
    ),
    **_family("g5", "A10G", 22, f"{_SINGLE} 12xlarge:4:1 24xlarge:4:1 48xlarge:8:1"),
    **_family("g6", "L4", 22, f"{_SINGLE} 12xlarge:4:1 24xlarge:4:1 48xlarge:8:1"),
    **_family("g6e", "L40S", 44, f"{_SINGLE} 12xlarge:4:1 24xlarge:4:2 48xlarge:8:4"),
    **_family("g7", "RTX PRO 4500", 32, "2xlarge:1:0 4xlarge:1:0 8xlarge:1:1 12xlarge:2:1 24xlarge:4:1 48xlarge:8:2"),
    **_family("g7e", "RTX PRO 6000", 96, "2xlarge:1:0 4xlarge:1:0 8xlarge:1:1"),
    **_family("g7e", "RTX PRO 6000", 96, "12xlarge:2:1 24xlarge:4:2 48xlarge:8:4", **_RDMA),
    **_family("trn1", "Trainium", 16, "2xlarge:2:0"),
    **_family("trn1", "Trainium", 16, "32xlarge:32:8", **_RDMA),
    **_family("trn1n", "Trainium", 16, "32xlarge:32:16", **_RDMA),
    **_family("trn2", "Trainium2", 24, "48xlarge:64:16", **_RDMA),
}

#: Types without accelerators whose volume is NVMe on the machine, and those with EFA (for MPI: gloo does not use it).
_CPU_LOCAL_STORAGE = re.compile(r"ml\.[a-z]\d[a-z]*d[a-z]*\..*")
_CPU_EFA = frozenset(
    f"ml.{name}"
    for name in (
        "c5n.9xlarge", "c5n.18xlarge", "m6i.32xlarge", "c6i.32xlarge", "r6i.32xlarge", "m7i.48xlarge", "c7i.48xlarge",
        "r7i.48xlarge", "m8i.48xlarge", "m8i.96xlarge", "c8i.48xlarge", "c8i.96xlarge", "r8i.48xlarge", "r8i.96xlarge",
    )
)  # fmt: skip


def find(instance_type: str) -> Instance | None:
    """Return an instance type with accelerators; None for one without, and for one that this version does not know."""
    return CATALOGUE.get(instance_type)


def is_accelerated(instance_type: str) -> bool:
    """Tell whether the type has accelerators, by its family's name where the catalogue does not know it."""
    return instance_type in CATALOGUE or bool(_ACCELERATED_FAMILY.fullmatch(instance_type))


def has_efa(instance_type: str) -> bool:
    """Tell whether the type has Elastic Fabric Adapter."""
    instance = find(instance_type)
    return bool(instance.efa) if instance else instance_type in _CPU_EFA


def has_local_storage(instance_type: str) -> bool:
    """Tell whether the type's volume is NVMe on the machine, for which AWS takes no VolumeKmsKeyId."""
    instance = find(instance_type)
    return instance.local_storage if instance else bool(_CPU_LOCAL_STORAGE.fullmatch(instance_type))


def processes_on(instance_type: str) -> int:
    """Return how many worker processes use the whole machine: one an accelerator, one where there is none.

    :raises SpecificationError: it has accelerators and is newer than this catalogue.
    """
    instance = find(instance_type)
    if instance is None and is_accelerated(instance_type):
        raise SpecificationError(
            f"instance_type={instance_type!r} has accelerators, and this version does not know how many: give "
            "processes_per_instance, one process an accelerator"
        )
    return instance.accelerators if instance else 1


def check_training_instance(field: str, value: Any) -> None:
    """Refuse what AWS does not train on; whether any other name exists is known to the service model."""
    if isinstance(value, str) and ".eia" in value:
        raise SpecificationError(
            f"{field}={value!r}: Elastic Inference was closed in April 2023 and never trained models: "
            "use a GPU instance, such as ml.g6.xlarge"
        )
    check_instance_type(field, value)
    if re.match(r"ml\.inf\d", value):
        raise SpecificationError(
            f"{field}={value!r}: SageMaker serves models on Inferentia and does not train on it: train on "
            "ml.trn1.2xlarge, ml.trn1.32xlarge or ml.trn2.48xlarge (Neuron cores), or on a GPU instance"
        )
    instance = find(value)
    if instance is not None and instance.retired:
        raise SpecificationError(
            f"{field}={value!r} ({instance.accelerator}) has been retired by AWS: use {instance.successor}, or "
            f"another current type{_current(instance)}"
        )


def _current(instance: Instance) -> str:
    """Name current types with as many accelerators as a retired one."""
    alike = [
        other.name
        for other in CATALOGUE.values()
        if other.accelerators == instance.accelerators and not other.retired and not other.successor
    ]
    close = difflib.get_close_matches(instance.name, alike, n=3, cutoff=0.0)
    return f" with {instance.accelerators} accelerators, such as {', '.join(close)}" if close else ""
