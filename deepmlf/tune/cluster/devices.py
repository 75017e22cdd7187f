"""Whether trials train on GPUs or CPUs: settled when a search begins, from what was asked and what the cluster has."""

import math
from dataclasses import dataclass

import ray
from ray.exceptions import GetTimeoutError, RayError

from deepmlf.errors import SearchError
from deepmlf.training.machine.device import fault_of
from deepmlf.tune.cluster.connect import check_room, nodes_gpus

_PROBE_SHARE = 0.001  # of a GPU: others may hold nearly all of it
_PROBE_SECONDS = 60.0  # for a GPU that is wholly held by others; workers look again


@dataclass(frozen=True)
class Devices:
    """What each trial of a search holds, and what people are told of that."""

    gpus: float
    line: str | None = None


def device_with(gpus: float, device: str) -> str:
    """The device of a trial that holds so many GPUs; ``auto`` is a GPU only for one that holds some."""
    if device != "auto":
        return device
    return "cuda" if gpus else "cpu"


def check_asked(gpus: float | None, device: str) -> None:
    """Refuse what cannot be together, or not in any search.

    Args:
        gpus: What was asked for per trial; None: what there is.
        device: ``training.device`` of all trials.

    Raises:
        SearchError: With what to ask for instead.
    """
    if gpus and gpus > 1 and gpus != int(gpus):
        raise SearchError(f"--gpus-per-trial {gpus:g}: must be at most 1 or a whole number; a trial trains on one GPU")
    if gpus and gpus < _PROBE_SHARE:
        raise SearchError(f"--gpus-per-trial {gpus:g}: must be 0 or at least {_PROBE_SHARE:g}")
    if ":" in device:
        raise SearchError(
            f"training.device={device}: Ray gives each trial its GPU; leave out the number, and set "
            "CUDA_VISIBLE_DEVICES to choose among GPUs"
        )
    if gpus and device == "cpu":
        raise SearchError(f"training.device=cpu: uses no GPU, but --gpus-per-trial is {gpus:g}; leave out one of them")
    if gpus == 0 and device == "cuda":
        raise SearchError("training.device=cuda: needs a GPU, but --gpus-per-trial is 0; leave out one of them")


def settle_devices(gpus: float | None, device: str, *, cpus: float, concurrent: int, may_grow: bool) -> Devices:
    """What each trial holds, on the connected cluster: what was asked for, else a share of the GPUs that there are.

    Args:
        gpus: What was asked for per trial; None: what there is.
        device: ``training.device`` of all trials.
        cpus: CPUs of a trial.
        concurrent: Trials at a time.
        may_grow: Whether nodes may come that are larger than those that are there.

    Raises:
        SearchError: If a trial never has room, or GPUs were asked for that torch cannot use.
    """
    if gpus is not None or device not in ("auto", "cuda"):
        found = Devices(gpus or 0.0)
    else:
        found = _share_of_all(device, concurrent, may_grow=may_grow)
    check_devices(found.gpus, device, cpus=cpus, may_grow=may_grow)
    return found


def check_devices(gpus: float, device: str, *, cpus: float, may_grow: bool) -> str | None:
    """Whether a trial fits on some node of the connected cluster, and can use the GPU that it holds.

    Returns:
        None if so; what is missing if nodes may yet come that have it.

    Raises:
        SearchError: If it never will, with what the GPU's driver says.
    """
    try:
        missing = check_room(cpus, gpus, may_grow=may_grow)
    except SearchError as error:
        fault = None if not gpus or may_grow or nodes_gpus() else fault_of("cuda")
        raise SearchError(f"{error}" + ("" if fault is None else f" (torch cannot use a GPU here: {fault})")) from None
    if gpus and missing is None and device_with(gpus, device) == "cuda":
        fault, _ = _probe()
        if fault is not None:
            raise SearchError(
                f"--gpus-per-trial {gpus:g}: torch cannot use the GPU ({fault}); mend that, or train on CPUs with "
                "--gpus-per-trial 0"
            )
    return missing


def _share_of_all(device: str, concurrent: int, *, may_grow: bool) -> Devices:
    """As many trials at a time as were asked for, spread over all GPUs, at most one GPU each."""
    total = sum(nodes_gpus())
    if not total:
        if device == "cuda":
            return Devices(1.0)
        line = "no node has a GPU, so trials train on CPUs; --gpus-per-trial 1 waits for nodes that have"
        return Devices(0.0, line if may_grow else None)
    fault, name = _probe()
    if fault is not None and device == "auto":
        return Devices(0.0, f"trials train on CPUs, as torch cannot use the GPU ({fault})")
    trials_per_gpu = math.ceil(concurrent / total)
    share = math.floor(1e4 / trials_per_gpu) / 1e4  # Ray counts in ten thousandths
    gpus = "GPU" if total == 1 else "GPUs"
    idle = f"; --concurrent {total:g} would use all of them" if concurrent < total else ""
    return Devices(
        share, f"each trial takes {share:g} of {total:g} {gpus}, {name}; --gpus-per-trial 0 trains on CPUs{idle}"
    )


def _probe() -> tuple[str | None, str]:
    """What torch says of a GPU of the cluster: why it cannot be used, if so, and what it is."""
    reference = ray.remote(num_cpus=0, num_gpus=_PROBE_SHARE)(_look).remote()
    try:
        found: tuple[str | None, str] = ray.get(reference, timeout=_PROBE_SECONDS)
    except GetTimeoutError:
        ray.cancel(reference)
        return None, "all of them in use"
    except RayError as error:  # a worker that the driver's library takes down with it
        return f"{type(error).__name__}", ""
    return found


def _look() -> tuple[str | None, str]:
    import torch

    fault = fault_of("cuda")
    return fault, "" if fault else torch.cuda.get_device_name()
