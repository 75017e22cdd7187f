"""Fixtures shared by all tests."""

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm_starts import ON_PATH, SERVER

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
os.environ["HF_HUB_OFFLINE"] = "1"
# On tensors as small as these a second thread only waits for the first: on a busy machine that made tests 20 times
# slower. Read when torch is imported, hence here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers are nicer than all else by default: next to other work they would get a few percent of a core.
os.environ.setdefault("RAY_worker_niceness", "0")
# The S3 server of the tests takes any; Ray's workers inherit them.
os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = "planted-key", "planted-secret"
# Ray's workers and driver processes import the mock trainer by name; what is on the last path makes them start warm.
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, HERE / "tune", ON_PATH)))

# What is expensive is there once in a run of several processes: all tests that use it go to one of them.
GROUPS = {"ray_cluster": "ray", "s3": "ray", "browser": "browser", "server": "browser"}
"""Fixtures, and the group of tests that share them."""
SERVERS = {"s3", "postgres", "server"}
"""Fixtures that start a server in a process of its own."""


def group_of(item: pytest.Item) -> str | None:
    """The group that a test belongs to; one with several Ray nodes of its own shares them with no other test, but two
    such at a time are too much for a small machine."""
    if item.get_closest_marker("cluster"):
        return "nodes"
    return next((GROUPS[name] for name in GROUPS if name in item.fixturenames), None)


def order_of(item: pytest.Item) -> int:
    """What takes longest begins first, so that all processes end at about the same time."""
    first = ["ray", "nodes", "browser"]
    group = group_of(item)
    if group is not None:
        return first.index(group)
    return len(first) if item.get_closest_marker("slow") else len(first) + 1


@pytest.hookimpl(tryfirst=True)  # pytest-xdist looks at the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if SERVERS & set(item.fixturenames):
            item.add_marker("server")
        if group := group_of(item):
            item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=order_of)


def pytest_collection_finish(session: pytest.Session) -> None:
    if getattr(session.config.option, "loadgroup", False):
        hidden = [item for item in session.items if group_of(item) and not item.nodeid.endswith(f"@{group_of(item)}")]
        if hidden:  # everything would pass, but slowly
            raise pytest.UsageError("pytest-xdist does not see the groups of tests; see its pin in pyproject.toml")
    # What has been imported stays. Every trial ends with a collection, which need not look through all that again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def home_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of this process's own: what a user keeps in theirs changes no test, and no two processes share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPMLF_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def warm_starts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray's processes are forked from one that has imported torch; without it they are as they are, but slow."""
    marks = {"ray", "cluster", "slow"}
    needed = any(marks & {mark.name for mark in item.iter_markers()} for item in request.session.items)
    if sys.platform != "linux" or not needed:
        yield
        return
    address = tmp_path_factory.mktemp("warm_starts") / "socket"
    command = [sys.executable, str(SERVER), str(address)]
    with pytest.MonkeyPatch.context() as patch, subprocess.Popen(command, stdin=subprocess.PIPE) as server:
        while not address.exists() and server.poll() is None:  # it takes as long as one start without it
            time.sleep(0.05)
        patch.setenv("WARM_STARTS", str(address))
        yield
        server.stdin.close()


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of this test's own, not there yet: what one test has fetched or stored changes nothing for another."""
    from deepmlf.model.language_model import load_language_model, load_tokenizer

    def forget() -> None:
        """What was loaded is known by name, whichever home it came from."""
        load_language_model.cache_clear()
        load_tokenizer.cache_clear()

    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path / "home"))
    forget()
    yield tmp_path / "home"
    forget()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material: ../shared beside the project, or DEEPMLF_SHARED."""
    folder = Path(os.environ.get("DEEPMLF_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"reference material not found at {folder}; set DEEPMLF_SHARED")
        pytest.skip(f"reference material not found at {folder}; set DEEPMLF_SHARED")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic dataset."""
    from deepmlf.data.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(folder, seed=1, sizes=(49, 24, 24))
    return folder


@pytest.fixture(scope="session")
def small_trial(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """A finished trial on it, of a language model in a folder with a tokenizer."""
    from tests.model.small_lm import make_folder
    from tests.training.small_trial import run

    folder = tmp_path_factory.mktemp("trials") / "small"
    name = str(make_folder(folder.with_name("lm")))
    run(folder, small_data, model__language_model=name, model__fusion_depth=1, model__cross_attention_heads=2)
    return folder


@pytest.fixture(scope="session")
def small_export(small_trial: Path) -> Path:
    """The trial's best epoch, exported."""
    from deepmlf.inference.export import export_trial

    out = small_trial.with_name("export")
    export_trial(small_trial, out)
    return out


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this machine, one for all tests."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
