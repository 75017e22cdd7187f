"""A training step on CUDA: nothing mixes devices, nothing waits for the device, no more kernels than there were.

The device is pretended and computes nothing (`benchmarks.cuda_stand_in`): what a GPU makes of it is not said here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
NO_COMPILER = shutil.which("g++") is None and os.environ.get("CI") != "true"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NO_COMPILER, reason="g++ builds the pretended device"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch has CUDA itself"),
]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("size", "dtype", "at_most"),
    [
        ("gpt2-base", "bfloat16", 1944),
        pytest.param("gpt2-base", "float32", 1471, marks=pytest.mark.long),
        pytest.param("smollm2-135m", "bfloat16", 5952, marks=pytest.mark.long),
    ],
)
def test_a_step_waits_for_nothing_and_launches_no_more_than_it_did(size: str, dtype: str, at_most: int) -> None:
    done = run("-m", "benchmarks.cuda_kernels", "--size", size, "--dtype", dtype)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["by_wait"] == {}
    assert at_most / 2 < counted["kernels"] <= at_most


CONTROL = """
import json
from benchmarks.cuda_stand_in.library import load
load()
import torch
from benchmarks.cuda_stand_in.counting import counted
with counted() as counter:
    ones = torch.ones(2, 3, device="cuda")
    (ones @ ones.T).sum().item()
    ones.cpu()
    print(json.dumps([counter.kernels, counter.waits]))
    ones + torch.ones(3)
"""


def test_what_waits_and_what_mixes_devices_is_found() -> None:
    done = run("-c", CONTROL)
    waits = {"_local_scalar_dense": 1, "copy to the host": 1}
    assert json.loads(done.stdout) == [{"ones": 1, "mm": 1, "sum": 1}, waits]
    assert done.returncode == 1
    assert "on the same device, but found at least two devices, cuda:0 and cpu" in done.stderr
