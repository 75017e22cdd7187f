"""What commands on experiments print with `--json`."""

from typing import Any, Literal

from pydantic import ConfigDict

from deepmlf.cli.schemas.base import Count, Metrics, Said


class Searched(Said):
    """`deepmlf search` and `deepmlf resume`. Exit status 130 if it was interrupted, 2 if something stopped it."""

    experiment: str
    """Path or URI."""
    best_trial: int | None
    """Number of the best one by the first objective."""
    best_folder: str | None
    """Its path or URI."""
    metric: str
    """The first objective, as ``valid/MAE``."""
    value: float | None
    """Its best value."""
    front: list[int]
    """Trials that no other one beats."""
    config: dict[str, Any]
    """The best trial's settings by dotted name, those that the space sets."""
    states: Count
    """Trials in each state."""
    seconds: float
    """That this command took."""
    fusion_epochs_spent: int
    """Of all trials."""
    fusion_epochs_full: int
    """What full training of all would take."""
    trial_seconds: float
    """What trials took together."""
    trial_seconds_before_fusion: float
    """The part of stages before fusion."""
    interrupted: bool
    """Whether trials are left to do."""
    out_of_time: bool
    """Whether the time budget ended it."""
    stop_reason: str | None
    """What stopped it before its end, if anything did."""
    exhausted: bool
    """Whether no setting was left that no trial has."""


class Difference(Said):
    """The search's choice minus another setting, paired by seed."""

    mean: float
    """Over the seeds that both have."""
    low: float | None
    """Lower end of its interval; null where all differences are the same."""
    high: float | None
    """Upper end."""


class Confirmed(Said):
    """One setting, trained again."""

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"))

    trial: int
    """Of the search."""
    stopped_at: int | None
    """Fusion epoch at which the search stopped it."""
    seeds: list[int]
    """Those that finished."""
    mean: Metrics
    """Test metrics over seeds."""
    std: Metrics
    """Their sample standard deviation."""
    difference: dict[str, Difference] | None = None
    """By metric, of all settings but the first."""
    is_: Literal["worse", "better", "undecided"] | None = None
    """``is``: how it compares with the search's choice; not there for the choice itself."""


class Verdict(Said):
    """`deepmlf confirm`."""

    settings: list[Confirmed]
    """The search's choice first."""
    differences: dict[str, Difference]
    """Of the first of the others that can be compared."""
    verdict: Literal["holds", "undecided", "fails"]
    """Whether the choice is better than each other, or another is better than it, beyond what seeds may do."""
    objective: str
    """The metric that decides."""
    asked: int
    """Seeds of each setting."""
    baselines: dict[str, Metrics]
    """Test metrics of simple models."""
    unbeaten: list[str]
    """Those that the choice's mean does not beat."""


class CommonFidelity(Said):
    """Where trials are compared."""

    fusion_epochs: int
    """That many of each trial's."""
    reached_by: int
    """Trials that got there."""
    of: int
    """Trials in all."""


class Row(Said):
    """A trial on the leaderboard."""

    rank: int | None
    """1 is the best; null of trials that failed, still run, or repeat another."""
    trial: int
    """Its number."""
    state: str
    """``COMPLETE``, ``PRUNED``, ``FAIL`` or ``RUNNING``."""
    values: list[float]
    """The objectives in its best epoch; none before its first one."""
    epochs: int
    """Fusion epochs that it reached."""
    is_whole: bool
    """Whether it was trained to its end."""
    at_common: float | None
    """The first objective where trials are compared."""
    params: dict[str, Any]
    """What was drawn for it."""
    repeats: int | None
    """The trial whose training it repeats."""
    on_front: bool
    """Whether no other one beats it in all objectives."""


class Point(Said):
    """One setting of a grid, over its seeds."""

    setting: dict[str, Any]
    """What was varied."""
    mean: float
    """Of the first objective."""
    std: float
    """Sample standard deviation; 0 of one seed."""
    seeds: int
    """That finished."""


class Analysed(Said):
    """`deepmlf analyze`."""

    experiment: str
    """Path or URI."""
    report: str | None
    """The page's path or URI; null if the experiment cannot be written."""
    recipe: str | None
    """That the search began with."""
    best_trial: int | None
    """Number of the best one by the first objective."""
    best_folder: str | None
    """Its path or URI."""
    metric: str
    """The first objective."""
    value: float | None
    """Its best value."""
    common_fidelity: CommonFidelity
    """Fusion epochs by which all can be compared, and how many got there."""
    leaderboard: list[Row]
    """All trials, best first."""
    baselines: Metrics
    """The first objective of simple models."""
    unbeaten: list[str]
    """Those that the best trial does not beat."""
    front: list[int]
    """Trials that no other one beats."""
    repeats: Count
    """Trials that train what another one trains, and that one's number."""
    states: Count
    """Trials in each state."""
    trials_unfinished: int
    """That the search has yet to end."""
    failures: dict[str, str]
    """Why trials failed, by number."""
    restarts: dict[str, list[str]]
    """Why trials started again, by number."""
    curve: list[Point]
    """Of a grid over seeds."""
    fusion_epochs_spent: int
    """Of all trials."""
    fusion_epochs_full: int
    """What full training of all would take."""
    fusion_epochs_saved: int
    """What stopped trials did not train."""
    seconds: float
    """What trials took together."""
    seconds_before_fusion: float
    """The part of stages before fusion."""


class Stopped(Said):
    """`deepmlf stop`."""

    experiment: str
    """Its path or URI."""
    was_running: bool
    """Whether a search ran it, which has left by now."""


class Copied(Said):
    """`deepmlf copy`."""

    experiment: str
    """Path or URI of the copy."""
    files: int
    """How many it has."""


class Served(Said):
    """`deepmlf tensorboard` and `watch`, printed as soon as they listen; the command goes on until Ctrl-C."""

    url: str
    """Where it listens."""
