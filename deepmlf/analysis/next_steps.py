"""What to do after a search, as command lines: look, confirm, test; and what a small search lacks."""

import shlex
from dataclasses import dataclass

from deepmlf.analysis.fidelity import NEEDED_FOR_IMPORTANCE, NEEDED_FOR_PLOT
from deepmlf.analysis.leaderboard import Leaderboard
from deepmlf.config.overrides import as_override
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.settings import SearchSettings

_USEFUL_TRIALS = 20  # where one setting matters much, so many show it
_UNGUIDED = ("grid", "random")


@dataclass(frozen=True)
class Missing:
    """What too few trials leave out."""

    what: str
    command: str
    """It gets more of them."""

    def __str__(self) -> str:
        return f"{self.what}. More of them: {self.command}"


def what_is_missing(experiment: StoredExperiment, board: Leaderboard, *, is_unfinished: bool) -> Missing | None:
    """What too few trials leave out; None if there are enough of them.

    Args:
        experiment: The experiment.
        board: Its leaderboard.
        is_unfinished: Whether its search has trials to go.
    """
    common = board.common
    compared = sum(row.trial in common.values and row.repeats is None for row in board.rows)
    if compared >= NEEDED_FOR_IMPORTANCE:
        return None
    lacks = [f"importances need {NEEDED_FOR_IMPORTANCE}"]
    if compared < NEEDED_FOR_PLOT:
        lacks.insert(0, f"plots of settings need {NEEDED_FOR_PLOT}")
    have = f"{compared} trial{'s' if compared != 1 else ''} can be compared ({common.where})"
    goes_on = is_unfinished and experiment.manifest.settings.trials >= NEEDED_FOR_IMPORTANCE
    command = resume_command(experiment) if goes_on else more_command(experiment)
    return Missing(f"{have}; {', '.join(lacks)}", command)


def closing_steps(experiment: StoredExperiment, board: Leaderboard, *, has_looked: bool) -> list[str]:
    """What to do next, a line each: look at it, confirm, test.

    Args:
        experiment: The experiment.
        board: Its leaderboard.
        has_looked: Whether `deepmlf analyze` is what has just been done.
    """
    place, best = shlex.quote(str(experiment.place)), board.best
    lines = [] if has_looked else [f"What came of it: deepmlf analyze {place}"]
    if len(board.ranked) > 1:
        lines.append(f"Whether it holds: deepmlf confirm {place}")
    if best is not None:
        lines.append(f"Test metrics of the best: {evaluate_command(experiment, best.trial)}")
    return lines


def evaluate_command(experiment: StoredExperiment, trial: int) -> str:
    """The command that measures a trial's best epoch on the test split."""
    return f"deepmlf evaluate {shlex.quote(str(experiment.place_of_trial(trial)))} --split test"


def resume_command(experiment: StoredExperiment) -> str:
    """The command that goes on with a search."""
    return f"deepmlf resume {shlex.quote(str(experiment.place))}"


def more_command(experiment: StoredExperiment) -> str:
    """The command of a further, larger search of the same kind, which learns from this one if its sampler can."""
    settings, defaults = experiment.manifest.settings, SearchSettings(data="", space="")
    words = ["deepmlf", "search", settings.data, "--space", settings.space]
    words += [word for lm in settings.all_lms for word in ("--lm", lm)]
    if settings.sampler != "grid":  # which has as many as it has points
        words += ["--trials", str(max(_USEFUL_TRIALS, settings.trials))]
    words += ["--epochs", str(settings.epochs)]
    for option in ("storage", "scheduler", "around", "recipe", "concurrent", "cpus_per_trial", "reduction_factor"):
        value = getattr(settings, option)
        if value != getattr(defaults, option):
            words += [f"--{option.replace('_', '-')}", str(value)]
    if settings.objectives != defaults.objectives:
        words += ["--objective", ",".join(settings.objectives)]
    words += [word for name, value in settings.overrides.items() for word in ("--set", as_override(name, value))]
    if settings.sampler in _UNGUIDED:
        words += ["--sampler", settings.sampler, "--seed", str(settings.seed + 1)]
    else:
        words += ["--warm-start", str(experiment.place)]
    return shlex.join(words)
