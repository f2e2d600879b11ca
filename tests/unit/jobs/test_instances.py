"""The catalogue knows what AWS trains on, and refuses what AWS refuses with a way out."""

from __future__ import annotations

import botocore.session
import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import instances
from airflow_dlaws.jobs.instances import CATALOGUE, check_training_instance, processes_on

KNOWN_TO_SAGEMAKER = (
    botocore.session.get_session().get_service_model("sagemaker").shape_for("TrainingInstanceType").enum
)


def test_every_name_in_the_catalogue_is_one_of_sagemakers() -> None:
    assert set(CATALOGUE) - set(KNOWN_TO_SAGEMAKER) == set()


def test_every_accelerator_instance_of_sagemaker_is_in_the_catalogue() -> None:
    accelerated = {name for name in KNOWN_TO_SAGEMAKER if instances.is_accelerated(name)}
    assert accelerated - set(CATALOGUE) == set()


def test_every_successor_is_a_current_type_of_the_catalogue() -> None:
    for instance in CATALOGUE.values():
        if instance.successor:
            assert not CATALOGUE[instance.successor].retired, instance.name


@pytest.mark.parametrize(
    ("instance_type", "processes"),
    [
        ("ml.m5.large", 1),
        ("ml.c7i-flex.2xlarge", 1),
        ("ml.g5.xlarge", 1),
        ("ml.g6.12xlarge", 4),
        ("ml.p4d.24xlarge", 8),
        ("ml.p5.4xlarge", 1),
        ("ml.p6e-gb200.36xlarge", 4),
        ("ml.trn1.32xlarge", 32),
        ("ml.trn2.48xlarge", 64),
    ],
)
def test_a_host_runs_one_process_an_accelerator(instance_type: str, processes: int) -> None:
    assert processes_on(instance_type) == processes


def test_an_accelerator_instance_that_is_newer_than_the_catalogue_asks_for_the_number() -> None:
    with pytest.raises(SpecificationError, match=r"'ml.p9.48xlarge' .* give processes_per_instance"):
        processes_on("ml.p9.48xlarge")


@pytest.mark.parametrize(
    ("instance_type", "words"),
    [
        ("ml.p3.16xlarge", r"V100\) has been retired by AWS: use ml.g6e.12xlarge.* with 8 accelerators, such as ml.p"),
        ("ml.p2.xlarge", r"K80\) has been retired by AWS: use ml.g6.xlarge"),
        ("ml.inf1.xlarge", "serves models on Inferentia and does not train on it: train on ml.trn1"),
        ("ml.inf2.xlarge", "does not train on it"),
        ("ml.eia2.medium", "Elastic Inference was closed in April 2023.* use a GPU instance"),
        ("p4d.24xlarge", "is no SageMaker instance type: they read ml.FAMILY.SIZE"),
    ],
)
def test_what_aws_does_not_train_on_is_refused_with_a_way_out(instance_type: str, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check_training_instance("instance_type", instance_type)


@pytest.mark.parametrize("instance_type", ["ml.p3dn.24xlarge", "ml.g4dn.xlarge", "ml.m5.large", "ml.p9.48xlarge"])
def test_older_and_newer_types_are_left_to_aws(instance_type: str) -> None:
    check_training_instance("instance_type", instance_type)


def test_local_storage_is_known_of_cpu_types_too() -> None:
    assert instances.has_local_storage("ml.r5d.large")
    assert instances.has_local_storage("ml.g5.xlarge")
    assert not instances.has_local_storage("ml.m5.large")
    assert not instances.has_local_storage("ml.c7i-flex.large")
