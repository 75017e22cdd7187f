"""How fast a trial trains: seconds of each phase, throughput, arithmetic, peak memory."""

import contextlib
import re
import resource
import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from deepmlf.training.machine.phases import PHASES, Phase

T = TypeVar("T")

_NEAR_ENOUGH = 0.05  # of the mean tokens per utterance: no closer step is counted


class FlopCount(TorchDispatchMode):
    """Floating-point operations of the matrix products, convolutions and attention that run inside it.

    Unlike torch's ``FlopCounterMode`` it knows the CPU's attention kernels and takes nothing apart to count it, so
    that what runs inside gives the same numbers, bit for bit. Causal attention counts as full.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if operator.__name__.startswith("_scaled_dot_product"):
            # Backward has five products of this size where forward has two, and its arguments begin with the gradient.
            is_backward = operator.__name__.endswith("backward")
            query, key = args[1:3] if is_backward else args[:2]
            self.total += (5 if is_backward else 2) * 2 * query.numel() * key.shape[-2]
        elif operator in flop_registry:
            self.total += flop_registry[operator](*args, **(kwargs or {}), out_val=output)
        return output


def gemm_rate(device: torch.device, dtype: torch.dtype, size: int, products: int) -> float:
    """Best TFLOP/s of `products` products of two `size` x `size` matrices."""
    generator = torch.Generator(device).manual_seed(0)  # the trial's own random numbers stay as they are
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    times = []
    for _ in range(products):
        _wait(device)
        started = time.perf_counter()
        a @ b
        _wait(device)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times) / 1e12


@lru_cache
def _device_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """The rate against which a trial is compared, measured once per process; `threads` is part of the key alone."""
    return gemm_rate(device, dtype, size=4096 if device.type == "cuda" else 1024, products=3)


class SpeedMeter:
    """Measures a trial epoch by epoch.

    Args:
        device: Where it trains. A GPU's phases are timed by its own events, read when the epoch ends: nothing waits.
        precision: ``training.precision``, for the rate that the arithmetic is compared with.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self._device = device
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[Phase, torch.cuda.Event, torch.cuda.Event]] = []
        self._work: Hashable = None
        self._flops, self._distance = 0.0, float("inf")  # per utterance, of the step counted, and how typical it is

    def start_epoch(self, work: Hashable, tokens_per_utterance: float) -> None:
        """Begin an epoch.

        Args:
            work: Differs where a step computes something else, as from stage to stage: operations are counted anew.
            tokens_per_utterance: Mean over the split of the `tokens` that `step` will be told.
        """
        if work != self._work:
            self._work, self._flops, self._distance = work, 0.0, float("inf")
        self._mean_tokens = tokens_per_utterance
        self._utterances = self._tokens = self._hits = self._lookups = 0
        self._read_events()
        # The last checkpoint was written after its epoch was reported; it belongs to this one.
        self._started = time.perf_counter() - self._seconds["checkpoint"]
        _reset_peak_memory(self._device)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Add what runs inside to a phase; phases may nest, each is timed whole."""
        if self._device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(torch.cuda.current_stream(self._device))
            yield
            end.record(torch.cuda.current_stream(self._device))
            self._events.append((name, start, end))
        else:
            started = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - started

    def timed(self, name: Phase, items: Iterable[T]) -> Iterator[T]:
        """The same items; making them is added to a phase."""
        iterator = iter(items)
        while True:
            with self.phase(name):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    @contextmanager
    def step(self, utterances: int, tokens: int) -> Iterator[None]:
        """One forward and backward pass.

        Operations per utterance are linear in its tokens, but for attention's small part. So they are counted in one
        step alone, that whose mean tokens per utterance are closest to the split's, and taken for all of the epoch.

        Args:
            utterances: Of the batch.
            tokens: Valid text tokens and fusion tokens that the language model reads; 0 if it does not run.
        """
        self._utterances += utterances
        self._tokens += tokens
        distance = abs(tokens / utterances - self._mean_tokens)
        is_counted = distance < self._distance and self._distance > _NEAR_ENOUGH * self._mean_tokens
        count = FlopCount()
        counting: AbstractContextManager[object] = count if is_counted else contextlib.nullcontext()
        with counting:
            yield
        if is_counted:
            self._flops, self._distance = count.total / utterances, distance

    def look_up(self, utterances: int, *, cached: bool) -> None:
        """Count text prefixes that were needed, and whether they came from the cache."""
        self._lookups += utterances
        self._hits += utterances if cached else 0

    def metrics(self) -> dict[str, float]:
        """The epoch so far, ``time/…`` in seconds and ``speed/…``.

        ``time/checkpoint_seconds`` is of this epoch's best weights and of the checkpoint before it, as its own will
        hold these metrics; ``time/epoch_seconds`` has it inside. ``time/train_seconds`` is data, forward, backward,
        optimizer and what is between them; all but memory and hit rate refers to it. ``speed/gemm_share`` is the
        share of the rate of one large matrix product, measured on the same device in the same precision.
        """
        self._read_events()
        metrics = {f"time/{name}_seconds": seconds for name, seconds in self._seconds.items()}
        metrics["time/epoch_seconds"] = time.perf_counter() - self._started
        seconds = self._seconds["train"]
        self._seconds = dict.fromkeys(PHASES, 0.0)
        tflops = self._flops * self._utterances / seconds / 1e12
        return metrics | {
            "speed/utterances_per_second": self._utterances / seconds,
            "speed/tokens_per_second": self._tokens / seconds,
            "speed/tflops": tflops,
            "speed/gemm_share": tflops / _device_rate(self._device, self._dtype, torch.get_num_threads()),
            "speed/peak_memory_gb": _peak_memory(self._device) / 1e9,
            "speed/prefix_hit_rate": self._hits / max(self._lookups, 1),
        }

    def _read_events(self) -> None:
        if self._events:
            _wait(self._device)
        for name, start, end in self._events:
            self._seconds[name] += start.elapsed_time(end) / 1e3
        self._events = []


def without_measurements(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics that are the same whenever the trial is run again."""
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "speed/"))}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # Linux alone has it; elsewhere the peak is of the process's life
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> int:
    """Bytes: allocated by torch on a GPU, resident in the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
