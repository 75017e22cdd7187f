"""Memory of the process: what the C library's allocator keeps and gives back. Does nothing where it is not glibc."""

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
_LARGEST_KEPT = 32 * 1024 * 1024  # bytes; glibc accepts no larger value
_NEVER = -1


def keep_freed_memory() -> None:
    """Keep freed blocks in the process, for the next training step.

    By default glibc returns large blocks to the system at once, and every step on a CPU has its activations zeroed and
    faulted in anew.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _NEVER)


def give_back_freed_memory() -> None:
    """Return what a finished trial has left, so that a worker's memory does not grow from trial to trial."""
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
