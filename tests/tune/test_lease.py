"""One driver at a time on an experiment on S3."""

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from deepmlf.data.remote import RemoteFolder
from deepmlf.errors import SearchError
from deepmlf.tune import lease, storage
from deepmlf.tune.lease import LEASE, Lease
from tests.tune.s3 import S3


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


def test_a_driver_whose_lease_was_taken_ends_and_sends_nothing_more(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    remote = RemoteFolder(s3.uri("taken"))
    (tmp_path / "search.json").write_text("of the first")
    taken = json.dumps({"id": "another", "host": "another", "pid": 1, "beat": "y"}).encode()
    with pytest.raises(KeyboardInterrupt), Lease(remote) as held:
        for _ in range(300):  # a beat may fall between and take it back
            remote.upload(taken, LEASE)
            time.sleep(0.1)
    assert held.lost
    storage.Uploader(tmp_path, remote, held).push()
    assert set(remote.sizes()) == {LEASE}  # not given back either, as it is another's
    assert remote.read(LEASE) == taken
