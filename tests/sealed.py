"""Documents of the product as tests change them."""

import json
from pathlib import Path
from typing import Any

from deepmlf.seal import read_document, sealed


def content_of(path: Path) -> dict[str, Any]:
    """What a document says, without its checksum."""
    content: dict[str, Any] = read_document(path)
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    """Let a document say something, with the checksum of that."""
    path.write_text(json.dumps(sealed(content), indent=2))


def edit(path: Path, **changes: Any) -> None:
    """Let a document say something else, as if it had been written so."""
    write(path, content_of(path) | changes)
