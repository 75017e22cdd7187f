"""What a search needs of a machine, looked at before one is begun: each finding with what to do about it."""

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from deepmlf.errors import DeepMLFError, LanguageModelError, first_line
from deepmlf.files import why_unwritable
from deepmlf.model import lm_store
from deepmlf.model.lm.check import check_folder
from deepmlf.places import Place, home
from deepmlf.training.machine.device import fault_of, unused_gpu
from deepmlf.tune.cluster.connect import connected, nodes_gpus, temporary_folder
from deepmlf.tune.experiment.remote import check_writable

Status = Literal["ok", "warning", "problem"]

ENGINES = ("torch", "transformers", "ray", "optuna", "pyarrow")
PORTS = {6006: "deepmlf tensorboard", 6007: "deepmlf watch"}
_CLOCK_SECONDS = 5.0  # that a file server's clock may differ before logs and leases are hard to read
_RELEASED = 1767225600.0  # 2026-01-01: no clock that is right is before it


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What it is, e.g. ``ray``."""
    status: Status
    """``problem``: something will not work; ``warning``: something may not, or goes slower."""
    found: str
    remedy: str | None = None
    """What to do; None where nothing is to be done."""

    def __str__(self) -> str:
        return f"{self.status:<8} {self.check}: {self.found}" + (f"; {self.remedy}" if self.remedy else "")

    def to_dict(self) -> dict[str, Any]:
        """What scripts are told."""
        return asdict(self)


def examine(storage: str, *, min_disk_gb: float = 5.0, address: str | None = None) -> Iterator[Finding]:
    """Look at all that a search needs, one finding after the other; nothing stays but what Ray leaves in its logs.

    Args:
        storage: Folder or URI of experiments.
        min_disk_gb: Free gigabytes that a disk must have.
        address: Of a running Ray cluster; None starts one of this machine's own, as a search does.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        _versions,
        _devices,
        lambda: _folders(storage),
        lambda: _disks(storage, min_disk_gb),
        _language_models,
        _hub_cache,
        lambda: _clock(storage),
        _ports,
        lambda: _ray(address),
    ]
    for check in checks:
        yield from check()


def _versions() -> Iterator[Finding]:
    try:
        needs = [Requirement(line) for line in importlib.metadata.requires("deepmlf") or []]
        python = SpecifierSet(importlib.metadata.metadata("deepmlf")["Requires-Python"] or "")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("deepmlf", "warning", "is not installed, so what it needs is not known", "pip install deepmlf")
        return
    yield judged_version("python", platform.python_version(), python)
    bounds = {one.name: one.specifier for one in needs if one.marker is None}
    for name in ENGINES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "problem", "is not installed", f"pip install '{name}{bounds[name]}'")
            continue
        yield judged_version(name, version, bounds[name])


def judged_version(name: str, version: str, bounds: SpecifierSet) -> Finding:
    """Whether a version is one that the project allows.

    Args:
        name: On PyPI, or ``python``.
        version: What is installed.
        bounds: What is allowed.
    """
    if bounds.contains(version, prereleases=True):
        return Finding(name, "ok", f"{version} (needs {bounds})")
    remedy = "make an environment with such a Python" if name == "python" else f"pip install '{name}{bounds}'"
    return Finding(name, "problem", f"{version}, but {bounds} is needed", remedy)


def _devices() -> Iterator[Finding]:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("CPUs", "ok", str(cpus))
    if (fault := unused_gpu("auto")) is not None:
        remedy = "install a torch that fits the driver (pytorch.org/get-started); until then trials train on CPUs"
        yield Finding("GPUs", "warning", f"there is one that torch cannot use ({fault})", remedy)
    elif fault_of("cuda") is not None:
        yield Finding("GPUs", "ok", "none; trials train on CPUs")
    else:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("GPUs", "ok", ", ".join(names))


def _folders(storage: str) -> Iterator[Finding]:
    place = Place.of(storage)
    try:
        check_writable(place, "")
        yield Finding("storage", "ok", f"{place} can be written")
    except DeepMLFError as error:
        yield Finding("storage", "problem", str(error), "choose another place by --storage")
    fault = why_unwritable(home())
    if fault is None:
        yield Finding("home", "ok", f"{home()} can be written")
    else:
        found = f"{home()}: cannot be written ({fault})"
        yield Finding("home", "problem", found, "set DEEPMLF_HOME to a folder that can be written")


