"""A search sent to a cluster with `ray job submit` from a checkout, against the same search started directly."""

import contextlib
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from deepmlf.places import Place
from deepmlf.training.machine.speed import without_measurements
from deepmlf.tune.experiment.manifest import read_manifest
from tests.warm_starts import ON_PATH

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
SEARCH = [
    "--space", "demo", "--lm", "tiny-random", "--trials", "3", "--epochs", "2", "--seed", "5",
    "--set", "model.max_text_len=8", "--set", "model.av_frames=6", "--set", "curriculum.av_epochs=1",
]  # fmt: skip


@dataclass
class Head:
    """A node with a job server that wants a token."""

    dashboard: int
    address: str
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def head() -> Iterator[Head]:
    """`ray start --head` on loopback, on ports and in a folder of its own."""
    try:
        importlib.import_module("ray.dashboard.optional_deps")
    except ImportError as error:
        reason = f"`ray job submit` needs ray[default], which is in [cluster] ({error})"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets must be short
    token = folder / "token"
    token.write_text("1" * 64)
    token.chmod(0o600)
    port, dashboard, agent, client = free_ports(4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PYTHONPATH": str(ON_PATH),  # nothing of the checkout: what runs is what was submitted
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_worker_niceness": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    options = {
        "node-ip-address": "127.0.0.1", "port": port, "num-cpus": 2, "temp-dir": folder / "ray",
        "dashboard-host": "127.0.0.1", "dashboard-port": dashboard, "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
    }  # fmt: skip
    command = [*RAY, "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "log").open("w") as log:
        node = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_for_port(dashboard, folder / "log")
        yield Head(dashboard, f"127.0.0.1:{port}", environment)
    finally:
        for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_port(port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return


def submit(head: Head, entrypoint: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    excludes = '{"excludes": ["tests", "benchmarks"]}'
    options = ["--address", f"http://127.0.0.1:{head.dashboard}", "--working-dir", ".", "--runtime-env-json", excludes]
    return subprocess.run(
        [*RAY, "job", "submit", *options, "--", *entrypoint],
        cwd=ROOT,
        env=head.environment | environment,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.cluster
def test_a_submitted_search_ends_as_one_started_directly(head: Head, small_data: Path, tmp_path: Path) -> None:
    refused = submit(head, ["true"], RAY_AUTH_TOKEN="2" * 64)
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()
    where = ["--storage", str(tmp_path), "--address", "auto"]
    done = submit(head, ["python", "-m", "deepmlf", "search", str(small_data), *SEARCH, *where, "--name", "sent"])
    assert done.returncode == 0, done.stdout + done.stderr
    where[-1] = head.address
    directly = [sys.executable, "-m", "deepmlf", "search", str(small_data), *SEARCH, *where, "--name", "here"]
    subprocess.run(directly, cwd=ROOT, env=head.environment, check=True, capture_output=True, timeout=400)
    sent, here = (pq.read_table(tmp_path / name / "results.parquet") for name in ("sent", "here"))
    same = [name for name in without_measurements(dict.fromkeys(here.column_names)) if not name.startswith("seconds")]
    assert {"trial", "state", "fusion_epoch", "valid/MAE", "model.num_fusion_tokens", "train/loss"} <= set(same)
    assert sent.select(same).equals(here.select(same))
    assert set(here["state"].to_pylist()) <= {"COMPLETE", "PRUNED"}
    # The upload brings no repository along: the code that ran was the submitted one.
    assert read_manifest(Place.of(tmp_path / "sent")).git_commit is None
