"""What faults of processes, nodes, drivers, whole clusters and storage cost a search; one JSON line. Linux only.

A search of short mock trials runs on a Ray cluster of several raylets on this machine, once in peace and once under a
seeded schedule of faults. Workers note every epoch they train, so that what was trained twice is counted.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import chain
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ray.cluster_utils import Cluster

from benchmarks.parts.endings import endings_told
from benchmarks.parts.s3 import S3
from benchmarks.trial_overhead import importable_by_workers
from deepmlf.analysis.results import results_of
from deepmlf.data.synthetic import make_synthetic
from deepmlf.places import Place, RemoteFolder
from deepmlf.tune.driver.ray_records import ended_in_ray
from deepmlf.tune.experiment import parts
from deepmlf.tune.experiment.lease import lease_at
from deepmlf.tune.experiment.remote import exists
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings

EPOCHS = 4
EPOCH_SECONDS = 0.3
NODES = 2
CPUS_PER_NODE = 1
TRIAL_TIMEOUT = 45.0
STORAGE_SWITCHED_SECONDS, DRIVER_STOPPED_SECONDS = 20, 120
LOG_VARIABLE = "CLUSTER_FAULTS_LOG"
HOME_VARIABLE = "DEEPMLF_HOME"


def mock_train(
    config: Any, report: Callable[..., None], *, out_dir: Path, resume_from: Path | None, **options: Any
) -> None:
    """Epochs that only sleep, each with a checkpoint; the trial's log has `epoch pid` as one begins, 0 at the end."""
    log = Path(os.environ[LOG_VARIABLE]) / out_dir.name[:4]
    floor = abs(config.model.num_fusion_tokens - 8) / 10

    def note(epoch: int) -> None:
        with log.open("a") as file:
            file.write(f"{epoch} {os.getpid()}\n")

    def tell(epoch: int, checkpoint: Path) -> None:
        metrics = {"stage": "fusion", "epoch": epoch, "fusion_epoch": epoch, "valid/MAE": floor + 1 / epoch}
        report(metrics | {"train/loss": 1 / epoch} | ({"finished": "full"} if epoch == EPOCHS else {}), checkpoint)

    start = int(json.loads((resume_from / "state.json").read_text())["epoch"]) if resume_from else 0
    if resume_from:
        tell(start, resume_from)
    for epoch in range(start + 1, EPOCHS + 1):
        note(epoch)
        time.sleep(EPOCH_SECONDS)
        folder = out_dir / "checkpoints" / f"epoch_{epoch:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".state.json").write_text(json.dumps({"epoch": epoch}))
        (folder / ".state.json").rename(folder / "state.json")
        tell(epoch, folder)
    note(0)


def drive(settings: SearchSettings, place: str, address: str, log: Path, home: Path) -> None:
    """One driver's process: begin the search, or go on with it."""
    os.environ[HOME_VARIABLE] = str(home)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), sys.stderr.fileno())
    parts.PART_BYTES = 1 << 14  # so that the journal has as many parts in a bucket as a long search's
    begun = exists(Place.of(place))
    summary = resume_search(place, address=address) if begun else run_search(settings)
    if summary.interrupted or summary.stop_reason:
        raise RuntimeError(f"the search ended early: {summary}")


