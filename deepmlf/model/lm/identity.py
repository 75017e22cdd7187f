"""Which language model, which tokenizer: named by their contents, so that no other passes for them."""

import contextlib
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepmlf.files import new_file
from deepmlf.model.lm.check import read_config, weights_of
from deepmlf.places import home

TOKENIZER_PARTS = ("tokenizer*", "*.model", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
"""Patterns of the files that make a tokenizer."""

_CHUNK = 2**23
_SETTLED = 2.0  # seconds: a file may change again within a tick of its clock, and its times would not tell
_OF_THE_FILE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""Entries of config.json that do not change what the model computes."""
_FINGERPRINT, _ADMITTED, _READ, _FILES = "fingerprint", "admitted", "read", "files"


def fingerprint_of(folder: Path) -> str:
    """Names a language model by every byte of its weights and by its configuration.

    However the weights are spread over files. They are read whole once, and again when the size, the time of change
    or the place on the disk of any file differs: setting back a file's time is itself such a change.

    Raises:
        LanguageModelError: If files are missing or torn.
    """
    record = _Record(folder)
    if _FINGERPRINT not in record.facts:
        record.add(_FINGERPRINT, _digest(folder))
    fingerprint: str = record.facts[_FINGERPRINT]
    return fingerprint


def is_admitted(folder: Path) -> bool:
    """Whether these very files were found to make a usable model by the installed transformers."""
    return _Record(folder).of_this_release(_ADMITTED) is not None


def admit(folder: Path) -> None:
    """Note that they were."""
    _Record(folder).add_of_this_release(_ADMITTED, "")


def reading_of(folder: Path) -> str | None:
    """How these very files were found to be read by the installed transformers; None if nobody has looked."""
    return _Record(folder).of_this_release(_READ)


def note_reading(folder: Path, how: str) -> None:
    """Note how they are read."""
    _Record(folder).add_of_this_release(_READ, how)


def tokenizer_identity_of(folder: Path) -> str:
    """Names a tokenizer by the contents of its files and the release of the library that reads them."""
    digest = hashlib.sha256(importlib.metadata.version("tokenizers").encode())
    for path in tokenizer_files(folder):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a tokenizer may stand alone
        # Of a vocabulary alone, the model's configuration says how it is read.
        config = json.loads((folder / "config.json").read_text())
        digest.update(str(config.get("tokenizer_class")).encode())
    return digest.hexdigest()


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that make a folder's tokenizer."""
    return sorted({path for pattern in TOKENIZER_PARTS for path in folder.glob(pattern) if path.is_file()})


def _digest(folder: Path) -> str:
    config = {name: value for name, value in read_config(folder).items() if name not in _OF_THE_FILE}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=32)
    for name, weight in sorted(weights_of(folder).items()):
        digest.update(f"{name} {weight.dtype} {weight.shape}".encode())
        with weight.file.open("rb", buffering=0) as file:
            file.seek(weight.begin)
            left = weight.end - weight.begin
            while left and (chunk := file.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
    return digest.hexdigest()


class _Record:
    """What this machine has found out about a folder, as long as its files are the same."""

    def __init__(self, folder: Path) -> None:
        self._path = home() / "lm_records" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}.json"
        self._files, self._changed = _stamps(folder)
        self.facts: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            stored = json.loads(self._path.read_text())
            if isinstance(stored, Mapping) and stored.get(_FILES) == self._files:
                self.facts = dict(stored)

    def of_this_release(self, name: str) -> str | None:
        """A fact that holds of one release of transformers; None if there is none of the installed one."""
        release, _, fact = str(self.facts.get(name, "")).partition(": ")
        return fact if release == importlib.metadata.version("transformers") else None

    def add_of_this_release(self, name: str, fact: str) -> None:
        """Keep such a fact."""
        self.add(name, f"{importlib.metadata.version('transformers')}: {fact}")

    def add(self, name: str, value: str) -> None:
        """Keep a fact, if the files have rested and the folder of such records can be written."""
        self.facts[name] = value
        if time.time() - self._changed < _SETTLED:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(self._path) as temporary:
                temporary.write_text(json.dumps(self.facts | {_FILES: self._files}))


def _stamps(folder: Path) -> tuple[list[list[Any]], float]:
    """What tells that a file has changed, of each file, and when the last one did, in seconds since 1970."""
    paths = {weight.file for weight in weights_of(folder).values()} | {folder / "config.json", *tokenizer_files(folder)}
    stats = {path.name: path.stat() for path in sorted(paths)}
    stamps = [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()]
    return stamps, max(s.st_ctime for s in stats.values())
