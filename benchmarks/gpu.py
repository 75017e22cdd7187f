"""What a GPU makes of a trial: right against the CPU, how fast, how busy, and what trials that share it lose.

Under eight minutes on a machine with one GPU, PyTorch and transformers. Each part is a process of its own, so that one
that fails costs no other; each prints JSON lines as it goes, of which ``--out`` keeps a copy.

- ``device``: the card, and the rate of one large matrix product in each type;
- ``right``: losses of nine steps and gradients of the first against the CPU's, in float32;
- ``steps``: the workload of `benchmarks.train_step`: milliseconds, TFLOP/s, share of the product's rate, kernels,
  waits of the host, peak memory, and the same step replayed as a CUDA graph, which has no launches to wait for;
- ``shared``: one process alone, then four at once, in steps a second of all.

    python -m benchmarks.gpu --out gpu.jsonl
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.train_step import SIZES, Precision, Workload
from deepmlf.training.machine.speed import FlopCount, gemm_rate

PARTS = ("device", "right", "steps", "shared")
LIMITS = {"device": 60, "right": 120, "steps": 210, "shared": 120}
"""Seconds of a part at most."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
BATCHES = (32, 256)
STEPS, WARMUP = 10, 3
TRIALS, SHARED_SECONDS = 4, 5.0
EXACT = {"dropout": 0.0, "av_dropout": 0.0, "lora_dropout": 0.0}
"""Settings of a model that draws nothing in training, so that two devices can be compared."""
GPU = torch.device("cuda")


