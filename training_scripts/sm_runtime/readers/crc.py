"""CRC-32C (Castagnoli, RFC 3720), masked as TFRecord stores it."""

from collections.abc import Callable

from sm_runtime.readers.errors import library

#: Added after the rotation, so that a CRC of data that holds CRCs stays useful (tensorflow/core/lib/hash/crc32c.h).
MASK_DELTA = 0xA282EAD8


def masked_crc32c() -> Callable[[bytes], int]:
    """Return the function; google-crc32c computes it with the processor's instruction."""
    value = library("google_crc32c", "google-crc32c", "checking TFRecord").value

    def masked(data: bytes) -> int:
        crc = value(data)
        return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF

    return masked
