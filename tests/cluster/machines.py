"""Pretended machines on this one: each has processes, a network, a host name, a home and a disk of its own.

They are Linux namespaces, on a network that only they are on, with the addresses that the files of cluster/ name. What
they share with each other is the folder /shared, and with this machine all that is installed on it.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path("/shared")
USER = "researcher"
"""The only one there, whom the files of cluster/ name; may do all that root may."""
_INIT = """
set -e
hostname {name}
ip link set lo up
mount --bind {own}/hosts /etc/hosts
mount --bind {own}/passwd /etc/passwd
mount --bind {shared} /shared
mount --bind {own}/tmp /tmp
mount -t tmpfs tmpfs /run
# Whoever outlives its parent here is its child, and is to leave no zombie: `ray stop` would wait for that.
exec env --ignore-signal=CHLD sleep infinity
"""


@dataclass(frozen=True)
class Machine:
    """A machine, which runs until it is unplugged."""

    name: str
    address: str
    init: psutil.Process
    """Its first process: with it go all others."""
    own: Path
    """Its /tmp is the folder ``tmp`` in here."""
    home: str
    """Of its user."""
    variables: dict[str, str] = field(default_factory=dict)
    """Set for every command."""

    def start(self, words: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a command there, in a session of its own: daemons signal their process group.

        Args:
            words: The command's.
            **options: Of ``subprocess.Popen``.
        """
        clean = {"HOME": self.home, "USER": USER, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        clean |= self.variables
        enter = ["nsenter", "-t", str(self.init.pid), "-m", "-u", "-n", "-p", "--wd=/"]
        command = [*enter, "env", "-i", *(f"{name}={value}" for name, value in clean.items()), *map(str, words)]
        return subprocess.Popen(command, start_new_session=True, **options)

    def run(self, *words: str | Path, timeout: float = 120) -> str:
        """Run a command there to its end; what it prints, errors included."""
        process = self.start(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            out, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, f"{self.name}: {' '.join(map(str, words))}\n{out}"
        return str(out)

    def unplug(self) -> None:
        """Take it off the network first, so that nobody hears of the end of what runs on it."""
        with contextlib.suppress(psutil.NoSuchProcess, subprocess.CalledProcessError):
            _ip(self, "link set eth0 down")
        with contextlib.suppress(psutil.NoSuchProcess):
            self.init.kill()


@contextlib.contextmanager
def machines(addresses: dict[str, str], home: str) -> Iterator[dict[str, Machine]]:
    """Machines by name, of which the first one is on while any is. Skips the test where they cannot be made.

    Args:
        addresses: Of one network, by name.
        home: Of their user: in /tmp for one on each machine, in /shared for one on all.
    """
    # To remove the folder /shared would take what is mounted there from the machines of another test.
    with FileLock(Path(tempfile.gettempdir()) / "pretended-machines.lock"), _machines(addresses, home) as found:
        yield found


@contextlib.contextmanager
def _machines(addresses: dict[str, str], home: str) -> Iterator[dict[str, Machine]]:
    made_shared = not SHARED.exists()
    folder = Path(tempfile.mkdtemp(prefix="machines", dir="/tmp"))  # paths of sockets must be short
    starters: list[subprocess.Popen[bytes]] = []
    found: dict[str, Machine] = {}
    try:
        try:
            SHARED.mkdir(exist_ok=True)
            (folder / "shared").mkdir()
            for name, address in addresses.items():
                own = folder / name
                (own / "tmp").mkdir(parents=True)
                (own / "passwd").write_text(f"{USER}:x:0:0::{home}:/bin/bash\n" + Path("/etc/passwd").read_text())
                hosts = "".join(f"{where} {who}\n" for who, where in addresses.items())
                (own / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
                starter, init = _start(_INIT.format(name=name, own=own, shared=folder / "shared"))
                starters.append(starter)
                found[name] = Machine(name, address, init, own, home)
                found[name].run("mkdir", "-p", home)
            _connect(list(found.values()))
        except (OSError, subprocess.CalledProcessError, psutil.Error) as error:
            pytest.skip(f"machines cannot be pretended here (needs root, iproute2 and namespaces): {error}")
        yield found
    finally:
        for machine in found.values():
            machine.unplug()
        for starter in starters:
            starter.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
        if made_shared:
            with contextlib.suppress(OSError):
                SHARED.rmdir()


def _start(script: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    own = ["--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--uts", "--net", "--propagation=private"]
    starter = subprocess.Popen(["unshare", *own, "bash", "-c", script])
    for _ in range(200):
        children = psutil.Process(starter.pid).children()
        if children and children[0].cmdline()[:1] == ["sleep"]:
            return starter, children[0]
        with contextlib.suppress(subprocess.TimeoutExpired):
            starter.wait(0.05)
            break
    raise OSError("unshare failed")


def _connect(all_of_them: list[Machine]) -> None:
    """One network, whose switch is in the first machine."""
    first = all_of_them[0]
    _ip(first, "link add switch type bridge")
    _ip(first, f"addr add {first.address}/24 dev switch")
    _ip(first, "link set switch up")
    for number, machine in enumerate(all_of_them[1:]):
        _ip(first, f"link add port{number} type veth peer name eth0 netns {machine.init.pid}")
        _ip(first, f"link set port{number} master switch")
        _ip(first, f"link set port{number} up")
        _ip(machine, f"addr add {machine.address}/24 dev eth0")
        _ip(machine, "link set eth0 up")


def _ip(machine: Machine, command: str) -> None:
    enter = ["nsenter", "-t", str(machine.init.pid), "-n", "ip"]
    subprocess.run([*enter, *command.split()], check=True, capture_output=True)
