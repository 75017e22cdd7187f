"""What holds for every file in cluster/: authentication, addresses, links, scripts without mistakes."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in (ROOT / "cluster").iterdir())
DEPLOYED = [name for name in FILES if name != "README.md"]
WITH_MARKS = [name for name in DEPLOYED if name != "Dockerfile"]


def code_of(text: str) -> str:
    """A file without its comments."""
    return re.sub(r"(^|\s)#.*", "", text)


def token_is_on(name: str, text: str) -> bool:
    """Whether a cluster that the file starts asks for the token."""
    if name.startswith("kuberay"):
        spec: dict[str, Any] = yaml.safe_load(text)["spec"]
        return bool(spec.get("rayClusterSpec", spec).get("authOptions") == {"mode": "token"})
    modes = set(re.findall(r"RAY_AUTH_MODE=(\w+)", code_of(text)))
    if name.startswith("ray-up"):
        token = yaml.safe_load(text).get("file_mounts", {}).get("~/.ray/auth_token")
        return modes == {"token"} and token == "~/.ray/auth_token"
    return modes == {"token"}


def open_addresses(text: str) -> list[str]:
    """Lines by which something listens beyond loopback, with no comment before them that says why."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        code = code_of(line)
        host = re.search(r"(?:dashboard-host|--host|--bind)[=: ]+(\S+)", code)
        wide = re.search(r"0\.0\.0\.0|\[::\]|--bind_all|LoadBalancer|NodePort|enableIngress: true", code)
        if (wide or (host and host[1] != "127.0.0.1")) and "# Not loopback: " not in lines[max(0, number - 1)]:
            found.append(line.strip())
    return found


@pytest.mark.parametrize("name", DEPLOYED)
def test_token_authentication_is_on(cluster: Path, name: str) -> None:
    text = (cluster / name).read_text()
    assert token_is_on(name, text)
    assert not token_is_on(name, text.replace("mode: token", "mode: disabled").replace("MODE=token", "MODE=disabled"))


@pytest.mark.parametrize("name", FILES)
def test_nothing_listens_beyond_loopback_unsaid(cluster: Path, name: str) -> None:
    text = (cluster / name).read_text()
    assert not open_addresses(text)
    spoilt = text.replace("127.0.0.1", "0.0.0.0").replace("Not loopback", "So be it")
    assert bool(open_addresses(spoilt)) == ("127.0.0.1" in code_of(text) or "Not loopback" in text)
    assert open_addresses(text + "\ntensorboard --bind_all\n")
    assert open_addresses(text + "\ntensorboard --host 192.0.2.1\n")


def test_dashboards_of_ray_up_are_told_to_stay_on_loopback(commands: dict[str, list[list[str]]]) -> None:
    heads = [words for lines in commands.values() for words in lines if words[:2] == ["ray", "start"]]
    heads = [words for words in heads if "--head" in words]
    assert len(heads) == 3
    assert all("--dashboard-host=127.0.0.1" in words for words in heads)


def test_rays_own_dashboard_address_is_loopback() -> None:
    """The Slurm file says so; it cannot set it, as `ray symmetric-run` gives the same options to every node."""
    from ray.scripts.scripts import start

    [option] = [parameter for parameter in start.params if "--dashboard-host" in parameter.opts]
    assert option.default == "127.0.0.1"


@pytest.mark.parametrize("name", WITH_MARKS)
def test_few_lines_are_to_be_changed(cluster: Path, name: str) -> None:
    text = (cluster / name).read_text()
    header = next(line for line in text.splitlines() if '"<--"' in line)
    marks = sum("<--" in line for line in text.splitlines()) - 1
    assert 1 <= marks <= 5
    said = re.search("the (four|five) lines", header)
    assert said is None or marks == {"four": 4, "five": 5}[said[1]]


def test_links_of_the_readme_resolve(cluster: Path) -> None:
    text = (cluster / "README.md").read_text()
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert {path.name for path in cluster.iterdir()} <= {*links, "README.md"}, "a file that the README does not name"
    for link in links:
        assert (cluster / link).is_file() if not link.startswith("#") else link[1:] in anchors, link


def test_the_batch_script_has_no_mistakes(cluster: Path) -> None:
    script = cluster / "slurm.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    _lint("shellcheck", script)


def test_the_dockerfile_has_no_mistakes(cluster: Path) -> None:
    _lint("hadolint", cluster / "Dockerfile")


def _lint(program: str, path: Path) -> None:
    """Run a linter that a development dependency brings beside Python."""
    linter = shutil.which(program, path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])))
    if linter is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed; it is in [dev]")
    result = subprocess.run([linter, path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
