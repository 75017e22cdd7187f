"""`deepmlf doctor`: what it says of a machine that is well, and of each thing that may be wrong."""

import importlib.metadata
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from deepmlf.tune import health
from deepmlf.tune.health import ENGINES, Finding, examine, judged_clock, judged_version
from tests.command import deepmlf
from tests.model.small_lm import make_folder

NOWHERE = ("--address", "127.0.0.1:1")
"""No Ray is started for a test of what else is wrong."""


def findings(storage: Path, **options: float) -> dict[str, Finding]:
    """What is found before Ray is asked."""
    found = {}
    for finding in examine(str(storage), **options, address="127.0.0.1:1"):
        if finding.check == "Ray":
            break
        found[finding.check] = finding
    return found


def test_a_finding_is_a_line() -> None:
    assert str(Finding("CPUs", "ok", "4")) == "ok       CPUs: 4"
    assert str(Finding("home", "problem", "is full", "free some")) == "problem  home: is full; free some"


def test_a_machine_that_is_well_has_no_problem(own_home: Path, tmp_path: Path) -> None:
    make_folder(own_home / "lms" / "small")
    found = findings(tmp_path / "runs", min_disk_gb=0.001)
    assert [str(finding) for finding in found.values() if finding.status == "problem"] == []
    assert found["language models"].found == "small"
    assert found["storage"].found == f"{tmp_path / 'runs'} can be written"
    assert found["clock"].found == "agrees with that of storage"
    for name in ("python", *ENGINES):
        assert found[name].status == "ok"
    assert importlib.metadata.version("ray") in found["ray"].found
    assert not (tmp_path / "runs").exists()  # nothing stays


def test_no_language_model_is_a_warning_with_the_command(own_home: Path, tmp_path: Path) -> None:
    finding = findings(tmp_path)["language models"]
    assert str(finding) == (
        f"warning  language models: none in {own_home}; "
        "`deepmlf lm get smollm2-135m` fetches one, as a search does where there is a network"
    )


def test_a_torn_language_model_is_a_problem(own_home: Path, tmp_path: Path) -> None:
    folder = own_home / "lms" / "torn"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    finding = findings(tmp_path)["language model"]
    assert finding.status == "problem"
    assert str(folder) in finding.found
    assert finding.remedy == f"remove {folder} and get it again"


def test_folders_that_cannot_be_written_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path / "file" / "home"))
    found = findings(tmp_path / "file" / "runs")
    assert str(found["storage"]) == (
        f"problem  storage: {tmp_path}/file/runs: cannot be written (Not a directory); "
        "choose another place by --storage"
    )
    assert str(found["home"]) == (
        f"problem  home: {tmp_path}/file/home: cannot be written (Not a directory); "
        "set DEEPMLF_HOME to a folder that can be written"
    )


def test_too_little_disk_is_a_problem(own_home: Path, tmp_path: Path) -> None:
    finding = findings(tmp_path, min_disk_gb=1e6)["disk of storage"]
    assert finding.status == "problem"
    assert finding.found.endswith(f" GB free for {tmp_path}, less than 1e+06 GB")
    assert finding.remedy == "free some, or choose another disk by --storage, DEEPMLF_HOME or TMPDIR"


def test_a_cache_of_the_hub_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert str(findings(tmp_path)["Hugging Face cache"]) == (
        f"warning  Hugging Face cache: {tmp_path}/file/hub: cannot be written (Not a directory), "
        "offline by HF_HUB_OFFLINE; set HF_HOME to a folder that can be written"
    )


def test_a_release_out_of_bounds_is_a_problem() -> None:
    bounds = SpecifierSet(">=2.50,<2.61")
    assert str(judged_version("ray", "2.60.1", bounds)) == "ok       ray: 2.60.1 (needs <2.61,>=2.50)"
    assert str(judged_version("ray", "2.61.0", bounds)) == (
        "problem  ray: 2.61.0, but <2.61,>=2.50 is needed; pip install 'ray<2.61,>=2.50'"
    )
    assert judged_version("torch", "2.11.0+cu128", SpecifierSet(">=2.11")).status == "ok"
    assert judged_version("python", "3.10.1", SpecifierSet(">=3.11")).remedy == "make an environment with such a Python"


def test_what_is_not_installed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without_optuna(name: str) -> str:
        if name == "optuna":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_optuna)
    finding = findings(tmp_path)["optuna"]
    assert (finding.status, finding.found) == ("problem", "is not installed")
    assert (finding.remedy or "").startswith("pip install 'optuna")


def test_a_clock_that_disagrees_is_told() -> None:
    assert judged_clock(-0.4).status == "ok"
    assert str(judged_clock(-61.2)) == (
        "warning  clock: that of storage is 61 s behind; let both machines keep time by NTP"
    )
    assert "61 s ahead" in judged_clock(61.2).found


def test_a_clock_of_another_year_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.time, "time", lambda: 86400.0)
    finding = next(health._clock(str(tmp_path)))
    assert str(finding).startswith("problem  clock: it is 1970-01-02 00:00 UTC by this machine; set its clock")


def test_a_port_in_use_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(health, "PORTS", {port: "deepmlf watch"})
        finding = findings(tmp_path)["ports"]
    assert str(finding) == f"warning  ports: {port} is in use; give `deepmlf watch` another one by --port"


@pytest.mark.parametrize(
    ("card", "fault", "line"),
    [
        (None, "no NVIDIA driver", "ok       GPUs: none; trials train on CPUs"),
        ("too old", "too old", "warning  GPUs: there is one that torch cannot use (too old); install a torch that fits "
         "the driver (pytorch.org/get-started); until then trials train on CPUs"),
    ],
)  # fmt: skip
def test_a_gpu_that_torch_cannot_use_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str | None, fault: str, line: str
) -> None:
    said: dict[str, Callable[[str], str | None]] = {"unused_gpu": lambda name: card, "fault_of": lambda name: fault}
    for name, answer in said.items():
        monkeypatch.setattr(health, name, answer)
    assert str(findings(tmp_path)["GPUs"]) == line


def alone(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which knows of no Ray that other tests have started."""
    return subprocess.run(
        [sys.executable, "-m", "deepmlf", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_the_command_ends_with_1_where_there_is_a_problem(tmp_path: Path, own_home: Path) -> None:
    result = alone("doctor", "--storage", tmp_path, *NOWHERE)
    assert result.returncode == 1
    assert result.stderr == ""
    last = result.stdout.splitlines()[-1]
    assert last.startswith("problem  Ray: --address 127.0.0.1:1: nothing answers there (")
    assert last.endswith("is the cluster up?")
    scripted = alone("doctor", "--storage", tmp_path, "--json", *NOWHERE)
    told = json.loads(scripted.stdout)
    assert (scripted.returncode, told["ok"]) == (1, False)
    assert [one["check"] for one in told["checks"] if one["status"] == "problem"] == ["Ray"]
    assert all(set(one) == {"check", "status", "found", "remedy"} for one in told["checks"])


@pytest.mark.ray
def test_the_command_ends_with_0_where_there_is_none(ray_cluster: None, tmp_path: Path, own_home: Path) -> None:
    result = deepmlf("doctor", "--storage", tmp_path, "--min-disk", "0.001")
    assert result.returncode == 0, result.stdout
    assert "ok       Ray: starts within 0 s, 2 CPUs and 0 GPUs\n" in result.stdout
