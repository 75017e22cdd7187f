"""Data and language models on the driver's disk, brought to the nodes whose trials need them.

A folder that a node has with the same content, as on a shared file system, is used in place. Any other is copied once
to the node's cache, by chunks, from an actor on the driver's node that reads the folders it was started for, and
nothing else.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import LanguageModelError, PlaceError, first_line
from deepmlf.model import lm_store
from deepmlf.places import Place, home, keep_copy
from deepmlf.tune.messages import Served

CHUNK = 8 * 2**20
"""Bytes of a file that are on their way at a time."""
_FILES = ("metrics.py", "*.json", "*.arrow", "*.safetensors", "tokenizer*", "vocab.*", "merges.txt")
_SAMPLES, _SAMPLE = 16, 2**16


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a dataset or a language model by name; what else lies in the folder is nobody's business."""
    found = {path.name: path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}
    return {name: found[name] for name in sorted(found) if not name.startswith(".")}


def fingerprint_of(folder: Path) -> str:
    """Names a folder's content by its files' names, sizes and bytes; of a large file, samples all over it."""
    digest = hashlib.sha256()
    for name, path in files_of(folder).items():
        size = path.stat().st_size
        digest.update(f"{name} {size} ".encode())
        step = max(_SAMPLE, (size - _SAMPLE) // (_SAMPLES - 1))
        with path.open("rb") as file:
            for offset in range(0, size, step):
                file.seek(offset)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def data_here(place: str) -> Path | None:
    """Where this node has a dataset; None if it has not, or needs no folder of it."""
    return None if Place.of(place).is_remote or not Path(place).is_dir() else Path(place)


def language_model_here(name: str) -> Path | None:
    """Where this node has a language model; None if it has not, or needs no folder of it."""
    if Place.of(name).is_remote or name == lm_store.TINY_RANDOM:
        return None
    try:
        return lm_store.resolve(name)
    except LanguageModelError:
        return None


class FileServer:
    """Reads files for other nodes; an actor on the driver's node.

    Args:
        folders: By fingerprint; no other file is read.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._files = {key: files_of(folder) for key, folder in folders.items()}

    def sizes(self, key: str) -> dict[str, int]:
        """Bytes of each file of a folder."""
        return {name: path.stat().st_size for name, path in self._files[key].items()}

    def read(self, key: str, name: str, offset: int) -> bytes:
        """At most `CHUNK` bytes of a file, from `offset` on."""
        with self._files[key][name].open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)


@contextlib.contextmanager
def serving(data: str, language_models: Iterable[str], address: str | None) -> Iterator[Served]:
    """Serve a dataset and language models that this node has, if the connected cluster has or may get other nodes.

    Args:
        data: The dataset, as settings name it.
        language_models: The same of language models.
        address: Of the cluster; None for a local one.

    Yields what `config_here` needs to know.
    """
    is_cluster = address is not None or "RAY_ADDRESS" in os.environ or len(ray.nodes()) > 1
    folders = {name: language_model_here(name) for name in language_models} | {data: data_here(data)}
    known = {place: (fingerprint_of(folder), folder) for place, folder in folders.items() if folder is not None}
    if not is_cluster or not known:
        yield Served()
        return
    server_name = f"deepmlf-files-{uuid.uuid4().hex}"
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    server = (
        ray.remote(FileServer)
        .options(name=server_name, num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=this_node)
        .remote(dict(known.values()))
    )
    try:
        yield Served({place: key for place, (key, _) in known.items()}, server_name)
    finally:
        ray.kill(server)


def config_here(config: TrialConfig, served: Served) -> TrialConfig:
    """A trial's configuration with this node's folders in place of the driver's, fetched if they are not there.

    Raises:
        PlaceError: If one is neither here nor to be had from the driver's node.
    """
    if served.server is None:
        return config
    data, language_model = config.data.path, config.model.language_model
    folders = {data: data_here(data), language_model: language_model_here(language_model)}
    found = {
        place: str(on_this_node(place, served.fingerprints[place], served.server, folder))
        for place, folder in folders.items()
        if place in served.fingerprints
    }
    return config.placed(data=found.get(data), language_model=found.get(language_model))


def on_this_node(place: str, key: str, server: str, found: Path | None) -> Path:
    """The folder that a user calls `place`: the one `found` if its fingerprint is `key`, else a copy from `server`.

    Raises:
        PlaceError: If this node has not, and the driver's node does not give it.
    """
    if found is not None and fingerprint_of(found) == key:
        return found
    copy = home() / "from_driver" / key[:16] / (Path(place).name or "folder")
    try:
        keep_copy(copy, lambda folder: fingerprint_of(folder) == key, lambda folder: _fetch(server, key, folder))
    except (ValueError, RayError) as error:  # ValueError: no actor has that name
        raise PlaceError(
            f"{place}: a path that workers do not have ({first_line(getattr(error, 'cause', None) or error)}); "
            "put it on shared storage or give a URI"
        ) from None
    return copy


def _fetch(server: str, key: str, folder: Path) -> None:
    actor = ray.get_actor(server)
    for name, size in ray.get(actor.sizes.remote(key)).items():
        with (folder / name).open("wb") as file:
            for offset in range(0, size, CHUNK):
                file.write(ray.get(actor.read.remote(key, name, offset)))
    if fingerprint_of(folder) != key:
        raise ValueError("it has changed on the driver's node since the search began")
