"""What a search is asked to do."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deepmlf.config.trial import SEED_LIMIT
from deepmlf.errors import SearchError

DEFAULT_TRAIN = "deepmlf.training.trainer:train"

_NAME = r"[A-Za-z0-9][\w.-]*"
_LONGEST_NAME = 200  # characters; folders of trials, whose names hold it, have 255 bytes at most
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class SearchSettings(BaseModel):
    """What a search is asked to do; stored in its manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    """The dataset: its folder or URI."""
    space: str
    """A space's name or a ``.py`` file."""
    lm: str = "smollm2-135m"
    """The language model, as ``deepmlf lm get`` knows it."""
    more_lms: list[str] = []
    """Other language models: with any, each trial draws one of all of them, unless the space does."""
    trials: int = Field(20, ge=1)
    """Trials the search is to end with; a grid for which nobody has set it takes as many as it has points."""
    epochs: int = Field(15, ge=1)
    """Fusion epochs of a trial that nothing stops."""
    concurrent: int = Field(1, ge=1)
    """Trials at a time, at most."""
    cpus_per_trial: float = Field(1.0, gt=0)
    """CPUs that a trial holds, each a thread of torch's."""
    gpus_per_trial: float | None = Field(None, ge=0)
    """GPUs that a trial holds, which trains on a CPU if it holds none; None takes a share of those that there are, and
    is no more once a search has begun."""
    storage: str = "runs"
    """Folder or URI of experiments."""
    name: str | None = None
    """Of the experiment, a folder in `storage`; None takes the space's and the time."""
    address: str | None = None
    """Of a running Ray cluster, as ``127.0.0.1:6379`` or ``auto``; None starts one on this machine."""
    seed: int = Field(0, ge=0, lt=SEED_LIMIT)
    """Of the draws."""
    recipe: str | None = None
    """A recipe whose settings hold where neither the space nor `overrides` says otherwise."""
    overrides: dict[str, Any] = {}
    """Fixed settings of all trials by dotted name."""
    around: str | None = None
    """A published setting, or an experiment whose best one is meant: fixed in place of the space's ``BASE``."""
    objectives: list[str] = ["valid/MAE"]
    """What is optimised, one validation metric or it and another; their directions are known."""
    priors: bool = True
    """Evaluate the space's priors first."""
    sampler: str = "auto"
    """A search's manifest has the one that ``auto`` was."""
    scheduler: str = "asha"
    """Which trials are stopped early: ``asha``, ``hyperband``, ``median`` or ``none``."""
    grace_period: int | None = Field(None, ge=1)
    """Fusion epochs before a trial may be stopped; None takes a fifth of a full trial's, and what lies beyond the
    warm-up. A search's manifest has what was taken."""
    reduction_factor: int = Field(3, ge=2)
    """Of ``asha`` and ``hyperband``: one trial in so many goes on from a rung."""
    time_budget: float | None = Field(None, gt=0)
    """Seconds after which a driver stops; a resume has as many again."""
    study_storage: str | None = None
    """URL of a database that holds the study; None keeps it in the experiment."""
    warm_start: str | None = None
    """An earlier experiment whose finished trials the sampler learns from."""
    max_failures: int = Field(3, ge=0)
    """How often a trial starts again from its last checkpoint after its worker or node died."""
    trial_timeout: float | None = Field(None, gt=0)
    """Seconds without a report after which a trial's worker is taken for stuck and started again."""
    cache_gb: float = Field(10.0, ge=0)
    """Disk budget of text prefixes on each node, in gigabytes."""
    keep: int = Field(1, ge=1)
    """Newest checkpoints of a trial that stay on disk."""
    train_function: str = DEFAULT_TRAIN
    """What trains a trial, as ``module:name``."""
    quiet: bool = False
    """Print nothing."""
    verbose: bool = False
    """Show what Ray and the workers print."""

    @property
    def all_lms(self) -> list[str]:
        """The language models that trials may have."""
        return [self.lm, *self.more_lms]

    @property
    def first_rung(self) -> int:
        """Fusion epochs before a trial may be stopped; a plan raises it beyond the warm-up."""
        return self.grace_period or max(1, self.epochs // 5)


def experiment_name(settings: SearchSettings) -> str:
    """The name of a search's experiment: the one given, or the space's and the time.

    Raises:
        SearchError: If the one given could not name a folder and a study.
    """
    if settings.name is None:
        space = re.sub(r"\W+", "-", Path(settings.space).stem, flags=re.ASCII).strip("-_")
        return f"{space or 'search'}-{datetime.now():%Y%m%d-%H%M%S}"
    if not re.fullmatch(_NAME, settings.name):
        raise SearchError(
            f"--name {settings.name!r}: expected a letter or digit, then letters, digits, `.`, `_` or `-`; "
            "folders go into --storage"
        )
    if len(settings.name.encode()) > _LONGEST_NAME:
        raise SearchError(f"--name: must be at most {_LONGEST_NAME} characters, but got {len(settings.name.encode())}")
    return settings.name


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """Seconds of a duration such as ``90s``, ``30m`` or ``1.5h``.

    Raises:
        SearchError: If it is none; the message names the `option`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or float(match[1]) == 0:
        raise SearchError(f"{option} {text}: expected a number and s, m or h, e.g. 90m")
    return float(match[1]) * _SECONDS[match[2]]
