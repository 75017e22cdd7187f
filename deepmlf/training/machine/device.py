"""The device that a trial trains on and a finished model predicts on: picked here and nowhere else.

torch is imported when a device is looked at: workers read this module, too, and do without until they train.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from deepmlf.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

_DEVICES = Path("/dev")
_CPU_INFO = Path("/proc/cpuinfo")
_MULTIPLIES_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
"""CPU instructions, as Linux names them on x86 and ARM."""


def pick_device(name: str, asked: str | None = None) -> "torch.device":
    """The device of a name; ``auto`` takes a GPU if torch can use one, else the CPU.

    Args:
        name: As ``training.device`` takes it.
        asked: What the user has written to ask for it, for messages; None: ``training.device=<name>``.

    Raises:
        ConfigError: If this machine has no such device, or torch cannot use it, with the driver's reason.
    """
    import torch

    if name == "auto":
        return torch.device("cpu" if fault_of("cuda") else "cuda")
    fault = fault_of(name)
    if fault is not None:
        raise ConfigError(f"{asked or f'training.device={name}'}: cannot be used here ({fault})")
    return torch.device(name)


def fault_of(name: str) -> str | None:
    """Why torch cannot compute on a device, as its driver says; None if it can."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a driver that it then refuses
            torch.zeros(1, device=name).item()  # a kernel is run: a card that torch was not built for is found out
    except (RuntimeError, AssertionError) as error:
        return first_line(error)
    return None


def device_line(device: "torch.device", name: str) -> str:
    """What people are told of a device that was picked by its name: the card, or why ``auto`` has left one unused."""
    if device.type == "cuda":
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    fault = unused_gpu(name)
    return str(device) if fault is None else f"{device}, as torch cannot use this machine's GPU ({fault})"


def unused_gpu(name: str) -> str | None:
    """Why an NVIDIA card of this machine cannot be used, for a name that would take it; None if there is none such."""
    has_card = any(_DEVICES.glob("nvidia[0-9]*"))
    return fault_of("cuda") if name == "auto" and has_card else None


def slow_precision(precision: str, device: str) -> str | None:
    """Why a precision takes long on a kind of device, and what to do; None if it does not, or nobody can tell.

    Args:
        precision: ``training.precision``.
        device: ``cpu`` or ``cuda``; of CPUs this machine's is looked at.
    """
    if precision != "bfloat16" or device != "cpu" or not _CPU_INFO.is_file():
        return None
    if _MULTIPLIES_BFLOAT16 & set(_CPU_INFO.read_text().split()):
        return None
    return (
        "this CPU has no instructions for bfloat16, so that training.precision=bfloat16 takes many times as long; "
        "--set training.precision=float32"
    )