def _disks(storage: str, min_disk_gb: float) -> Iterator[Finding]:
    place = Place.of(storage)
    folders = {"disk of the home": home(), "disk of temporary files": Path(tempfile.gettempdir())}
    if not place.is_remote:
        folders = {"disk of storage": place.folder} | folders
    for name, folder in folders.items():
        free = shutil.disk_usage(_existing(folder)).free / 1e9
        found = f"{free:.1f} GB free for {folder}"
        if free >= min_disk_gb:
            yield Finding(name, "ok", found)
        else:
            remedy = "free some, or choose another disk by --storage, DEEPMLF_HOME or TMPDIR"
            yield Finding(name, "problem", f"{found}, less than {min_disk_gb:g} GB", remedy)


def _language_models() -> Iterator[Finding]:
    names = []
    for folder in lm_store.stored_folders():
        try:
            check_folder(folder, tokenizer=True)
            names.append(folder.name)
        except LanguageModelError as error:
            yield Finding("language model", "problem", str(error), f"remove {folder} and get it again")
    if names:
        yield Finding("language models", "ok", ", ".join(names))
    else:
        remedy = f"`deepmlf lm get {lm_store.SMOLLM2}` fetches one, as a search does where there is a network"
        yield Finding("language models", "warning", f"none in {home()}", remedy)


def _hub_cache() -> Iterator[Finding]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    offline = ", offline by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else ""
    if (fault := why_unwritable(folder)) is not None:
        found = f"{folder}: cannot be written ({fault}){offline}"
        yield Finding("Hugging Face cache", "warning", found, "set HF_HOME to a folder that can be written")
        return
    count = len(list(folder.glob("models--*")))
    yield Finding("Hugging Face cache", "ok", f"{folder}, {count} models{offline}")


def _clock(storage: str) -> Iterator[Finding]:
    now, place = time.time(), Place.of(storage)
    if now < _RELEASED:
        shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
        yield Finding("clock", "problem", f"it is {shown} UTC by this machine", "set its clock: stores refuse requests")
        return
    if place.is_remote:  # which refuses whoever is minutes off, as its check of writing has shown
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))
        return
    try:
        with tempfile.NamedTemporaryFile(prefix=".clock.", dir=_existing(place.folder)) as file:
            before = time.time()
            os.utime(file.name)
            ahead = os.stat(file.name).st_mtime - before
    except OSError:
        return  # that it cannot be written is told above
    yield judged_clock(ahead)


def judged_clock(ahead: float) -> Finding:
    """What it means that a file server's clock is so many seconds ahead of this machine's."""
    if abs(ahead) < _CLOCK_SECONDS:
        return Finding("clock", "ok", "agrees with that of storage")
    found = f"that of storage is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
    return Finding("clock", "warning", found, "let both machines keep time by NTP")


def _ports() -> Iterator[Finding]:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        found = f"nothing can listen on 127.0.0.1 ({error.strerror})"
        yield Finding("ports", "problem", found, "allow this user to listen on loopback, which Ray needs")
        return
    taken = [port for port in PORTS if not _is_free(port)]
    for port in taken:
        yield Finding("ports", "warning", f"{port} is in use", f"give `{PORTS[port]}` another one by --port")
    if not taken:
        yield Finding("ports", "ok", f"{' and '.join(map(str, PORTS))} are free")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _ray(address: str | None) -> Iterator[Finding]:
    started = time.monotonic()
    try:
        folder = temporary_folder() or Path(tempfile.gettempdir())
        with connected(address):
            import ray

            total, gpus = ray.cluster_resources(), sum(nodes_gpus())
            seconds = time.monotonic() - started
    except DeepMLFError as error:
        yield Finding("Ray", "problem", str(error))
        return
    except Exception as error:  # whatever keeps Ray from starting, its last word is what helps
        remedy = (
            f"read the logs in {folder / 'ray' / 'session_latest' / 'logs'}; `ray stop` ends what is left of another"
        )
        yield Finding("Ray", "problem", f"does not start ({first_line(error)})", remedy)
        return
    found = f"starts within {seconds:.0f} s, {total.get('CPU', 0):g} CPUs and {gpus:g} GPUs"
    yield Finding("Ray", "ok", found)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
