"""Taking an experiment to another place: from a folder here to a bucket, and back."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from deepmlf.errors import SearchError
from deepmlf.files import new_folder
from deepmlf.places import Place, RemoteFolder
from deepmlf.tune.experiment.alone import alone_at
from deepmlf.tune.experiment.layout import CONFIRMATIONS, COPYING, MANIFEST, is_of_the_experiment, part_of
from deepmlf.tune.experiment.manifest import manifest_of, text_of
from deepmlf.tune.experiment.parts import journals_in, read_from
from deepmlf.tune.experiment.remote import check_writable
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment

Progress = Callable[[int, int], None]
"""Called with the files that are there, and how many there will be."""


def copy_experiment(experiment: StoredExperiment, target: Place, progress: Progress) -> int:
    """Copy an experiment whole, or not at all; a resume goes on with the copy where the search was.

    Both are experiments of their own from then on.

    Args:
        experiment: The experiment.
        target: Where the copy is to be.
        progress: Told of each file.

    Returns:
        How many files it has.

    Raises:
        SearchError: If a driver is at it, its study is in a database, or something is at the target already.
    """
    url = experiment.manifest.settings.study_storage
    if url is not None:
        raise SearchError(
            f"{experiment.place}: its study is in {url}, where a copy would share it; resume it from any machine that "
            "reaches both"
        )
    check_writable(target, "")
    with contextlib.ExitStack() as held:
        held.enter_context(alone_at(experiment, quiet=False))
        for name in _confirmations(experiment.place):
            held.enter_context(alone_at(open_experiment(experiment.place / name), quiet=False))
        names = [name for name in _names(experiment.place) if is_of_the_experiment(PurePosixPath(name))]
        # Whoever finds a manifest takes all the rest to be there.
        names.sort(key=lambda name: PurePosixPath(name).name == MANIFEST)
        with _new(target) as write:
            for done, name in enumerate(names, 1):
                write(name, _content(experiment.place, name))
                progress(done, len(names))
    return len(names)


def _names(place: Place) -> list[str]:
    """The files at a place, by their paths there."""
    if place.remote is not None:
        return list({(part_of(name) or [name])[0]: None for name in place.remote.sizes()})
    return sorted(path.relative_to(place.folder).as_posix() for path in place.folder.rglob("*") if path.is_file())


def _confirmations(place: Place) -> list[str]:
    """Experiments inside it, by `confirm`."""
    found = (PurePosixPath(name) for name in _names(place))
    return [path.parts[0] for path in found if path.match(f"{CONFIRMATIONS}/{MANIFEST}") and len(path.parts) == 2]


def _content(place: Place, name: str) -> bytes:
    content = (place.folder / name).read_bytes() if place.remote is None else _read(place.remote, name)
    if content is None:
        raise SearchError(f"{place / name}: has gone while it was copied; ask again")
    if PurePosixPath(name).name != MANIFEST:
        return content
    own = place if name == MANIFEST else place / PurePosixPath(name).parts[0]
    return text_of(manifest_of(content).copied(str(own))).encode()


def _read(remote: RemoteFolder, name: str) -> bytes | None:
    if part_of(name) is None:
        return remote.read(name)
    return read_from(remote, journals_in(remote.sizes())[name])


@contextlib.contextmanager
def _new(target: Place) -> Iterator[Callable[[str, bytes], None]]:
    """A function that writes files to a place, all of which are there in the end, or none that make an experiment.

    Raises:
        SearchError: If something is there already.
    """
    taken = SearchError(f"{target}: exists; choose another place")
    if target.remote is not None:
        with _new_remote(target.remote, taken) as write:
            yield write
        shutil.rmtree(target.folder, ignore_errors=True)  # this machine's copy of what was there before
        return
    if target.folder.exists() and (not target.folder.is_dir() or any(target.folder.iterdir())):
        raise taken
    with new_folder(target.folder) as folder:

        def write_here(name: str, content: bytes) -> None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        yield write_here


@contextlib.contextmanager
def _new_remote(remote: RemoteFolder, taken: SearchError) -> Iterator[Callable[[str, bytes], None]]:
    there = remote.sizes()
    if there and COPYING not in there:
        raise taken
    for name in there:  # of a copy that was cut short
        if name != COPYING:
            remote.delete(name)
    remote.upload(b"", COPYING)
    yield lambda name, content: remote.upload(content, name)
    remote.delete(COPYING)