def device() -> None:
    """The card."""
    properties = torch.cuda.get_device_properties(GPU)
    rates = {str(dtype): _rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    tell(
        part="device", name=properties.name, memory_gb=round(properties.total_memory / 1e9, 1),
        torch=torch.__version__, cuda=torch.version.cuda, product_tflops=rates,
    )  # fmt: skip


def _rate(dtype: torch.dtype) -> float:
    return round(gemm_rate(GPU, dtype, size=8192, products=5), 1)


def right() -> None:
    """One step and eight more of the same seed on both devices."""
    for size in ("gpt2-base", "smollm2-135m"):
        found: dict[str, tuple[dict[str, torch.Tensor], list[float]]] = {}
        for name in ("cpu", "cuda"):
            work = Workload(size, "float32", torch.device(name), 32, drawn_on=torch.device("cpu"), **EXACT)
            totals = [work.backward()["total"].item()]
            gradients = {key: p.grad.cpu() for key, p in work.parameters.items() if p.grad is not None}
            work.update()
            for _ in range(8):
                totals.append(work.backward()["total"].item())
                work.update()
            found[name] = gradients, totals
        (cpu, cpu_losses), (gpu, gpu_losses) = found["cpu"], found["cuda"]
        errors = {key: ((gpu[key] - value).norm() / value.norm().clamp(min=1e-12)).item() for key, value in cpu.items()}
        worst = max(errors, key=lambda key: errors[key])
        tell(
            part="right", size=size, gradients=len(errors), worst_gradient=worst, worst_error=errors[worst],
            median_error=statistics.median(errors.values()),
            losses=[round(loss, 5) for loss in gpu_losses],
            worst_loss=max(abs(a - b) for a, b in zip(cpu_losses, gpu_losses, strict=True)),
        )  # fmt: skip


def steps() -> None:
    """Steps of every size."""
    for product in ("highest", "high"):
        torch.set_float32_matmul_precision(product)
        rates = {"float32": _rate(torch.float32), "bfloat16": _rate(torch.bfloat16)}
        for size in SIZES:
            for precision in PRECISIONS if product == "highest" else PRECISIONS[:1]:
                for batch_size in BATCHES if product == "highest" else BATCHES[1:]:
                    row: dict[str, Any] = {"part": "steps", "size": size, "precision": precision, "batch": batch_size}
                    try:
                        row |= _measured(Workload(size, precision, GPU, batch_size), rates[precision])
                    except Exception as error:  # the next size may fit
                        row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
                    tell(**row, float32_products=product, product_tflops=rates[precision])
                    torch.cuda.empty_cache()


def _measured(work: Workload, rate: float) -> dict[str, Any]:
    for _ in range(WARMUP):
        work.step()
    with FlopCount() as counted:
        work.step()
    torch.cuda.reset_peak_memory_stats()
    flops, seconds = counted.total, _median_seconds(work.step)
    peak = torch.cuda.max_memory_allocated()
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        work.step()
        torch.cuda.set_sync_debug_mode("default")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work.step()
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    row = {
        "step_ms": round(seconds * 1e3, 2), "tflops": round(flops / seconds / 1e12, 2),
        "share": round(flops / seconds / 1e12 / rate, 4), "kernels": len(kernels), "kernel_ms": round(busy * 1e3, 2),
        "waits": len([warning for warning in waits if "synchroniz" in str(warning.message)]),
        "peak_gb": round(peak / 1e9, 2),
    }  # fmt: skip
    try:
        replayed = _median_seconds(_graph_of(work).replay)
        row |= {"graph_ms": round(replayed * 1e3, 2), "graph_share": round(flops / replayed / 1e12 / rate, 4)}
    except RuntimeError as error:
        row["graph_error"] = str(error)[:300]
    return row


def _median_seconds(work: Any) -> float:
    times = []
    for _ in range(STEPS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _graph_of(work: Workload) -> torch.cuda.CUDAGraph:
    """The step as one graph, as for a batch whose shapes never change."""
    for group in work.optimizer.param_groups:
        group["capturable"] = True
    for state in work.optimizer.state.values():
        state["step"] = state["step"].to(GPU)
    # Laid out once: a graph would read it from memory of the host that is gone when it is replayed.
    packing = work.model._packing(work.batch.attention_mask.bool(), work.batch.text_lengths)
    work.model._packing = lambda *batch: packing  # type: ignore[method-assign]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            work.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work.step()
    return graph


def shared() -> None:
    """Several trials on one card, a process each."""
    for size in ("gpt2-base", "smollm2-135m"):
        for precision in PRECISIONS[1:]:
            rates = {}
            for trials in (1, TRIALS):
                context = multiprocessing.get_context("spawn")
                ready, done = context.Barrier(trials), context.SimpleQueue()
                running = [
                    context.Process(target=_stepping, args=(size, precision, ready, done)) for _ in range(trials)
                ]
                for process in running:
                    process.start()
                rates[trials] = sum(done.get() for _ in running)
                for process in running:
                    process.join()
            tell(
                part="shared", size=size, precision=precision, trials=TRIALS,
                steps_a_second={count: round(rate, 2) for count, rate in rates.items()},
                gain=round(rates[TRIALS] / rates[1], 3),
            )  # fmt: skip


def _stepping(size: str, precision: Precision, ready: Any, done: Any) -> None:
    torch.set_num_threads(1)
    work = Workload(size, precision, GPU, 32)
    for _ in range(WARMUP):
        work.step()
    torch.cuda.synchronize()
    ready.wait()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < SHARED_SECONDS:
        work.step()
        torch.cuda.synchronize()
        count += 1
    done.put(count / (time.perf_counter() - started))


def tell(**row: Any) -> None:
    """Print a line."""
    print(json.dumps(row), flush=True)


def main() -> None:
    """Run the parts one by one, each in a process."""
    parser = argparse.ArgumentParser(description="What a GPU makes of a trial.")
    parser.add_argument("--part", choices=PARTS, help="Run this part alone, here.")
    parser.add_argument("--out", type=Path, help="File to which lines are added, too.")
    asked = parser.parse_args()
    if asked.part:
        {"device": device, "right": right, "steps": steps, "shared": shared}[asked.part]()
        return
    for part in PARTS:
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", part]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            limit = threading.Timer(LIMITS[part], process.kill)
            limit.start()
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                if asked.out:
                    with asked.out.open("a") as file:
                        file.write(line)
            limit.cancel()
        if process.returncode:
            tell(part=part, error=f"ended with {process.returncode}, which is -9 after {LIMITS[part]} s")


if __name__ == "__main__":
    main()
