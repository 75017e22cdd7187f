"""Settings as people write them: ``NAME=VALUE`` pairs and TOML files, read into dotted overrides.

No heavy imports: the CLI reads this module to answer ``--help``.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from deepmlf.errors import ConfigError


def read_overrides(pairs: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """Parse ``K=V`` pairs of ``--set``; V is a TOML value, or else a plain string.

    Raises:
        ConfigError: If a pair has no ``=``.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair}: expected NAME=VALUE, e.g. model.num_fusion_tokens=12")
        try:
            overrides[key] = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            overrides[key] = None if text == "none" else text
    return overrides


def as_override(name: str, value: Any) -> str:
    """``NAME=VALUE`` as ``--set`` takes it; text is quoted only where it would be read as something else."""
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    if read_overrides([f"{name}={text}"])[name] != value:
        text = json.dumps(value)
    return f"{name}={text}"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML config file into dotted overrides.

    Raises:
        ConfigError: If the file is missing or not TOML.
    """
    try:
        tree = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--config {path}: not TOML ({error})") from None
    overrides: dict[str, Any] = {}
    for section, fields in tree.items():
        if not isinstance(fields, dict):
            raise ConfigError(f"--config {path}: {section}: settings live in sections, e.g. [model]")
        overrides |= {f"{section}.{name}": value for name, value in fields.items()}
    return overrides
