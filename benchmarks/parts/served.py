"""A real TensorBoard server, started as users start it, and its HTTP answers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import psutil

from deepmlf.data.task import KNOWN
from deepmlf.places import Place
from deepmlf.training.reports import FIDELITY, EpochReport
from deepmlf.tune.experiment.manifest import read_manifest
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.space.base import Base
from deepmlf.tune.space.bound import BoundSpace
from deepmlf.tune.space.columns import write_columns
from deepmlf.tune.space.load import load_space

ROOT = Path(__file__).resolve().parents[2]
ANY_STATUS = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def columns(experiment: Path) -> None:
    """Write what a search writes beside its trials, for an experiment that was made without one."""
    manifest = read_manifest(Place.of(experiment))
    settings = manifest.settings
    space = BoundSpace(load_space(settings.space), Base.of(manifest.base), {"lm": manifest.language_model})
    write_columns(experiment / "trials", space, make_objectives(settings.objectives), KNOWN["mosi"])


def one_more(report: EpochReport, **measured: float) -> EpochReport:
    """The fusion epoch that comes after one, the same but for what is said."""
    epochs = {"epoch": report.epoch + 1, FIDELITY: report.metrics[FIDELITY] + 1}
    return EpochReport(dict(report.metrics) | epochs | measured)


class Served:
    """``deepmlf tensorboard`` in a process of its own."""

    def __init__(self, place: str | Path, *options: str) -> None:
        command = [sys.executable, "-m", "deepmlf", "tensorboard", str(place), "--port", "0", "--json", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]

    def get(self, plugin: str, route: str, body: dict[str, Any] | None = None, **query: str) -> Any:
        """The JSON that a plugin answers with."""
        data = None if body is None else json.dumps(body).encode()
        address = f"{self.url}data/plugin/{plugin}/{route}" + (f"?{urlencode(query)}" if query else "")
        with urlopen(Request(address, data, {"Content-Type": "application/json"}), timeout=60) as answer:
            return json.load(answer)

    def experiment(self) -> dict[str, Any]:
        """What the HParams tab knows of the experiment."""
        return self.get("hparams", "experiment", {"experimentName": "", "includeMetrics": True})

    def session_groups(self, columns: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The rows of the HParams tab by trial, asked for as the page does."""
        infos = columns["metricInfos"]
        request = {
            "experimentName": "", "allowedStatuses": ANY_STATUS, "startIndex": 0, "sliceSize": 1000,
            "aggregationType": "AGGREGATION_AVG",
            "colParams": [{"hparam": info["name"]} for info in columns["hparamInfos"]]
            + [{"metric": info["name"]} for info in infos],
        }  # fmt: skip
        return {group["name"]: group for group in self.get("hparams", "session_groups", request)["sessionGroups"]}

    def steps(self, trial: str, tag: str) -> list[tuple[int, float]]:
        """Steps and values of a scalar; empty as long as TensorBoard has not read any."""
        if tag not in self.get("scalars", "tags").get(trial, {}):
            return []
        return [(step, value) for _, step, value in self.get("scalars", "scalars", run=trial, tag=tag)]

    def cpu_seconds(self) -> float:
        """What it has taken of processors so far, its data server included."""
        server = psutil.Process(self.process.pid)
        return sum(sum(process.cpu_times()[:2]) for process in (server, *server.children(recursive=True)))

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait, as TensorBoard reads in the background."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "TensorBoard did not show it"
            time.sleep(0.3)

    def stop(self) -> int:
        """End it by Ctrl-C; its exit status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def served(place: str | Path, *options: str) -> Iterator[Served]:
    """A server for as long as it is needed."""
    server = Served(place, *options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
