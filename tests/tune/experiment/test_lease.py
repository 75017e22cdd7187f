"""One driver at a time on an experiment on S3."""

import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from benchmarks.parts.s3 import S3
from deepmlf.errors import SearchError
from deepmlf.places import Place, RemoteFolder
from deepmlf.tune.experiment import lease
from deepmlf.tune.experiment.layout import LEASE
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.uploader import Uploader
from deepmlf.tune.search import resume_search, run_search
from tests.tune.experiments import assert_whole, settings


def test_a_second_driver_is_turned_away_and_a_dead_one_waited_for(
    s3: S3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 1.5)
    remote = RemoteFolder(s3.uri("leased"))
    with (
        Lease(remote),
        pytest.raises(SearchError, match=r"another driver is running this search, on .* \(process \d+\)"),
    ):
        Lease(remote).__enter__()
    assert LEASE not in remote.sizes()
    remote.upload(json.dumps({"id": "x", "host": "another", "pid": 1, "beat": "y"}).encode(), LEASE)
    capsys.readouterr()
    started = time.monotonic()
    with Lease(remote):
        assert time.monotonic() - started >= 1.5
    assert "deepmlf: seeing whether the driver on another is still there" in capsys.readouterr().err
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = {"id": "x", "host": socket.gethostname(), "pid": gone.pid, "beat": "y"}
    remote.upload(json.dumps(here).encode(), LEASE)
    with Lease(remote):
        assert capsys.readouterr().err == ""  # a process of this machine that is gone needs no wait


def test_a_driver_whose_lease_was_taken_sends_nothing_more(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    remote = RemoteFolder(s3.uri("taken"))
    (tmp_path / "search.json").write_text("of the first")
    with Lease(remote) as held:
        _take(remote, held)
    Uploader(tmp_path, remote, held).push()
    assert set(remote.sizes()) == {LEASE}  # not given back either, as it is another's
    assert remote.read(LEASE) == TAKEN


@pytest.mark.parametrize("torn", [b"", b'{"id": "x", "ho', b"{}{}", b"{}", b"[1]", b"\xff"])
def test_a_torn_lease_is_neither_lost_nor_the_end_of_its_renewal(
    s3: S3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], torn: bytes
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 1.0)
    remote = RemoteFolder(s3.uri("torn"))
    remote.upload(torn, LEASE)
    started = time.monotonic()
    with Lease(remote) as held:
        assert time.monotonic() - started >= 1.0
        assert "seeing whether the driver on an unknown machine is still there" in capsys.readouterr().err
        reads, torn_reads = held._read, [ValueError] * 3

        def torn_at_first() -> dict[str, object] | None:
            if torn_reads:
                raise torn_reads.pop()
            return reads()

        held._read = torn_at_first  # type: ignore[method-assign]  # a read that meets a write
        deadline = time.monotonic() + 20
        while torn_reads and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not held.lost
        with pytest.raises(SearchError, match="another driver is running this search"):
            Lease(remote, quiet=True).__enter__()  # it is renewed all the same
        _take(remote, held)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_another_driver_took_over_stops_and_says_so(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 1.5)
    place, local = s3.uri("over/search"), Place.of(s3.uri("over/search")).folder
    held: list[Lease] = []
    enter = Lease.__enter__

    def noted_enter(self: Lease) -> Lease:
        held.append(self)
        return enter(self)

    def take() -> None:
        while not list(local.glob("trials/*/metrics.jsonl")):
            time.sleep(0.05)
        _take(RemoteFolder(place), held[0])

    monkeypatch.setattr(Lease, "__enter__", noted_enter)
    search = settings(small_data, tmp_path, trials=30).model_copy(update={"storage": s3.uri("over")})
    other = threading.Thread(target=take, daemon=True)
    other.start()
    summary = run_search(search)
    other.join()
    assert summary.stop_reason == "another driver has taken it over"
    assert sum(summary.states[state] for state in ("COMPLETE", "PRUNED", "FAIL")) < 30
    shutil.rmtree(elsewhere)  # the other one is on another machine
    assert resume_search(place).states["FAIL"] == 0
    assert_whole(local, 30)


TAKEN = json.dumps({"id": "another", "host": "another", "pid": 1, "beat": "y"}).encode()


def _take(remote: RemoteFolder, held: Lease) -> None:
    """Be another driver until the holder has seen it: a beat of the holder's may fall between and take it back."""
    for _ in range(300):
        remote.upload(TAKEN, LEASE)
        time.sleep(0.1)
        if held.lost:
            return
    raise TimeoutError("the holder has not seen that its lease was taken")
