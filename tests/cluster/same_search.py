"""What pretended machines share: programs, a dataset, and a search that is compared with one that needs no cluster."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from deepmlf.training.machine.speed import without_measurements
from tests.cluster.machines import ROOT

# The search of cluster/'s files, made small. No trial learns from another one, so that their order does not matter.
REPLACED = {
    "--lm": "tiny-random", "--space": "demo", "--trials": "4", "--concurrent": "2", "--gpus-per-trial": "0",
    "--cpus-per-trial": "1",
}  # fmt: skip
ADDED = (
    "--epochs 5 --sampler random --scheduler none --no-priors --seed 5 --set model.max_text_len=8 "
    "--set model.av_frames=6 --set curriculum.av_epochs=1"
)
# As many CPUs as the smallest machine that runs tests has.
NODE = 'case "$*" in start*--num-cpus*) ;; start*) set -- "$@" --num-cpus=2 ;; esac\n'
PROGRAMS = {
    "ray": "-m ray.scripts.scripts",
    "deepmlf": str(ROOT / "tests" / "cluster" / "small_deepmlf.py"),
    "python": "",
}


def install(shared: Path, data: Path, **size: str) -> None:
    """Fill the folder that machines see as /shared: an environment that is this one, and a dataset."""
    programs = shared / "venv" / "bin"
    programs.mkdir(parents=True)
    settings = {
        "PYTHONPATH": str(ROOT), "SMALL": "/shared/small.json", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
    }  # fmt: skip
    for name, arguments in PROGRAMS.items():
        exports = "".join(f"export {variable}={value}\n" for variable, value in settings.items())
        start = NODE if name == "ray" else ""
        (programs / name).write_text(f'#!/bin/sh\n{exports}{start}exec {sys.executable} {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    shutil.copytree(data, shared / "mosi")
    shrink(shared, **size)


def shrink(shared: Path, **size: str) -> None:
    """Have `deepmlf` there search a little; see `tests.cluster.small_deepmlf`."""
    small = {"replaced": REPLACED | size, "added": {"search": ADDED}}
    (shared / "small.json").write_text(json.dumps(small))


def assert_same_search(there: Path, data: Path, scratch: Path, **size: str) -> None:
    """An experiment's table is that of the same search on this machine alone, which is run for that."""
    words = ["search", str(data), *(word for option in (REPLACED | size).items() for word in option), *ADDED.split()]
    where = ["--storage", str(scratch), "--name", "first"]
    command = [sys.executable, "-m", "deepmlf", *words, *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    ours, theirs = (pq.read_table(experiment / "results.parquet") for experiment in (scratch / "first", there))
    same = [name for name in without_measurements(dict.fromkeys(ours.column_names)) if not name.startswith("seconds")]
    same = [name for name in same if name not in ("data.path", "experiment")]
    assert {"trial", "state", "fusion_epoch", "valid/MAE", "model.num_fusion_tokens", "train/loss"} <= set(same)
    assert theirs.select(same).equals(ours.select(same))
    assert set(ours["state"].to_pylist()) == {"COMPLETE"}
