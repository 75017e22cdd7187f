"""Experiments on remote storage: every node works in a copy of its own, and what others need goes up.

An experiment on a local path, a shared file system included, is used in place and nothing here does anything. One on
``s3://``, ``gs://`` or any other file system that pyarrow knows has a copy in the home folder of each node. The driver
sends up what it writes (:mod:`.uploader`), a worker what it writes (:mod:`deepmlf.tune.worker.trial_copy`); no
file has two writers.
"""

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from deepmlf.errors import DataError, SearchError, first_line
from deepmlf.files import new_file, why_unwritable
from deepmlf.places import Place, RemoteFolder, alone_with_copy
from deepmlf.seal import read_document
from deepmlf.tune.experiment.layout import (
    JOURNAL,
    LEASE,
    LOCK,
    MANIFEST,
    REPORT,
    STOP,
    TAKEN,
    TRIALS,
    is_of_workers,
    only_grows,
    part_of,
    takes_part_in_predictions,
)
from deepmlf.tune.experiment.parts import grow, journals_in, went_apart

_AT_ONCE = 16


def check_writable(place: Place, option: str = "--storage ") -> None:
    """Refuse storage that cannot be written, or whose URI holds credentials.

    Args:
        place: Of an experiment, which need not exist.
        option: What the user has named it by, for messages.

    Raises:
        SearchError: With what the file system says.
    """
    fault = None
    try:
        if place.remote is not None:
            place.remote.check_writable()
        else:
            fault = why_unwritable(place.folder)
    except DataError as error:
        raise SearchError(f"{option}{error}") from None
    except OSError as error:
        fault = first_line(error)
    if fault is not None:
        raise SearchError(f"{option}{place}: cannot be written ({fault})")


def check_resumable(place: Place) -> None:
    """Refuse an experiment on a disk of this machine that cannot be written; a bucket may yet answer.

    Raises:
        SearchError: With what the file system says.
    """
    if place.remote is None and (fault := why_unwritable(place.folder)) is not None:
        raise SearchError(f"{place}: cannot be written ({fault}); a search goes on where its experiment can be")


def exists(place: Place, option: str = "--storage ") -> bool:
    """Whether an experiment is there; what is left in the copy of a remote one that is not, is removed.

    Args:
        place: Where it would be.
        option: What the user has named it by, for messages.

    Raises:
        SearchError: If storage cannot be written.
    """
    check_writable(place, option)
    if place.remote is None:
        return (place.folder / MANIFEST).exists()
    if MANIFEST in place.remote.sizes():
        return True
    shutil.rmtree(place.folder, ignore_errors=True)
    return False


def refresh(place: Place) -> None:
    """Bring this machine's copy of an experiment up to date; a copy of an earlier one at the same place is removed.

    Raises:
        SearchError: If the file system cannot be used or reached.
    """
    if place.remote is None:
        return
    try:
        with alone_with_copy(place.folder):
            versions = place.remote.versions()
            _forget_another(place.folder, place.remote, versions)
            _leave_branch(place.folder, place.remote, versions)
            _pull(place.remote, place.folder, versions)
    except OSError as error:
        raise SearchError(f"{place}: cannot be read ({first_line(error)})") from None


def pull(remote: RemoteFolder, local: Path) -> None:
    """Bring this machine's copy of an experiment up to date; checkpoints, weights and the report stay where they are.

    Files that only grow (journal, metrics, events) are taken where the remote one is longer: what this machine wrote
    and could not send up any more stays. The journal comes first, as it must not know more than the trials' files.

    Raises:
        OSError: If the file system cannot be reached.
    """
    _pull(remote, local, remote.versions())


def refresh_events(place: Place) -> None:
    """Let this machine's TensorBoard events grow as the remote ones do; TensorBoard keeps them open.

    Raises:
        OSError: If the file system cannot be reached.
    """
    if place.remote is None:
        return
    for name, size in place.remote.sizes().items():
        target = place.folder / name
        if ".tfevents." in name and not (target.is_file() and target.stat().st_size >= size):
            place.remote.extend(name, target)


def open_trial(name: str | Path) -> Path:
    """The folder of a trial or an exported model on this machine, with what it takes to predict.

    Raises:
        SearchError: If the file system cannot be used or reached.
    """
    place = Place.of(name)
    if place.remote is None:
        return Path(name)
    try:
        for file in place.remote.sizes():
            if takes_part_in_predictions(file):
                place.remote.download(file, place.folder / file)
    except OSError as error:
        raise SearchError(f"{place}: cannot be read ({first_line(error)})") from None
    return place.folder


def _pull(remote: RemoteFolder, local: Path, versions: dict[str, list[int]]) -> None:
    if not versions:
        return
    taken = _taken(local)
    for name, parts in journals_in(_sizes(versions)).items():
        grow(remote, parts, local / name)
    due = [name for name, version in versions.items() if _is_due(name, version, local / name, taken)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: remote.download(name, local / name), due))
    local.mkdir(parents=True, exist_ok=True)
    with new_file(local / TAKEN) as temporary:
        temporary.write_text(json.dumps({name: versions[name] for name in versions if _is_kept(PurePosixPath(name))}))


def _is_due(name: str, version: list[int], target: Path, taken: dict[str, list[int]]) -> bool:
    """Whether a file must be taken; journals are not asked for here."""
    path = PurePosixPath(name)
    if is_of_workers(path) or path.parts[0] in (REPORT, LEASE, STOP) or part_of(name) is not None:
        return False
    size = target.stat().st_size if target.is_file() else -1
    return size < version[0] if only_grows(path) else not (size == version[0] and taken.get(name) == version)


def _is_kept(path: PurePosixPath) -> bool:
    """Whether a file need not be taken again as long as it is the same version: one of thousands of trials."""
    return TRIALS in path.parts and not (is_of_workers(path) or only_grows(path))


def _taken(local: Path) -> dict[str, list[int]]:
    try:
        taken = json.loads((local / TAKEN).read_text())
    except (OSError, ValueError):
        return {}
    return taken if isinstance(taken, dict) else {}


def _sizes(versions: dict[str, list[int]]) -> dict[str, int]:
    return {name: size for name, (size, _) in versions.items()}


def _forget_another(local: Path, remote: RemoteFolder, versions: dict[str, list[int]]) -> None:
    manifest = local / MANIFEST
    if manifest.is_file() and MANIFEST in versions:
        here = _id_in(manifest)
        remote.download(MANIFEST, manifest)
        there = _id_in(manifest)
        if there is not None and here != there:
            shutil.rmtree(local)


def _leave_branch(local: Path, remote: RemoteFolder, versions: dict[str, list[int]]) -> None:
    """Remove a copy that went on by itself: its driver lost the lease, and another one has gone on elsewhere."""
    journal = journals_in(_sizes(versions)).get(JOURNAL, [])
    if not went_apart(remote, journal, local / JOURNAL):
        return
    with contextlib.suppress(Timeout), FileLock(local / LOCK, timeout=0):  # one that runs yet finds out by its lease
        for path in local.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def _id_in(manifest: Path) -> str | None:
    """The identity of an experiment, by its manifest; None if that is damaged."""
    try:
        return str(read_document(manifest)["id"])
    except (ValueError, TypeError, KeyError):
        return None
