"""Addresses, tokens and room: what does not fit is told at once, before an experiment exists."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from deepmlf.errors import SearchError
from deepmlf.tune.cluster.connect import check_room, connected, temporary_folder
from deepmlf.tune.search import run_search
from tests.tune.experiments import settings

CONNECT = """
import sys
from deepmlf.errors import SearchError
from deepmlf.tune.cluster.connect import connected
try:
    with connected(sys.argv[1]):
        print("connected")
except SearchError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"--address 127\.0\.0\.1:1: nothing answers there \(.*refused\); is the cluster up\?"),
        ("nonsense", "--address nonsense: expected HOST:PORT, e.g. 127.0.0.1:6379, or auto"),
        ("ray://127.0.0.1:10001", "the driver runs on a node of the cluster; send it there with `ray job submit"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_at_once(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever other tests have started
    with pytest.raises(SearchError, match=message), connected(address):
        pass


def test_an_address_may_come_from_the_job_that_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SearchError, match=r"--address 127\.0\.0\.1:1: nothing answers"), connected(None):
        pass


def test_without_an_address_another_cluster_of_this_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of Ray's start, to see what it is asked for: by itself it joins any cluster that it finds."""
    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["address"]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with connected(None):
        assert asked == ["local"]


def test_other_versions_on_the_cluster_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of Ray's own check, as two Rays cannot be installed at once."""

    def refuse(**options: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.12.1. And more.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    expected = r"--address auto: cluster and driver must have the same Ray and Python \(Version mismatch: .*2\.50\.0"
    with pytest.raises(SearchError, match=expected), connected("auto"):
        pass


@pytest.mark.ray
@pytest.mark.parametrize("token", ["0" * 64, None])
def test_a_wrong_and_a_missing_token_are_told(ray_cluster: None, token: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", CONNECT, ray.get_runtime_context().gcs_address]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert "no Ray cluster lets this process in" in result.stdout
    assert "set RAY_AUTH_MODE=token and put the cluster's token into RAY_AUTH_TOKEN" in result.stdout


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because some of the raylet failed."),
        RuntimeError("Timed out waiting for node info for node_id=1."),
    ],
)
def test_a_machine_too_busy_for_ray_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Mocked: nobody can have Ray be late."""

    def late(**options: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late)
    expected = (
        r"^--address local: Ray did not start in the time that it gives itself \((The current node timed out during "
        r"startup|Timed out waiting for node info for node_id=1\.?)\); if the machine is merely busy, ask again; "
        r"`deepmlf doctor` says what else may be wrong$"
    )
    with pytest.raises(SearchError, match=expected), connected(None):
        pass


@pytest.mark.ray
def test_a_trial_that_fits_on_no_node_is_told_before_anything_starts(
    ray_cluster: None, tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_room(2, 0, may_grow=False) is None
    expected = "a trial asks for 1 CPUs and 4 GPUs, which no node has .there are nodes of 2 CPUs and 0 GPUs.; lower"
    with pytest.raises(SearchError, match=expected):
        run_search(settings(small_data, tmp_path, gpus_per_trial=4.0))
    assert not (tmp_path / "search").exists()
    assert "which no node has" in (check_room(64, 0, may_grow=True) or "")


@pytest.fixture
def no_tmpdir(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_sockets_are_where_ray_puts_them_as_long_as_that_works(no_tmpdir: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert temporary_folder() is None
    no_tmpdir.setenv("TMPDIR", "/tmp")
    assert temporary_folder() is None


@pytest.mark.parametrize("tmpdir", ["/tmp/" + "j" * 95, "/tmp/" + "j" * 40, "/proc/x", __file__])
def test_a_tmpdir_that_sockets_cannot_be_in_is_left_for_a_short_one(no_tmpdir: pytest.MonkeyPatch, tmpdir: str) -> None:
    no_tmpdir.setenv("TMPDIR", tmpdir)
    assert temporary_folder() == Path(f"/tmp/ray-{os.getuid()}")
    no_tmpdir.setenv("RAY_TMPDIR", tmpdir)  # asked of Ray by its user
    with pytest.raises(SearchError) as refused:
        temporary_folder()
    assert str(refused.value).startswith(f"RAY_TMPDIR={tmpdir}: Ray's sockets cannot be there (")
    assert str(refused.value).endswith("); set RAY_TMPDIR to another")


@pytest.mark.ray
def test_ray_starts_under_the_tmpdir_of_a_batch_job(tmp_path: Path) -> None:
    job = tmp_path / ("job" * 33)
    job.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_TMPDIR", "RAY_ADDRESS")}
    command = [sys.executable, "-c", CONNECT.replace("sys.argv[1]", "None")]
    started = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"TMPDIR": str(job)}, timeout=120, check=False
    )
    assert started.stdout == "connected\n", started.stderr
