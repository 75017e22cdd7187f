"""The Ray cluster that a search or a confirmation runs on."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to a cluster: the one at `address`, one of this machine's own, or one that is connected already."""
    if ray.is_initialized():
        yield
        return
    ray.init(
        address=address,
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield
    finally:
        ray.shutdown()


def map_on_cluster(function: Callable[..., Any], items: Sequence[Any], *, cpus: float, gpus: float) -> list[Any]:
    """`function` of each item, in the items' order, as many at a time as the cluster has room for.

    Args:
        function: Must be importable by the workers, or picklable.
        items: Its only arguments.
        cpus: CPUs of one call; also its torch threads.
        gpus: GPUs of one call.
    """

    def call(item: Any) -> Any:
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        return function(item)

    remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(call)
    results: list[Any] = ray.get([remote.remote(item) for item in items])
    return results
