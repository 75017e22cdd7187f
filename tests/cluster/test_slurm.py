"""`sbatch cluster/slurm.sbatch` on a real Slurm of two nodes: queued again, out of time, the same as a local search."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.machines import ROOT, Machine, machines
from tests.cluster.same_search import assert_same_search, install, shrink

CONFIG = """
ClusterName=pretended
SlurmctldHost=login
SlurmUser=root
AuthType=auth/munge
# A job that is queued again waits for as long as its old credential holds.
AuthInfo=socket=/shared/slurm/munge.socket,cred_expire=5
StateSaveLocation=/shared/slurm/state
SlurmdSpoolDir=/tmp/spool
SlurmctldPidFile=/tmp/slurmctld.pid
SlurmdPidFile=/tmp/slurmd.pid
# No control groups: these nodes are namespaces of one machine.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName=n[1-2] CPUs=32 RealMemory=1000 Gres=gpu:4
PartitionName=gpu Nodes=n[1-2] Default=YES
"""
NODES = {"login": "192.0.2.9", "n1": "192.0.2.10", "n2": "192.0.2.11"}


class Slurm:
    """A running Slurm: its login node, and the nodes' daemons."""

    def __init__(self, login: Machine) -> None:
        self.login = login
        self.shared = login.own.parent / "shared"

    def submit(self, *options: str) -> str:
        # With one CPU of a node a Ray node has one, and thus one trial.
        out = self.login.run("sbatch", "--chdir=/shared", "--cpus-per-task=1", *options, "/shared/cluster/slurm.sbatch")
        return re.fullmatch(r"Submitted batch job (\d+)\n", out)[1]  # type: ignore[index]

    def state(self, job: str) -> str:
        return re.search(r"JobState=(\w+)", self.login.run("scontrol", "show", "job", job))[1]  # type: ignore[index]

    def log(self, job: str) -> str:
        path = self.shared / f"deepmlf-{job}.log"
        return path.read_text() if path.exists() else "no log"

    def wait_for(self, job: str, *states: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, f"{state}\n{self.log(job)}"
            assert state in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"), f"{state}\n{self.log(job)}"
            time.sleep(0.5)

    def wait_for_epochs(self, job: str, experiment: Path, count: int, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while sum(len(path.read_text().splitlines()) for path in experiment.glob("trials/*/metrics.jsonl")) < count:
            assert time.monotonic() < deadline, self.log(job)
            assert self.state(job) in ("PENDING", "RUNNING"), self.log(job)
            time.sleep(0.2)


@pytest.fixture
def slurm(small_data: Path) -> Iterator[Slurm]:
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        reason = f"{', '.join(missing)}: not installed (Debian: apt-get install slurm-wlm munge)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(machines(NODES, home="/shared/home"))
        conf = "/shared/slurm/slurm.conf"
        login = replace(made["login"], variables={"SLURM_CONF": conf})
        shared = login.own.parent / "shared"
        install(shared, small_data)
        (shared / "slurm" / "state").mkdir(parents=True)
        (shared / "slurm" / "munge.key").write_bytes(os.urandom(128))
        (shared / "slurm" / "munge.key").chmod(0o600)
        (shared / "slurm" / "slurm.conf").write_text(CONFIG)
        (shared / "slurm" / "gres.conf").write_text("Name=gpu File=/tmp/gpu[0-3]\n")
        (shared / "slurm" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (shared / "cluster").mkdir()
        script = (ROOT / "cluster" / "slurm.sbatch").read_text()
        marked = "lm=/shared/lms/smollm2-135m "
        assert re.search(f"^{marked}.*# <--", script, re.M)
        (shared / "cluster" / "slurm.sbatch").write_text(script.replace(marked, "lm=tiny-random "))
        munge = [f"--{name}=/shared/slurm/munge.{end}" for name, end in
                 (("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"),
                  ("seed-file", "seed"))]  # fmt: skip
        daemons = [(login, ["munged", "--foreground", "--force", *munge]), (login, ["slurmctld", "-D", "-f", conf])]
        daemons += [(made[name], ["slurmd", "-D", "-f", conf, "-N", name]) for name in ("n1", "n2")]
        for name in ("n1", "n2"):
            made[name].run("touch", *(f"/tmp/gpu{number}" for number in range(4)))
            made[name].run("mkdir", "/tmp/spool")
        for number, (machine, words) in enumerate(daemons):
            log = stack.enter_context((shared / "slurm" / f"daemon{number}.log").open("w"))
            daemon = machine.start(words, stdout=log, stderr=log)
            stack.callback(daemon.wait, 30)
            stack.callback(daemon.kill)
            time.sleep(0.5)
        _until_idle(login, shared / "slurm")
        yield Slurm(login)


def _until_idle(login: Machine, logs: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        shown = login.run("sh", "-c", "sinfo -h -o '%D %t' || true")
        if shown == "2 idle\n":
            return
        assert time.monotonic() < deadline, shown + "".join(path.read_text() for path in sorted(logs.glob("*.log")))
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_job_that_is_queued_again_ends_as_a_local_search(slurm: Slurm, small_data: Path, tmp_path: Path) -> None:
    job = slurm.submit()
    experiment = slurm.shared / "runs" / "first"
    slurm.wait_for_epochs(job, experiment, 3)
    slurm.login.run("scontrol", "requeue", job)
    slurm.wait_for(job, "COMPLETED")
    assert "Restarts=1" in slurm.login.run("scontrol", "show", "job", job)
    log = slurm.log(job)
    assert "Waiting for nodes to start... 3/2" not in log
    assert_same_search(experiment, small_data, tmp_path)
    assert list(experiment.glob("trials/*/events.out.tfevents.*"))
    token = (slurm.shared / "home" / ".ray" / "auth_token").read_text().strip()
    assert token not in log


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_job_ends_before_its_time_limit_and_the_next_one_goes_on(
    slurm: Slurm, small_data: Path, tmp_path: Path
) -> None:
    shrink(slurm.shared, **{"--time-budget": "10s"})
    first = slurm.submit("--time=30")
    slurm.wait_for(first, "COMPLETED")
    assert "the time budget is spent; go on with `deepmlf resume /shared/runs/first`" in slurm.log(first)
    shrink(slurm.shared)
    second = slurm.submit()
    slurm.wait_for(second, "COMPLETED")
    assert_same_search(slurm.shared / "runs" / "first", small_data, tmp_path)
