"""The same work on many things, spread over the connected cluster."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import ray

from deepmlf.errors import DeepMLFError
from deepmlf.progress import bar


def map_on_cluster(
    function: Callable[..., Any], items: Sequence[Any], description: str, *, cpus: float, gpus: float
) -> list[Any]:
    """`function` of each item, in the items' order, as many at a time as the cluster has room for.

    Args:
        function: Must be importable by the workers, or picklable.
        items: Its only arguments.
        description: What is done with them, for the bar.
        cpus: CPUs of one call; also its torch threads.
        gpus: GPUs of one call.

    Raises:
        DeepMLFError: The first call's that raised one, as it was raised there; its stack trace there is a note of it.
    """

    def call(item: Any) -> Any:
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        try:
            return function(item)
        except DeepMLFError as error:
            # Raised here, Ray would wrap it in a text of many lines, and print those of the other calls by itself.
            error.add_note(traceback.format_exc())
            return error

    remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(call)
    references = [remote.remote(item) for item in items]
    results = []
    for reference in bar(references, description):
        result = ray.get(reference)
        if isinstance(result, DeepMLFError):
            raise result
        results.append(result)
    return results
