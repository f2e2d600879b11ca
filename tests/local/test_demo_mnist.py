"""The sweep's images: complete, as the package has them, and stored where jobs look for them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from airflow_dlaws.local.demo import mnist
from airflow_dlaws.local.process import LocalAws

CACHE = Path(__file__).parent.parent.parent / ".dlaws" / "cache"


@pytest.fixture(scope="module")
def splits() -> dict[str, Path]:
    return mnist.split_files(CACHE)


def test_five_thousand_different_images_are_divided_by_digit(splits: dict[str, Path]) -> None:
    seen: set[bytes] = set()
    for split, path in splits.items():
        with np.load(path) as file:
            pixels, labels = file["images"], file["labels"]
        assert pixels.dtype == labels.dtype == np.uint8
        assert pixels.shape == (10 * mnist.SPLITS[split], 28, 28)
        assert np.bincount(labels).tolist() == [mnist.SPLITS[split]] * 10
        # MNIST's own mean and standard deviation are 33.3 and 78.6.
        assert pixels.mean() == pytest.approx(33.3, abs=0.6)
        assert pixels.std() == pytest.approx(78.6, abs=0.6)
        seen |= {image.tobytes() for image in pixels}
    assert len(seen) == 5000


def test_splits_are_stored_as_channels(splits: dict[str, Path], local_aws: LocalAws, bucket: str) -> None:
    channels = mnist.upload(local_aws.client("s3"), bucket, splits)
    assert channels["validation"] == f"s3://{bucket}/mnist/validation/"
    stored = local_aws.client("s3").get_object(Bucket=bucket, Key="mnist/validation/mnist.npz")["Body"].read()
    with np.load(io.BytesIO(stored)) as file:
        assert len(file["labels"]) == 750
