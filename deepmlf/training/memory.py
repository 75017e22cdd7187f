"""Memory of the process: what the allocator gives back."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
_LARGEST_KEPT = 32 * 1024 * 1024  # bytes; glibc accepts no larger value


def keep_freed_memory() -> None:
    """Keep freed blocks in the process; does nothing where the C library is not glibc.

    By default glibc returns large blocks to the system at once, and every training step on a CPU has its activations
    zeroed and faulted in anew.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
