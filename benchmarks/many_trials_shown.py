"""What it takes to look at an experiment of many trials; one JSON line. Linux only.

The experiment is synthetic: study, metrics and TensorBoard events as a search writes them, without training. Measured
are the request behind TensorBoard's HParams tab, once the server has read all trials, and `deepmlf analyze` in a fresh
process, its imports included.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.parts.served import ROOT, columns, served
from benchmarks.parts.synthetic_experiment import make_experiment


def seconds_of_hparams(experiment: Path, trials: int) -> float:
    """Seconds from asking for the HParams tab's columns and rows to having them, the first time."""
    with served(experiment) as server:
        server.until(lambda: len(server.get("text", "tags")) == trials)
        started = time.perf_counter()
        rows = server.session_groups(server.experiment())
        seconds = time.perf_counter() - started
    if len(rows) != trials:
        raise RuntimeError(f"HParams has {len(rows)} of {trials} trials")
    return seconds


def analyze(experiment: Path) -> tuple[float, float]:
    """Wall and CPU seconds of `deepmlf analyze`."""
    command = [sys.executable, "-m", "deepmlf", "analyze", str(experiment)]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path, trials: int, scheduler: str, repeats: int) -> dict[str, Any]:
    """All figures; medians over repeats."""
    load = os.getloadavg()[0]
    experiment = make_experiment(folder, trials, scheduler=scheduler, events=True)
    columns(experiment)
    size = sum(path.stat().st_size for path in experiment.glob("trials/*/events*"))
    hparams = [seconds_of_hparams(experiment, trials) for _ in range(repeats)]
    walls, cpus = zip(*(analyze(experiment) for _ in range(repeats)), strict=True)
    return {
        "benchmark": "many_trials_shown",
        "trials": trials,
        "scheduler": scheduler,
        "repeats": repeats,
        "load_before": round(load, 2),
        "hparams_seconds": round(statistics.median(hparams), 2),
        "analyze_seconds": round(statistics.median(walls), 1),
        "analyze_cpu_seconds": round(statistics.median(cpus), 1),
        "event_bytes_per_trial": round(size / trials),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--scheduler", default="asha", help="none: no trial is stopped early")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), options.trials, options.scheduler, options.repeats)))


if __name__ == "__main__":
    main()
