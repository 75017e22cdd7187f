"""The README's commands for own machines, over a real ssh: `ray up`, `ray job submit`, a machine lost, `ray down`."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from deepmlf.tune.experiment.stored import open_experiment
from tests.cluster.machines import ROOT, USER, Machine, machines
from tests.cluster.same_search import assert_same_search, install

FILE = ROOT / "cluster" / "ray-up-onprem.yaml"
SSHD = """
HostKey /tmp/home/host_key
AuthorizedKeysFile /tmp/home/.ssh/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
"""
SIZE = {"--cpus-per-trial": "2", "--concurrent": "3"}
"""A trial at a time on each machine of two CPUs."""


def readme_commands() -> list[str]:
    """The command lines of the README's block for own machines."""
    _, section = (ROOT / "cluster" / "README.md").read_text().split("## Your own machines\n")
    block = re.search(r"^```\n(.*?)^```$", section, re.M | re.S)
    assert block
    return block[1].replace("\\\n", "").splitlines()


@pytest.fixture
def laptop_and_machines(small_data: Path) -> Iterator[tuple[Machine, list[Machine]]]:
    """A laptop that can reach the machines which the file names by ssh, with key and token as the README has them."""
    missing = [name for name in ("/usr/sbin/sshd", "ssh", "rsync") if shutil.which(name) is None]
    if missing:
        reason = f"{', '.join(missing)}: not installed (Debian: apt-get install openssh-server rsync)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    provider = yaml.safe_load(FILE.read_text())["provider"]
    addresses = {"laptop": "192.0.2.9", "head": provider["head_ip"]}
    addresses |= {f"worker{number}": address for number, address in enumerate(provider["worker_ips"], 1)}
    assert yaml.safe_load(FILE.read_text())["auth"]["ssh_user"] == USER
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(machines(addresses, home="/tmp/home"))
        laptop, *others = made.values()
        shared = laptop.own.parent / "shared"
        install(shared, small_data, **SIZE)
        shutil.copytree(ROOT / "cluster", laptop.own / "tmp" / "home" / "cluster")
        laptop.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/home/.ssh/id_ed25519")
        laptop.run("sh", "-c", "umask 077; /shared/venv/bin/ray get-auth-token --generate > /dev/null")
        key = (laptop.own / "tmp" / "home" / ".ssh" / "id_ed25519.pub").read_text()
        for machine in others:
            home = machine.own / "tmp" / "home"
            (home / ".ssh").mkdir()
            (home / ".ssh" / "authorized_keys").write_text(key)
            (home / "sshd_config").write_text(SSHD)
            machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/home/host_key")
            machine.run("mkdir", "-p", "/run/sshd")
            log = stack.enter_context((home / "sshd.log").open("w"))
            sshd = machine.start(["/usr/sbin/sshd", "-D", "-e", "-f", "/tmp/home/sshd_config"], stdout=log, stderr=log)
            stack.callback(sshd.wait, 30)
            stack.callback(sshd.kill)
        yield laptop, others


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_search_on_own_machines_outlives_one_of_them(
    laptop_and_machines: tuple[Machine, list[Machine]], small_data: Path, tmp_path: Path
) -> None:
    laptop, (head, *workers) = laptop_and_machines
    up, submit, *_ = readme_commands()
    before = "cd; export RAY_AUTH_MODE=token PATH=/shared/venv/bin:$PATH; "
    print(laptop.run("bash", "-c", f"{before}{up.replace('-onprem.yaml &', '-onprem.yaml > dashboard.log 2>&1 &')}"))
    experiment = laptop.own.parent / "shared" / "runs" / "first"
    job = laptop.start(["bash", "-c", before + submit], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lost = _that_trains(job, experiment, workers)
        lost.unplug()
        out, _ = job.communicate(timeout=300)
    finally:
        job.kill()
    assert job.returncode == 0, out
    assert "succeeded" in out
    told = [trial.user_attrs.get("restarts") for trial in open_experiment(experiment).study.get_trials()]
    assert [reasons for reasons in told if reasons], out  # the trial that was there went on elsewhere
    assert_same_search(experiment, small_data, tmp_path, **SIZE)
    token = (laptop.own / "tmp" / "home" / ".ray" / "auth_token").read_text().strip()
    assert token not in out
    ending = re.findall(
        r"`(ray [a-z -]+cluster/ray-up-onprem\.yaml[^`]*)`", (ROOT / "cluster" / "README.md").read_text()
    )
    assert len(ending) == 2
    for command in ending:
        laptop.run("bash", "-c", before + command)
    left = [head, *(worker for worker in workers if worker is not lost)]
    deadline = time.monotonic() + 180
    while any("raylet" in name or "gcs_server" in name for machine in left for name in _programs(machine)):
        assert time.monotonic() < deadline, [_programs(machine) for machine in left]
        time.sleep(1)


def _that_trains(job: "subprocess.Popen[str]", experiment: Path, workers: list[Machine]) -> Machine:
    """A worker with a trial that has got somewhere."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and job.poll() is None:
        logs = list(experiment.glob("trials/*/metrics.jsonl"))
        for worker in workers:
            if logs and any(re.match(r"ray::.*\.train", name) for name in _programs(worker)):
                return worker
        time.sleep(0.3)
    job.kill()
    pytest.fail(f"no worker trains\n{job.communicate()[0]}")


def _programs(machine: Machine) -> list[str]:
    """What runs on a machine."""
    found = []
    for process in machine.init.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(process.cmdline()))
    return found