class Rig:
    """A cluster, a search on it, and the faults that can be done to them.

    Args:
        folder: Of everything: data, experiments, logs.
        settings: The search; its address is left to this class.
        s3: The storage's server, if the search is on S3.
        seed: Of who is hit.
    """

    def __init__(self, folder: Path, settings: SearchSettings, s3: S3 | None, seed: int) -> None:
        self.folder, self.s3 = folder, s3
        self.log = folder / f"{settings.name}.epochs"
        self.log.mkdir()
        os.environ[LOG_VARIABLE] = str(self.log)
        storage = s3.uri() if s3 else str(folder)
        self.place = s3.uri(str(settings.name)) if s3 else str(folder / str(settings.name))
        self.settings = settings.model_copy(update={"storage": storage})
        self.home = Path(os.environ[HOME_VARIABLE])
        """Of the driver's machine."""
        self.generator = np.random.default_rng(seed)
        self.crashes = 0
        self._start_cluster()
        self._start_driver()

    def _start_cluster(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(NODES):
            self._add_node()

    def _add_node(self) -> None:
        self.cluster.add_node(num_cpus=CPUS_PER_NODE)

    def _lose_node(self) -> None:
        nodes = list(self.cluster.worker_nodes)
        self.cluster.remove_node(nodes[self.generator.integers(len(nodes))], allow_graceful=False)

    def _lose_cluster(self) -> None:
        for node in self.cluster.list_all_nodes()[::-1]:
            self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.shutdown()

    def _start_driver(self) -> None:
        address = self.cluster.address
        settings = self.settings.model_copy(update={"address": address})
        drivers = multiprocessing.get_context("forkserver")
        drivers.set_forkserver_preload(["deepmlf.tune.search"])
        log = self.folder / f"{settings.name}.log"
        self.driver: BaseProcess = drivers.Process(target=drive, args=(settings, self.place, address, log, self.home))
        self.driver.start()

    def _kill_driver(self) -> None:
        self.driver.kill()
        self.driver.join()

    def trained(self) -> Counter[tuple[str, int]]:
        """How often each trial's each epoch was begun."""
        noted = ((log.name, int(line.split()[0])) for log in self.log.iterdir() for line in log.open())
        return Counter((name, epoch) for name, epoch in noted if epoch)

    def _busy_worker(self) -> int:
        """Process id of a worker in the middle of a trial."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            last = [log.read_text().split()[-2:] for log in sorted(self.log.iterdir())]
            busy = [int(pid) for epoch, pid in last if int(epoch) and _is_running(int(pid))]
            if busy:
                return busy[self.generator.integers(len(busy))]
            self._keep_driving()
            time.sleep(0.05)
        raise TimeoutError("no worker is at work")

    def _keep_driving(self) -> bool:
        """Start a driver that has crashed again; whether the search still goes on."""
        if self.driver.exitcode not in (None, 0):
            self.crashes += 1
            self._start_driver()
        return self.driver.exitcode is None

    def wait(self, epochs: int | None = None) -> None:
        """Until so many epochs were trained, or until the search has ended."""
        deadline = time.monotonic() + 600
        while self._keep_driving():
            if epochs is not None and self.trained().total() >= epochs:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the search makes no progress; see {self.folder}")
            time.sleep(0.05)
        if epochs is not None:
            raise RuntimeError("the search ended before its last fault; give it more trials")

    def kill_worker(self) -> None:
        os.kill(self._busy_worker(), signal.SIGKILL)

    def stop_worker(self) -> None:
        os.kill(self._busy_worker(), signal.SIGSTOP)

    def lose_node(self) -> None:
        self._lose_node()
        self._add_node()

    def kill_driver(self) -> None:
        self._kill_driver()
        self._start_driver()

    def kill_driver_and_node(self) -> None:
        self.driver.kill()
        self._lose_node()
        self._kill_driver()
        self._start_driver()
        self._add_node()

    def lose_head(self) -> None:
        """The whole cluster goes, with the driver and, if there is other storage, its disk."""
        self._kill_driver()
        self._lose_cluster()
        if self.s3:
            for home in {self.home, Path(os.environ[HOME_VARIABLE])}:
                shutil.rmtree(home)
        self._start_cluster()
        self._start_driver()

    def fail_storage(self) -> None:
        assert self.s3 is not None
        self._switch_for_a_while(self.s3.fails)

    def slow_storage(self) -> None:
        assert self.s3 is not None
        self._switch_for_a_while(self.s3.dawdles)

    def _switch_for_a_while(self, switch: Path) -> None:
        switch.touch()
        time.sleep(STORAGE_SWITCHED_SECONDS)
        switch.unlink()

    def stop_driver(self) -> None:
        """It stands still. On S3 one on another machine takes over meanwhile, and then the first one wakes up."""
        stopped = psutil.Process(self.driver.pid)
        stopped.suspend()
        try:
            if self.s3:
                first = self._let_another_take_over()
            else:
                time.sleep(DRIVER_STOPPED_SECONDS)
        finally:
            stopped.resume()
        if self.s3:
            first.join(120)
            if not first.exitcode:
                raise RuntimeError(f"the driver that woke up did not leave (exit code {first.exitcode})")

    def _let_another_take_over(self) -> BaseProcess:
        first = self.driver
        self.home = self.home.with_name(f"{self.home.name}_")
        self._start_driver()
        deadline = time.monotonic() + DRIVER_STOPPED_SECONDS
        while (lease := lease_at(RemoteFolder(self.place))) is None or lease["pid"] != self.driver.pid:
            if time.monotonic() > deadline:
                raise TimeoutError("the lease was not taken")
            self._keep_driving()
            time.sleep(0.5)
        return first

    def terminate_all(self) -> None:
        """Maintenance: SIGTERM to the driver and to all of Ray, and ten seconds later the machines are gone."""
        processes = [
            info.process for node in self.cluster.list_all_nodes() for info in chain(*node.all_processes.values())
        ]
        workers = [child for one in processes for child in _children_of(one.pid)]
        self.driver.terminate()
        for process in (*workers, *processes):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.terminate()
        self.driver.join(10)
        self.lose_head()

    def close(self) -> None:
        self._kill_driver()
        self._lose_cluster()


FAULTS = {
    "worker killed": Rig.kill_worker,
    "worker stopped": Rig.stop_worker,
    "node lost": Rig.lose_node,
    "driver killed": Rig.kill_driver,
    "driver and node lost": Rig.kill_driver_and_node,
    "whole cluster lost": Rig.lose_head,
    "driver stopped": Rig.stop_driver,
    "all terminated": Rig.terminate_all,
    "storage failing": Rig.fail_storage,
    "storage slow": Rig.slow_storage,
}
ON_S3 = {"storage failing", "storage slow"}


def _children_of(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def outcome(rig: Rig, trials: int) -> dict[str, Any]:
    """What became of the search's trials, by its study, Ray's records and the table of results."""
    experiment = open_experiment(rig.place)
    study = experiment.study.get_trials()
    recorded, told = ended_in_ray(experiment.folder), endings_told(experiment.folder)
    table = results_of(experiment).to_pydict()
    rows = Counter(zip(table["trial"], table["fusion_epoch"], strict=True))
    complete = {trial.number for trial in study if trial.state.name == "COMPLETE"}
    trained = rig.trained()
    return {
        "asked": trials,
        "finished": len(complete),
        "lost": len(set(range(trials)) - (complete & set(recorded) & set(table["trial"]))),
        "doubled": sum(max(told[n], recorded[n]) > 1 or n >= trials for n in set(told) | set(recorded)),
        "epochs_asked": trials * EPOCHS,
        "epochs_in_results": len(rows),
        "epochs_redone": trained.total() - len(trained),
        "restarts": sum(len(trial.user_attrs.get("restarts", [])) for trial in study),
        "drivers_crashed": rig.crashes,
    }


def run(
    folder: Path, name: str, trials: int, faults: list[tuple[str, int]], s3: S3 | None, seed: int
) -> dict[str, Any]:
    """One search under faults, each a kind and the number of epochs trained before it."""
    settings = SearchSettings(
        data=str(folder / "data"),
        space="demo",
        lm="tiny-random",
        name=name,
        trials=trials,
        epochs=EPOCHS,
        concurrent=NODES * CPUS_PER_NODE,
        scheduler="none",
        trial_timeout=TRIAL_TIMEOUT,
        train_function="benchmarks.cluster_faults:mock_train",
        quiet=True,
    )
    began = time.perf_counter()
    rig = Rig(folder, settings, s3, seed)
    try:
        for kind, epochs in faults:
            rig.wait(epochs)
            time.sleep(rig.generator.uniform(0, EPOCH_SECONDS))
            FAULTS[kind](rig)
            print(f"{kind}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        rig.wait()
        seconds = round(time.perf_counter() - began, 1)
    finally:
        rig.close()
    return outcome(rig, trials) | {"seconds": seconds}


def schedule(trials: int, faults: int, seed: int, *, with_storage: bool) -> list[tuple[str, int]]:
    """As many faults, of all kinds alike, each with the number of epochs trained before it."""
    generator = np.random.default_rng(seed)
    kinds = [kind for kind in FAULTS if with_storage or kind not in ON_S3]
    chosen = generator.permutation([kinds[number % len(kinds)] for number in range(faults)])
    moments = np.sort(generator.integers(1, int(0.85 * trials * EPOCHS), faults))
    return list(zip(chosen.tolist(), moments.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="search on S3 (moto's), whose server fails too")
    parser.add_argument("--folder", type=Path, help="work here and keep it")
    options = parser.parse_args()
    importable_by_workers()
    os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's own, workers starve beside other work on the machine
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[HOME_VARIABLE] = str(folder / "home")
        make_synthetic(folder / "data", sizes=(49, 24, 24), force=True)
        os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        s3 = S3(folder) if options.s3 else None
        faults = schedule(options.trials, options.faults, options.seed, with_storage=options.s3)
        try:
            peace = run(folder, "peace", options.trials, [], s3, options.seed)
            war = run(folder, "faults", options.trials, faults, s3, options.seed)
        finally:
            if s3:
                s3.process.terminate()
    facts = {
        "benchmark": "cluster_faults",
        "storage": "s3" if options.s3 else "path",
        "faults": dict(Counter(kind for kind, _ in faults)),
        "seconds_in_peace": peace["seconds"],
        "seconds_per_fault": round((war["seconds"] - peace["seconds"]) / max(len(faults), 1), 1),
    }
    print(json.dumps(facts | war))


if __name__ == "__main__":
    main()
