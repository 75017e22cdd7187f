"""A journal behind a URI goes up in parts and comes down whole; copies that went apart do not mix."""

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from deepmlf.errors import SearchError
from deepmlf.places import Place, RemoteFolder
from deepmlf.tune.experiment import lease as leases
from deepmlf.tune.experiment import parts
from deepmlf.tune.experiment import uploader as uploading
from deepmlf.tune.experiment.layout import JOURNAL, LOCK, MANIFEST, TAKEN, part_of
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.parts import journals_in, length, read_from, went_apart
from deepmlf.tune.experiment.remote import refresh
from deepmlf.tune.experiment.uploader import Uploader

SECOND, THIRD = f"{JOURNAL}.0000.000000000100", f"{JOURNAL}.0000.000000000200"


class Bucket(RemoteFolder):
    """A folder of this machine behind its URI, which counts what goes there and comes from there."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.up: list[tuple[str, int]] = []
        self.down: list[str] = []

    def upload(self, content: bytes, name: str) -> None:
        self.up.append((name, len(content)))
        super().upload(content, name)

    def download(self, name: str, target: Path) -> None:
        self.down.append(name)
        super().download(name, target)

    def read(self, name: str) -> bytes | None:
        self.down.append(name)
        return super().read(name)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty one, whose journals come in parts of a hundred bytes; copies lie in folders of their own."""
    monkeypatch.setattr(parts, "PART_BYTES", 100)
    monkeypatch.setattr(parts, "_OVERLAP_BYTES", 30)
    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path / "home"))
    (tmp_path / "bucket").mkdir()
    return Bucket((tmp_path / "bucket").as_uri())


def lines(first: int, last: int, who: str = "a") -> str:
    """Lines of ten bytes each."""
    return "".join(f"{who} {number:07d}\n" for number in range(first, last))


def uploader(local: Path, bucket: Bucket) -> Uploader:
    return Uploader(local, bucket, Lease(bucket))


def journal_in(bucket: RemoteFolder) -> str:
    return read_from(bucket, journals_in(bucket.sizes())[JOURNAL]).decode()


def test_what_is_a_journal_and_what_is_not() -> None:
    assert part_of("confirm-1-x3/optuna.journal.0002.000001048576") == ("confirm-1-x3/optuna.journal", 2, 1 << 20)
    assert part_of("optuna.journal") == ("optuna.journal", 0, 0)
    for name in ("optuna.journal.lock", "optuna.journals", "optuna.journal.01", "my.journal.1.1", "optuna.journal/1.1"):
        assert part_of(name) is None, name


