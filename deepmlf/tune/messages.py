"""What driver and workers tell each other. How Ray carries it is known in :mod:`deepmlf.tune.worker.wire` alone."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from deepmlf.config.trial import TrialConfig


@dataclass(frozen=True)
class Served:
    """What workers of other nodes may copy from the driver's disk."""

    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Of the folders' contents, by the folders' names in trials' settings."""
    server: str | None = None
    """Name of the actor that reads them; None where nothing is served."""


class SearchTerms(BaseModel):
    """What holds for all trials of a search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str
    """Path or URI of the experiment."""
    experiment_id: str
    name: str
    """The name that the experiment began with."""
    objectives: tuple[str, ...]
    """Metrics that must be finite."""
    train: str
    """The function that trains, as ``module:name``."""
    threads: int
    """Torch's threads."""
    device: str = "auto"
    """What ``training.device=auto`` is for a trial with its share of GPUs: ``cuda`` or ``cpu``."""
    cache_gb: float
    keep: int
    language_models: dict[str, str] = {}
    """Fingerprints of the language models that the search began with, by name, as far as they are known."""
    served: Served = Served()


class TrialOrder(BaseModel):
    """One trial, from the driver to the worker that trains it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """In the study."""
    config: TrialConfig
    overrides: dict[str, Any]
    """What the space said of it, by dotted names."""
    terms: SearchTerms
    only_record: bool = False
    """The trial has ended before: it passes through Ray, whose records lack it, and nothing is trained."""
    doomed: str | None = None
    """Why it is not trained any more, but fails."""

    def __str__(self) -> str:
        return f"trial {self.number}"  # Ray tags its trials with it, and writes the tags into its records, too

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray writes every trial's order into its records, five times over: what a config leaves at its default would be
        # most of it, and a method of the class, which Ray's pickle takes apart to its code, most of the rest.
        return _unpacked, (zlib.compress(self.model_dump_json(exclude_defaults=True).encode()),)


def _unpacked(packed: bytes) -> TrialOrder:
    return TrialOrder.model_validate_json(zlib.decompress(packed))


@dataclass(frozen=True)
class TrialWaits:
    """A worker's trial waits for what another process makes, or goes on after that: it is no hang."""

    awaited: str | None
    """What it waits for; None once it goes on."""


@dataclass(frozen=True)
class TrialFailed:
    """A worker's last word on a trial that would fail again the same way."""

    reason: str


@dataclass(frozen=True)
class SearchHalted:
    """A worker met what is no fault of its trial and would meet the others, too: the search must stop."""

    reason: str
    """What is wrong, and what to do before a resume."""
