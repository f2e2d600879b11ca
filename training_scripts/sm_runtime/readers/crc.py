"""CRC-32C (Castagnoli, RFC 3720), masked as TFRecord stores it."""

from collections.abc import Callable

import numpy as np

from sm_runtime.readers.errors import library

#: Added after the rotation, so that a CRC of data that holds CRCs stays useful (tensorflow/core/lib/hash/crc32c.h).
MASK_DELTA = np.uint32(0xA282EAD8)


def crc32c() -> Callable[[bytes], int]:
    """Return the function; google-crc32c computes it with the processor's instruction."""
    return library("google_crc32c", "google-crc32c", "checking TFRecord").value


def masked(crcs: np.ndarray) -> np.ndarray:
    """Return checksums (uint32[n]) as TFRecord stores them; numpy drops what overflows."""
    return (crcs >> np.uint32(15) | crcs << np.uint32(17)) + MASK_DELTA
