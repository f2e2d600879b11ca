"""What the processor's memory allocator does with memory that a step has freed."""

import ctypes
import os

#: Parameters of glibc's mallopt (man 3 mallopt).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Bytes; where glibc takes no such size for its own mappings (before 2.37 or so), the largest one it does.
_KEPT, _LARGEST = 1 << 30, 32 << 20
#: Who has set one of these has chosen already.
_CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have glibc keep up to 1 GiB of what is freed: the next step needs it again. Return whether it does.

    Otherwise it gives the end of the heap back after a step and takes it again, page by page, in the next: 2,000 pages
    a step of the text example, a tenth of its time. Another allocator or libc is left as it is.
    """
    if any(name in os.environ for name in _CHOICES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_TRIM_THRESHOLD, _KEPT)
    return bool(kept and (mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, _LARGEST)))