def test_only_the_part_that_has_changed_goes_up(bucket: Bucket, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    sender = uploader(local, bucket)
    for count, sent in (
        (5, [(JOURNAL, 50)]),
        (9, [(JOURNAL, 90)]),
        (25, [(JOURNAL, 100), (SECOND, 100), (THIRD, 50)]),
        (30, [(THIRD, 100)]),
        (31, [(f"{JOURNAL}.0000.000000000300", 10)]),
    ):
        bucket.up.clear()
        with (local / JOURNAL).open("a") as file:
            file.write(lines(file.tell() // 10, count))
        sender.push()
        assert bucket.up == sent
        assert journal_in(bucket) == lines(0, count)
    bucket.up.clear()
    sender.push()
    assert bucket.up == []


def test_a_copy_grows_by_what_it_lacks(bucket: Bucket, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    place, sender = Place.of(bucket.uri), uploader(local, bucket)
    for count in (3, 14, 14, 38, 60):
        (local / JOURNAL).write_text(lines(0, count))
        sender.push()
        refresh(place)
        assert (place.folder / JOURNAL).read_text() == lines(0, count)
    parts.grow(bucket, journals_in(bucket.sizes())[JOURNAL], place.folder / JOURNAL)
    assert bucket.down == []
    (place.folder / JOURNAL).write_text(lines(0, 55))
    parts.grow(bucket, journals_in(bucket.sizes())[JOURNAL], place.folder / JOURNAL)
    assert (place.folder / JOURNAL).read_text() == lines(0, 60)
    assert bucket.down == [f"{JOURNAL}.0000.000000000500"]


def test_a_first_part_may_be_a_whole_journal(bucket: Bucket, tmp_path: Path) -> None:
    bucket.upload(lines(0, 37).encode(), JOURNAL)  # a copy's, or an earlier release's
    place = Place.of(bucket.uri)
    refresh(place)
    sender = uploader(place.folder, bucket)
    sender.compare()
    bucket.up.clear()
    (place.folder / JOURNAL).write_text(lines(0, 45))
    sender.push()
    assert [name for name, _ in bucket.up] == [f"{JOURNAL}.0001.000000000300", f"{JOURNAL}.0001.000000000400"]
    assert journal_in(bucket) == lines(0, 45)
    shutil.rmtree(place.folder)
    refresh(place)
    assert (place.folder / JOURNAL).read_text() == lines(0, 45)


def test_a_torn_line_in_the_bucket_goes(bucket: Bucket, tmp_path: Path) -> None:
    bucket.upload(lines(0, 10).encode(), JOURNAL)
    bucket.upload(lines(10, 20).encode(), SECOND)
    bucket.upload(b"a 00", THIRD)
    local = tmp_path / "local"
    local.mkdir()
    (local / JOURNAL).write_text(lines(0, 20))  # as a repair has left it
    sender = uploader(local, bucket)
    sender.compare()
    (local / JOURNAL).write_text(lines(0, 21))
    sender.push()
    assert journal_in(bucket) == lines(0, 21)


def test_what_a_driver_sends_after_another_took_over_does_not_count(bucket: Bucket, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for local in (first, second):
        local.mkdir()
        (local / JOURNAL).write_text(lines(0, 13))
    stopped = uploader(first, bucket)
    stopped.push()
    other = uploader(second, bucket)
    other.compare()
    (second / JOURNAL).write_text(lines(0, 13) + lines(13, 16, "b"))
    other.push()
    (first / JOURNAL).write_text(lines(0, 45))
    stopped.push()  # it wakes up and does not know yet
    assert journal_in(bucket) == lines(0, 13) + lines(13, 16, "b")
    (second / JOURNAL).write_text(lines(0, 13) + lines(13, 37, "b"))
    other.push()
    assert journal_in(bucket) == lines(0, 13) + lines(13, 37, "b")
    third = uploader(second, bucket)
    third.compare()
    third.push()
    assert journal_in(bucket) == lines(0, 13) + lines(13, 37, "b")
    assert f"{JOURNAL}.0002.000000000300" in bucket.sizes()
    assert f"{JOURNAL}.0001.000000000300" not in bucket.sizes()
    assert f"{JOURNAL}.0001.000000000200" in bucket.sizes()


def test_nothing_goes_up_while_the_lease_may_have_been_taken(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    (local / "trials" / "0000_x").mkdir(parents=True)
    metrics = local / "trials" / "0000_x" / "metrics.jsonl"
    metrics.write_text("one\n")
    now = [0.0]
    monkeypatch.setattr(leases, "_clock", lambda: now[0])
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    with Lease(bucket) as lease, Uploader(local, bucket, lease, every=3600) as sender:
        name = "trials/0000_x/metrics.jsonl"
        put, bucket.put = bucket.put, refuse  # type: ignore[method-assign]  # storage that does not answer
        now[0] = leases.PATIENCE_SECONDS + 1
        metrics.write_text("one\ntwo\n")
        sender.push()
        assert bucket.sizes()[name] == 4
        bucket.put = put  # type: ignore[method-assign]
        assert lease.wait_until_sure()
        sender.push()
        assert bucket.sizes()[name] == 8
        put(b"of a driver that stood still", name)
    assert bucket.read(name) == b"one\ntwo\n"


def refuse(content: bytes, name: str) -> None:
    raise OSError("no answer")


def test_a_part_that_is_missing_is_told(bucket: Bucket) -> None:
    bucket.upload(lines(0, 10).encode(), JOURNAL)
    bucket.upload(lines(20, 21).encode(), THIRD)
    with pytest.raises(SearchError, match=rf"cannot be read \({JOURNAL}: lacks bytes before or in {THIRD}\)"):
        refresh(Place.of(bucket.uri))


@pytest.mark.parametrize(("here", "there"), [(30, 40), (40, 30), (40, 40)])
def test_a_copy_that_went_on_by_itself_is_left(bucket: Bucket, here: int, there: int) -> None:
    """Its driver stood still until another one had the lease, and could not send its last lines any more."""
    place = Place.of(bucket.uri)
    bucket.upload(json.dumps({"id": "one"}).encode(), MANIFEST)
    bucket.upload((lines(0, 21) + lines(21, there, "b")).encode(), JOURNAL)
    trial = place.folder / "trials" / "0003_x" / "metrics.jsonl"
    trial.parent.mkdir(parents=True)
    trial.write_text("of a trial that only this machine has\n")
    (place.folder / MANIFEST).write_text(json.dumps({"id": "one"}))
    (place.folder / JOURNAL).write_text(lines(0, here))
    with pytest.raises(SearchError, match="another driver has gone on with it meanwhile; resume it again"):
        uploader(place.folder, bucket).compare()
    with FileLock(place.folder / LOCK):  # while a driver is at it, nothing is taken from under it
        refresh(place)
        assert trial.exists()
    (place.folder / JOURNAL).write_text(lines(0, here))
    refresh(place)
    assert not trial.exists()
    assert (place.folder / JOURNAL).read_text() == lines(0, 21) + lines(21, there, "b")
    assert not went_apart(bucket, journals_in(bucket.sizes())[JOURNAL], place.folder / JOURNAL)


def test_what_was_only_not_sent_yet_stays(bucket: Bucket) -> None:
    place = Place.of(bucket.uri)
    bucket.upload(lines(0, 7).encode(), JOURNAL)
    place.folder.mkdir(parents=True)
    (place.folder / JOURNAL).write_text(lines(0, 9))
    refresh(place)
    assert (place.folder / JOURNAL).read_text() == lines(0, 9)


def test_a_trials_files_come_once_and_go_up_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.of(bucket.uri)
    monkeypatch.setattr("deepmlf.places.RemoteFolder", lambda uri: bucket)
    config, metrics = "trials/0000_x/config.json", "trials/0000_x/metrics.jsonl"
    for name, content in ((MANIFEST, '{"id": "one"}'), (config, "{}"), (metrics, "one\n"), (JOURNAL, lines(0, 3))):
        bucket.upload(content.encode(), name)
    refresh(place)
    assert {config, metrics, MANIFEST} <= set(bucket.down)
    bucket.down.clear()
    refresh(place)
    assert set(bucket.down) <= {MANIFEST, JOURNAL}
    bucket.upload(b'{"of": "another trial"}', config)
    refresh(place)
    assert (place.folder / config).read_text() == '{"of": "another trial"}'
    (place.folder / TAKEN).write_text("torn")
    (place.folder / config).write_text("{'of': 'another, here'}")
    refresh(place)
    assert (place.folder / config).read_text() == '{"of": "another trial"}'
    sender = uploader(place.folder, bucket)
    sender.compare()
    bucket.up.clear()
    sender.push()
    assert [name for name, _ in bucket.up] == [MANIFEST, f"{JOURNAL}.0001.000000000000"]
    assert length(journals_in(bucket.sizes())[JOURNAL]) == 30


def test_rays_records_go_up_the_more_rarely_the_larger_they_are(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "_RECORDS_BYTES_PER_SECOND", 1.0)  # one that has n bytes waits n seconds
    clock = [0.0]
    monkeypatch.setattr(uploading.time, "monotonic", lambda: clock[0])
    record = tmp_path / "local" / "ray" / "experiment_state-1.json"
    record.parent.mkdir(parents=True)
    record.write_text("x" * 30)
    with Uploader(tmp_path / "local", bucket, Lease(bucket), every=3600) as sender:
        for clock[0], size in ((5.0, 40), (29.0, 50), (31.0, 60), (70.0, 70)):
            record.write_text("x" * size)
            sender.push()
        assert [size for _, size in bucket.up] == [30, 60]
    assert [size for _, size in bucket.up] == [30, 60, 70]
