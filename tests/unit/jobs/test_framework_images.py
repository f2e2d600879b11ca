"""A framework and its version become an image of the job's region, for the job's machines."""

from __future__ import annotations

import warnings
from datetime import date

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.images import (
    IMAGES,
    OutdatedImageWarning,
    image_uri,
    is_private_ecr,
    warn_if_outdated,
)


@pytest.mark.parametrize(
    ("framework", "version", "types", "region", "uri"),
    [
        (
            "pytorch", "2.13", ("ml.g6.12xlarge",), "us-east-1",
            "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.13-cu133-amzn2023-sagemaker",
        ),
        (
            "pytorch", "2.13.0", ("ml.m5.large",), "eu-west-1",
            "763104351884.dkr.ecr.eu-west-1.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker",
        ),
        (
            "PyTorch", "2.10", ("ml.g5.xlarge", "ml.c5.xlarge"), "eu-south-1",
            "692866216735.dkr.ecr.eu-south-1.amazonaws.com/pytorch-training:2.10.0-gpu-py313-cu130-ubuntu22.04-sagemaker",
        ),
        (
            "pytorch", "2.9", ("ml.trn1.32xlarge",), "us-west-2",
            "763104351884.dkr.ecr.us-west-2.amazonaws.com/"
            "pytorch-training-neuronx:2.9.0-neuronx-py312-sdk2.30.0-ubuntu24.04",
        ),
        (
            "tensorflow", "2.21", ("ml.m5.large",), "cn-north-1",
            "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/"
            "tensorflow-training:2.21.0-cpu-py312-amzn2023-sagemaker",
        ),
        (
            "pytorch", "2.12", ("ml.p5.48xlarge",), "us-gov-west-1",
            "442386744353.dkr.ecr.us-gov-west-1.amazonaws.com/pytorch:2.12-cu130-amzn2023-sagemaker",
        ),
    ],
)  # fmt: skip
def test_the_image_is_the_one_of_region_and_machines(
    framework: str, version: str, types: tuple[str, ...], region: str, uri: str
) -> None:
    assert image_uri(framework, version, types, region) == uri


@pytest.mark.parametrize(
    ("framework", "version", "types", "words"),
    [
        (
            "mxnet",
            "1.9",
            ("ml.m5.large",),
            r"framework='mxnet' must be one of \['pytorch', 'tensorflow'\].* give image",
        ),
        ("pytorch", "1.13", ("ml.m5.large",), r"framework_version='1.13': .*'2.13', '2.12'.* give image"),
        ("pytorch", "2.13", ("ml.trn1.32xlarge",), r"do not run on \['ml.trn1.32xlarge'\]; those of \['2.9', '2.8'"),
        ("tensorflow", "2.21", ("ml.trn1.32xlarge",), "those of no version do"),
        ("pytorch", "2.9", ("ml.trn1.32xlarge", "ml.g5.xlarge"), "no image runs on all of"),
        ("pytorch", "2.13", ("ml.p6e-gb200.36xlarge",), "arm64.* give image"),
    ],
)
def test_what_aws_has_no_image_for_is_refused_with_what_there_is(
    framework: str, version: str, types: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SpecificationError, match=words):
        image_uri(framework, version, types, "us-east-1")


def test_a_region_without_a_registry_is_refused_for_sagemaker_takes_no_public_image() -> None:
    with pytest.raises(SpecificationError, match=r"the region xx-new-9.*give image"):
        image_uri("pytorch", "2.12", ("ml.p5.48xlarge",), "xx-new-9")


@pytest.mark.parametrize(
    ("image", "private"),
    [
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/team/torch@sha256:0123", True),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/torch:1", True),
        ("123456789012.dkr-ecr.us-east-1.on.aws/torch:1", True),
        ("public.ecr.aws/deep-learning-containers/pytorch:2.12", False),
        ("pytorch/pytorch:2.12", False),
        ("registry.example:5000/torch:1", False),
    ],
)
def test_private_registries_of_ecr_are_told_from_all_others(image: str, private: bool) -> None:
    assert is_private_ecr(image) is private


def test_past_the_end_of_patch_there_is_a_warning_and_not_before() -> None:
    with pytest.warns(OutdatedImageWarning, match=r"pytorch 2.9 until 2026-10-15 only: .*newest known here is 2.13"):
        warn_if_outdated("pytorch", "2.9", date(2026, 10, 15))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_outdated("pytorch", "2.9", date(2026, 10, 14))


def test_versions_are_listed_newest_first() -> None:
    for versions in IMAGES.values():
        numbers = [tuple(map(int, version.split("."))) for version in versions]
        assert numbers == sorted(numbers, reverse=True)
