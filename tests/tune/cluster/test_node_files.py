"""Data and language models that a node lacks: fetched from the driver's node once, or told in one line."""

import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from deepmlf.data.synthetic import make_synthetic
from deepmlf.errors import DeepMLFError, PlaceError
from deepmlf.tune import search
from deepmlf.tune.cluster.node_files import CHUNK, FileServer, fingerprint_of, on_this_node, serving
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.messages import Served
from deepmlf.tune.search import resume_search, run_search
from tests.model.small_lm import make_folder
from tests.tune.experiments import assert_whole, drive, settings, space_of, wait_for_epochs

TOLD = r"place: a path that workers do not have \({}\); put it on shared storage or give a URI"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 20 MiB, as far as anybody looks into it."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "info.json").write_text("{}")
    with (place / "train.arrow").open("wb") as file:
        for number in range(20):
            file.write(bytes([number]) * 2**20)
    (place / "notes.txt").write_text("private")
    (place / ".hidden.json").write_text("private")
    return place


@pytest.fixture
def server(ray_cluster: None, folder: Path) -> Iterator[str]:
    """The name of an actor that serves the folder."""

    class CountingServer(FileServer):  # in here, so that the actor need not import what this module does
        chunks = 0

        def read(self, key: str, name: str, offset: int) -> bytes:
            self.chunks += 1
            chunk = super().read(key, name, offset)
            assert len(chunk) <= CHUNK
            return chunk

        def count(self) -> int:
            return self.chunks

    actor = ray.remote(CountingServer).options(name="files", num_cpus=0).remote({fingerprint_of(folder): folder})
    yield "files"
    ray.kill(actor)
    with contextlib.suppress(ValueError):
        while ray.get_actor("files"):
            time.sleep(0.05)


def test_a_fingerprint_is_of_the_content_alone(folder: Path, tmp_path: Path) -> None:
    before = fingerprint_of(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "notes.txt").unlink()
    assert fingerprint_of(copy) == before
    for offset in (0, 7 * 2**20, 20 * 2**20 - 1):
        changed = shutil.copytree(folder, tmp_path / f"at-{offset}")
        with (changed / "train.arrow").open("r+b") as file:
            file.seek(offset - offset % 2**20)
            file.write(b"x" * 2**20)
        assert fingerprint_of(changed) != before


def test_a_server_reads_nothing_but_its_folders(folder: Path) -> None:
    key = fingerprint_of(folder)
    server = FileServer({key: folder})
    assert server.sizes(key) == {"info.json": 2, "train.arrow": 20 * 2**20}
    for wrong in ("../secret.json", "notes.txt", ".hidden.json", str(folder / "info.json")):
        with pytest.raises(KeyError):
            server.read(key, wrong, 0)
    with pytest.raises(KeyError):
        server.sizes(str(folder))


@pytest.mark.ray
def test_a_folder_that_a_node_has_is_used_in_place(server: str, folder: Path, home: Path) -> None:
    assert on_this_node("place", fingerprint_of(folder), "nonsuch", found=folder) == folder
    assert not home.exists()


@pytest.mark.ray
def test_trials_that_start_at_once_fetch_once(server: str, folder: Path, home: Path) -> None:
    @ray.remote(num_cpus=0.25)
    def start(key: str) -> tuple[str, int]:
        os.environ["DEEPMLF_HOME"] = str(home)
        found = on_this_node("data/place", key, server, found=None)
        time.sleep(0.5)
        return str(found), (found / "train.arrow").stat().st_ino

    key = fingerprint_of(folder)
    [(found, _)] = set(ray.get([start.remote(key) for _ in range(8)]))
    assert ray.get(ray.get_actor(server).count.remote()) == 4  # three chunks and a small file
    assert sorted(path.name for path in Path(found).iterdir()) == ["info.json", "train.arrow"]
    assert (Path(found) / "train.arrow").read_bytes() == (folder / "train.arrow").read_bytes()
    assert [path.name for path in Path(found).parent.iterdir() if path.name != ".place.lock"] == ["place"]


@pytest.mark.ray
def test_another_content_and_a_spoilt_copy_are_replaced(server: str, folder: Path, home: Path, tmp_path: Path) -> None:
    key = fingerprint_of(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "info.json").write_text("[]")
    found = on_this_node("place", key, server, found=other)
    assert found.is_relative_to(home)
    (found / "train.arrow").write_bytes(b"torn")
    assert on_this_node("place", key, server, found=None) == found
    assert fingerprint_of(found) == key


@pytest.mark.ray
def test_a_folder_that_has_changed_or_is_gone_is_told(server: str, folder: Path, home: Path) -> None:
    key = fingerprint_of(folder)
    (folder / "info.json").write_text("{ }")
    with pytest.raises(PlaceError, match=TOLD.format("it has changed on the driver's node since the search began")):
        on_this_node("place", key, server, found=None)
    shutil.rmtree(folder)
    with pytest.raises(PlaceError, match=TOLD.format(".*No such file or directory.*")) as caught:
        on_this_node("place", key, server, found=None)
    assert "\n" not in str(caught.value)
    assert not list(home.glob("from_driver/*/place"))
    ray.kill(ray.get_actor(server))
    with pytest.raises(PlaceError, match=TOLD.format(".*")):
        on_this_node("place", key, server, found=None)


