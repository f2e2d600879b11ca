"""The variables of EFA and NCCL suit the machines, and are only set where there is a network to speak of."""

from __future__ import annotations

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.fabric import check_fabric, preset, preset_for


@pytest.mark.parametrize(
    ("instance_type", "variables"),
    [
        ("ml.m5.large", {}),
        ("ml.c5n.18xlarge", {}),
        ("ml.g5.xlarge", {}),
        ("ml.g5.48xlarge", {"FI_PROVIDER": "efa", "FI_EFA_USE_HUGE_PAGE": "0", "NCCL_PROTO": "simple"}),
        ("ml.p4d.24xlarge", {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_USE_HUGE_PAGE": "0"}),
        ("ml.p6-b200.48xlarge", {"FI_PROVIDER": "efa", "FI_EFA_USE_HUGE_PAGE": "0"}),
        ("ml.trn1.2xlarge", {}),
        ("ml.trn1.32xlarge", {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"}),
    ],
)
def test_each_type_has_its_variables(instance_type: str, variables: dict[str, str]) -> None:
    assert preset(instance_type) == variables


def test_a_single_host_has_no_network_to_set_up() -> None:
    assert preset_for(["ml.p4d.24xlarge"], 1) == {}
    assert preset_for(["ml.p4d.24xlarge"], 2) == preset("ml.p4d.24xlarge")


def test_hosts_of_several_types_get_what_is_right_on_all_of_them() -> None:
    both = preset_for(["ml.p4d.24xlarge", "ml.g5.48xlarge"], 2)
    assert both == {"FI_PROVIDER": "efa", "FI_EFA_USE_HUGE_PAGE": "0"}
    assert preset_for(["ml.p4d.24xlarge", "ml.g5.xlarge"], 2) == {}


@pytest.mark.parametrize(
    ("efa", "environment", "words"),
    [
        (True, {}, "efa=True, but ml.g5.xlarge has no Elastic Fabric Adapter.* ml.g5.16xlarge or ml.g5.8xlarge"),
        (None, {"FI_PROVIDER": "efa"}, r"environment\['FI_PROVIDER'\]='efa', but ml.g5.xlarge has no Elastic Fabric"),
    ],
)
def test_efa_is_refused_where_there_is_none(efa: bool | None, environment: dict[str, str], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check_fabric(efa=efa, environment=environment, instance_types=["ml.p4d.24xlarge", "ml.g5.xlarge"])
    check_fabric(efa=efa, environment=environment, instance_types=["ml.p4d.24xlarge", "ml.c5n.18xlarge"])
