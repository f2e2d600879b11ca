"""AWS's Deep Learning Containers for training: from a framework's name and version to the URI of an image.

Read on 2026-11-24 from https://github.com/aws/deep-learning-containers (commit e0ecede of 2026-08-21, docs/src/data and
docs/reference/region_availability.md) and its support policy,
https://aws.github.io/deep-learning-containers/reference/support_policy: after its end of patch an image stays where it
is, and gets no security fix any more. Images for SageMaker only; the newest image of each version.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import instances

#: A private registry of ECR, in whatever partition. From ECR Public, and all others, SageMaker refuses images.
_PRIVATE_ECR = re.compile(r"\d{12}\.dkr[.-]ecr[a-z0-9.-]*/\S+")
#: Who publishes the images, in all regions but those below.
_ACCOUNT = "763104351884"
_ACCOUNTS = {
    "af-south-1": "626614931356",
    "ap-east-1": "871362719292",
    "ap-east-2": "975050140332",
    "ap-northeast-3": "364406365360",
    "ap-south-2": "772153158452",
    "ap-southeast-3": "907027046896",
    "ap-southeast-4": "457447274322",
    "ap-southeast-5": "550225433462",
    "ap-southeast-6": "633930458069",
    "ap-southeast-7": "590183813437",
    "ca-west-1": "204538143572",
    "cn-north-1": "727897471807",
    "cn-northwest-1": "727897471807",
    "eu-central-2": "380420809688",
    "eu-south-1": "692866216735",
    "eu-south-2": "503227376785",
    "il-central-1": "780543022126",
    "me-central-1": "914824155844",
    "me-south-1": "217643126080",
    "mx-central-1": "637423239942",
    "us-gov-east-1": "446045086412",
    "us-gov-west-1": "442386744353",
}
_COMMON_ACCOUNT_REGIONS = frozenset(
    {
        "us-east-1", "us-east-2", "us-west-1", "us-west-2", "ap-northeast-1", "ap-northeast-2", "ap-south-1",
        "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2",
        "eu-west-3", "sa-east-1",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FrameworkImage:
    """The images of one version of a framework.

    :param repositories: by device ("cpu", "gpu", "neuron"), `repository:tag`.
    :param end_of_patch: from this day on they get no security fixes; None where AWS names no day.
    """

    repositories: Mapping[str, str]
    end_of_patch: date | None = None


def _pytorch(version: str, full: str, python: str, cuda: str, end_of_patch: date, neuron: str = "") -> FrameworkImage:
    """Return the images of PyTorch up to 2.10, on Ubuntu."""
    tag = f"{full}-{{}}-ubuntu22.04-sagemaker"
    repositories = {
        "cpu": "pytorch-training:" + tag.format(f"cpu-{python}"),
        "gpu": "pytorch-training:" + tag.format(f"gpu-{python}-{cuda}"),
    }
    if neuron:
        repositories["neuron"] = f"pytorch-training-neuronx:{version}.0-neuronx-{neuron}"
    return FrameworkImage(repositories=repositories, end_of_patch=end_of_patch)


def _pytorch_amazon_linux(version: str, cuda: str, end_of_patch: date) -> FrameworkImage:
    """Return the images of PyTorch from 2.11 on, on Amazon Linux."""
    devices = {"cpu": "cpu", "gpu": cuda}
    repositories = {key: f"pytorch:{version}-{device}-amzn2023-sagemaker" for key, device in devices.items()}
    return FrameworkImage(repositories=repositories, end_of_patch=end_of_patch)


def _tensorflow(full: str, system: str, cuda: str, end_of_patch: date) -> FrameworkImage:
    devices = {"cpu": "cpu-py312", "gpu": f"gpu-py312-{cuda}"}
    repositories = {key: f"tensorflow-training:{full}-{device}-{system}-sagemaker" for key, device in devices.items()}
    return FrameworkImage(repositories=repositories, end_of_patch=end_of_patch)


IMAGES: Mapping[str, Mapping[str, FrameworkImage]] = {
    "pytorch": {
        "2.13": _pytorch_amazon_linux("2.13", "cu133", date(2027, 7, 20)),
        "2.12": _pytorch_amazon_linux("2.12", "cu130", date(2027, 7, 2)),
        "2.11": _pytorch_amazon_linux("2.11", "cu130", date(2027, 4, 30)),
        "2.10": _pytorch("2.10", "2.10.0", "py313", "cu130", date(2027, 1, 21)),
        "2.9": _pytorch("2.9", "2.9.0", "py312", "cu130", date(2026, 10, 15), "py312-sdk2.30.0-ubuntu24.04"),
        "2.8": _pytorch("2.8", "2.8.0", "py312", "cu129", date(2026, 8, 6), "py311-sdk2.26.1-ubuntu22.04"),
        "2.7": _pytorch("2.7", "2.7.1", "py312", "cu128", date(2026, 4, 23), "py310-sdk2.25.0-ubuntu22.04"),
        "2.6": _pytorch("2.6", "2.6.0", "py312", "cu126", date(2026, 1, 29), "py310-sdk2.23.0-ubuntu22.04"),
    },
    "tensorflow": {
        "2.21": _tensorflow("2.21.0", "amzn2023", "cu129", date(2027, 7, 10)),
        "2.19": _tensorflow("2.19.0", "ubuntu22.04", "cu125", date(2026, 3, 11)),
    },
}


class OutdatedImageWarning(UserWarning):
    """An image gets no security fixes any more."""


def framework_image(framework: str, version: str) -> FrameworkImage:
    """Return the images of a framework's version; `2.12.1` names those of `2.12`.

    :raises SpecificationError: there are none, with those there are.
    """
    versions = IMAGES.get(framework.lower())
    if versions is None:
        raise SpecificationError(
            f"framework={framework!r} must be one of {sorted(IMAGES)}; for any other framework give image"
        )
    found = versions.get(".".join(version.split(".")[:2]))
    if found is None:
        raise SpecificationError(
            f"framework_version={version!r}: the Deep Learning Containers of {framework} known here are "
            f"{list(versions)}. For a newer or an older one give image, the whole URI"
        )
    return found


def device_of(instance_types: tuple[str, ...]) -> str:
    """Return which images run on all of these types: "cpu", "gpu" or "neuron".

    :raises SpecificationError: none does.
    """
    found = [instances.find(name) for name in instance_types]
    arm = sorted({one.name for one in found if one and one.architecture == "arm64"})
    if arm:
        raise SpecificationError(f"there is no training image for {arm} (arm64) among AWS's for SageMaker: give image")
    neuron = {bool(one and one.neuron) for one in found}
    if len(neuron) > 1:
        raise SpecificationError(f"no image runs on all of {list(instance_types)} (Neuron and others): give image")
    if neuron == {True}:
        return "neuron"
    # The images for GPUs run on CPU machines too.
    return "gpu" if any(instances.is_accelerated(name) for name in instance_types) else "cpu"


def image_uri(framework: str, version: str, instance_types: tuple[str, ...], region: str) -> str:
    """Return the image's URI in the registry of the region.

    :raises SpecificationError: there is no such image, or no registry in the region.
    """
    device = device_of(instance_types)
    repositories = framework_image(framework, version).repositories
    if device not in repositories:
        with_device = [name for name, image in IMAGES[framework.lower()].items() if device in image.repositories]
        raise SpecificationError(
            f"framework_version={version!r}: AWS's images of {framework} {version} do not run on "
            f"{list(instance_types)}; those of {with_device or 'no version'} do. Or give image"
        )
    return f"{_registry(region)}/{repositories[device]}"


def is_private_ecr(image: str) -> bool:
    """Tell whether an image is in a private registry of ECR."""
    return bool(_PRIVATE_ECR.fullmatch(image))


def warn_if_outdated(framework: str, version: str, today: date) -> None:
    """Warn where the image gets no security fixes any more."""
    end = framework_image(framework, version).end_of_patch
    if end is not None and today >= end:
        newest = next(iter(IMAGES[framework.lower()]))
        warnings.warn(
            f"framework_version={version!r}: AWS has patched the Deep Learning Container of {framework} {version} "
            f"until {end:%Y-%m-%d} only: move to a newer one (the newest known here is {newest})",
            OutdatedImageWarning,
            stacklevel=3,
        )


def _registry(region: str) -> str:
    account = _ACCOUNTS.get(region) or (_ACCOUNT if region in _COMMON_ACCOUNT_REGIONS else None)
    if account is None:
        raise SpecificationError(
            f"framework: no registry of AWS's images is known for the region {region}, and SageMaker takes none from "
            "public.ecr.aws: copy the image to ECR in that region, and give image"
        )
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{account}.dkr.ecr.{region}.{domain}"