@pytest.fixture
def home(own_home: Path) -> Path:
    """A cache of this node's own."""
    return own_home


@pytest.mark.ray
def test_one_machine_serves_nothing(ray_cluster: None, small_data: Path) -> None:
    with serving(str(small_data), ["tiny-random"], None) as served:
        assert served == Served()


@pytest.mark.ray
def test_data_that_no_worker_reaches_end_the_search(
    ray_cluster: None, tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def dead(data: str, language_models: list[str], address: str | None) -> Iterator[Served]:
        yield Served({data: "of data that are not here"}, "nonsuch")

    monkeypatch.setattr(search, "serving", dead)
    summary = run_search(settings(small_data, tmp_path, trials=8, concurrent=1))
    told = f"node {socket.gethostname()}: {small_data}: a path that workers do not have ("
    assert summary.stop_reason is not None
    assert summary.stop_reason.startswith(told)
    assert summary.stop_reason.endswith("); put it on shared storage or give a URI; mend that and resume")
    assert summary.states["FAIL"] == summary.states["PRUNED"] == 0
    monkeypatch.undo()
    assert resume_search(tmp_path / "search").states["FAIL"] == 0
    assert_whole(tmp_path / "search", 8)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("data", "not an imported dataset; make one with `deepmlf data import SOURCE OUT`"),
        ("lm", "is not on this machine; run `deepmlf lm get"),
    ],
)
def test_a_folder_that_is_gone_under_way_stops_the_search_and_costs_no_trial(
    ray_cluster: None, tmp_path: Path, small_data: Path, gone: str, told: str
) -> None:
    shutil.copytree(small_data, tmp_path / "data")
    lm = make_folder(tmp_path / "lm")
    experiment = tmp_path / "search"

    def take_away() -> None:
        wait_for_epochs(experiment, 2)
        (tmp_path / gone).rename(tmp_path / "elsewhere")

    thief = threading.Thread(target=take_away)
    thief.start()
    space = space_of(tmp_path, 0.001, 0.002)
    summary = run_search(
        settings(
            tmp_path / "data",
            tmp_path,
            lm=str(lm),
            space=space,
            trials=6,
            epochs=3,
            scheduler="none",
            overrides={"model.cross_attention_heads": 2, "model.max_text_len": 16},
        )
    )
    thief.join()
    assert told in (summary.stop_reason or "")
    trials = open_experiment(experiment).study.get_trials()
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "RUNNING"}
    assert not list(experiment.glob("trials/*/error.txt"))
    with pytest.raises(DeepMLFError, match=told):
        resume_search(experiment)
    assert [trial.state for trial in open_experiment(experiment).study.get_trials()] == [
        trial.state for trial in trials
    ]
    (tmp_path / "elsewhere").rename(tmp_path / gone)
    assert resume_search(experiment).states["COMPLETE"] == 6
    assert_whole(experiment, 6)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster whose only node so far takes no trials."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", str(folder))  # nobody else's Ray is to find this one
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def blind_node(head: Cluster, tmp_path: Path) -> Iterator[Path]:
    """The cache of a node that does not see ``tmp_path / "mine"``: it has a mount namespace of its own."""
    hidden, home = tmp_path / "mine", tmp_path / "node"
    hidden.mkdir()
    cover = f"mount -t tmpfs tmpfs {hidden}"
    probe = subprocess.run(["unshare", "-m", "sh", "-c", cover], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no mount namespace can be made here ({probe.stderr.strip()})")
    start = f"{sys.executable} -m ray.scripts.scripts start --address={head.address} --num-cpus=2 --block"
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"{cover} && exec {start}"],
        env=os.environ | {"DEEPMLF_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield home
    for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.cluster
def test_a_node_fetches_data_and_language_model_that_only_the_driver_has(
    head: Cluster, blind_node: Path, tmp_path: Path
) -> None:
    data, lm = tmp_path / "mine" / "data", make_folder(tmp_path / "mine" / "lm")
    make_synthetic(data, seed=1, sizes=(24, 12, 12))
    search = settings(
        data,
        tmp_path,
        lm=str(lm),
        space=space_of(tmp_path, 0.001),
        trials=2,
        epochs=1,
        address=head.address,
        train_function="deepmlf.training.trainer:train",
        overrides={
            "model.max_text_len": 8,
            "model.cross_attention_heads": 2,
            "model.av_frames": 6,
            "curriculum.av_epochs": 1,
        },
    )
    driver = multiprocessing.get_context("spawn").Process(target=drive, args=(tmp_path / "search", search))
    driver.start()
    driver.join(300)
    assert driver.exitcode == 0
    trials = open_experiment(tmp_path / "search").study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2, [trial.user_attrs for trial in trials]
    fetched = sorted(path.name for path in blind_node.glob("from_driver/*/[!.]*"))
    assert fetched == ["data", "lm"]
    config = next((tmp_path / "search" / "trials").glob("0000_*/config.json")).read_text()
    assert str(data) in config
    assert "from_driver" not in config
