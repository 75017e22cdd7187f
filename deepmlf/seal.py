"""Documents and files that tell when they are not as they were written: CRC-32 against bits that flip and blocks lost.

It is no protection from somebody who changes both, and what releases up to 0.1 wrote has none.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
_KIND = "crc32:"  # one bit that flips cannot hide both the name and this, so that a spoilt seal is not taken for none
_BLOCK = 1 << 22


class BrokenSealError(ValueError):
    """What was read is not what was written."""

    def __init__(self) -> None:
        super().__init__("its checksum is of something else")


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with the checksum of its content as one more entry.

    >>> sealed({"epoch": 1})
    {'epoch': 1, 'checksum': 'crc32:d67a9279'}
    """
    return {**document, CHECKSUM: _sum(_text(document))}


def unsealed(document: Any) -> Any:
    """The content of a document that was read, without its checksum; one that never had any is returned as it is.

    Raises:
        BrokenSealError: If the content is another one than was sealed.
    """
    if not isinstance(document, dict) or not _has_seal(document):
        return document
    content = {name: value for name, value in document.items() if name != CHECKSUM}
    if document.get(CHECKSUM) != _sum(_text(content)):
        raise BrokenSealError
    return content


def read_document(path: Path) -> Any:
    """The content of a JSON document's file; see `unsealed`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or the content is another one than was sealed.
    """
    return unsealed(json.loads(path.read_text()))


def file_sum(path: Path) -> str:
    """The checksum of a file's bytes."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return f"{_KIND}{found:08x}"


def _has_seal(document: dict[str, Any]) -> bool:
    return CHECKSUM in document or any(isinstance(v, str) and v.startswith(_KIND) for v in document.values())


def _text(document: Mapping[str, Any]) -> bytes:
    # What JSON makes of the content is the same before it was written and after it was read: it keeps every number.
    return json.dumps(document, separators=(",", ":")).encode()


def _sum(content: bytes) -> str:
    return f"{_KIND}{zlib.crc32(content):08x}"
