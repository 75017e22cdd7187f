"""What a search shows while it runs: one screen in a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from deepmlf.tables import whole_table, width_of
from deepmlf.training.curriculum import Underway
from deepmlf.training.reports import EPOCH_SECONDS, EpochReport, Seconds, seconds_of
from deepmlf.tune.decide.scheduler import Rung
from deepmlf.tune.objective import Objective

_REFRESH_SECONDS = 0.5
_ENDED = ("COMPLETE", "PRUNED", "FAIL")
UNFINISHED = "unfinished"
"""What a trial is that an interrupted search has begun: a resume goes on with it."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial under way."""

    number: int
    reports: Sequence[EpochReport]
    """What it has reported, epoch by epoch."""
    best: Mapping[str, float]
    """Those of its best epoch, by short name."""
    underway: Underway
    """Where it stands."""
    params: Mapping[str, Any]
    """What was drawn for it."""
    awaited: str | None = None
    """What another process makes that it waits for, if it does."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end of its training if nothing stops it; None before its first epoch of fusion.

        Epochs before fusion take so much less time that they tell nothing about it.
        """
        times = [report.get(EPOCH_SECONDS) for report in self.reports if report.fidelity is not None]
        recent = sorted([seconds for seconds in times if seconds is not None][-3:])
        return self.underway.epochs_left * recent[len(recent) // 2] if recent else None

    @property
    def doing(self) -> str:
        """What it does now."""
        if self.awaited is not None:
            return f"waits for {self.awaited}"
        return self.underway.words if self.reports else "starts"


@dataclass(frozen=True)
class Best:
    """The best finished trial."""

    number: int
    value: float
    params: Mapping[str, Any]


class SearchScreen:
    """Shows how a search goes.

    Args:
        console: Where; on a terminal a screen is kept up to date, elsewhere lines are printed.
        name: Of the experiment.
        objectives: What is shown of a trial.
        trials: Asked for in all.
        ended: Of them, those that earlier drivers have finished.
        rungs: The scheduler's rungs as they stand.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        objectives: tuple[Objective, ...],
        *,
        trials: int,
        ended: int,
        rungs: Callable[[], list[Rung]],
    ) -> None:
        self._console, self._name, self._objectives = console, name, objectives
        self._trials, self._ended_before, self._read_rungs = trials, ended, rungs
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._started = time.monotonic()
        self._next_refresh = 0.0
        self._is_stopping = False

    @property
    def is_due(self) -> bool:
        """Whether there is a screen, and it has not been drawn just now."""
        return self._live is not None and time.monotonic() >= self._next_refresh

    def draw(
        self, running: Sequence[RunningTrial], states: Mapping[str, int], best: Best | None, ended: Seconds
    ) -> None:
        """Draw the screen.

        Args:
            running: The trials under way.
            states: How many trials are in each state, those of earlier drivers included.
            best: The best finished trial so far, by the first objective.
            ended: What trials took that have ended, those of earlier drivers included.
        """
        if self._live is None:
            return
        if not self._live.is_started:
            self._live.start()
        self._live.update(self.screen(running, states, best, ended), refresh=True)
        self._next_refresh = time.monotonic() + _REFRESH_SECONDS

    def screen(
        self, running: Sequence[RunningTrial], states: Mapping[str, int], best: Best | None, ended: Seconds
    ) -> Group:
        """The screen; as `draw` takes them."""
        finished = sum(states.get(state, 0) for state in _ENDED)
        seconds = time.monotonic() - self._started
        by_this_driver = finished - self._ended_before
        counts = ", ".join(f"{states[state]} {state}" for state in _ENDED if states.get(state))
        if self._is_stopping and running:
            counts += f"{', ' if counts else ''}{len(running)} {UNFINISHED}"
        left = (
            f", about {duration(seconds / by_this_driver * (self._trials - finished))} left"
            if by_this_driver and not self._is_stopping
            else ""
        )
        head = f"{self._name}: {finished} of {self._trials} trials" + (f" ({counts})" if counts else "")
        parts: list[Any] = [Text(f"{head}; {duration(seconds)}{left}", style="bold")]
        if best is not None:
            settings = settings_line(best.params)
            parts.append(Text(f"best {self._objectives[0].name} {best.value:.4f}, trial {best.number}: {settings}"))
        footer = self._footer(running, by_this_driver / seconds if seconds else 0.0)
        spent = sum((seconds_of(trial.reports) for trial in running), ended)
        if spent.total:
            footer.append(time_line(spent))
        below = [Text(line, style="dim") for line in footer]
        return Group(*parts, *self._trials_shown(running, best, beside=[*parts, *below]), *below)

    def epoch(self, number: int, words: str, report: EpochReport) -> None:
        """Say that a trial has reported an epoch, where there is no screen; `words` are what the epoch is called."""
        if self._live is None:
            first = self._objectives[0].name
            value = report.get(first)
            shown = f"loss {report.get('train/loss'):.4f}" if value is None else f"{first} {value:.4f}"
            self.say(f"trial {number}: {words}, {shown}")

    def waits(self, number: int, awaited: str) -> None:
        """Say that a trial waits, where there is no screen."""
        if self._live is None:
            self.say(f"trial {number}: waits for {awaited}")

    def ended(self, number: int, state: str, reason: str | None, states: Mapping[str, int], best: Best | None) -> None:
        """Say that a trial has ended, where there is no screen; `states` and `best` as `draw` takes them."""
        if self._live is None:
            ended = sum(states.get(name, 0) for name in _ENDED)
            so_far = "" if best is None else f", best {self._objectives[0].name} {best.value:.4f} (trial {best.number})"
            why = f" ({reason})" if reason else ""
            self.say(f"trial {number}: {state}{why}; {ended} of {self._trials}{so_far}")

    def say(self, line: str) -> None:
        """Print a line; above the screen, if there is one."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def stopping(self) -> None:
        """Say that Ctrl-C was seen; trials that are under way count as unfinished from here on."""
        self._is_stopping = True
        self.say("stopping after this step; again to stop now")

    def close(self) -> None:
        """Leave the screen as it is last drawn."""
        if self._live is not None:
            self._live.stop()

    def _trials_shown(
        self, running: Sequence[RunningTrial], best: Best | None, beside: Sequence[RenderableType]
    ) -> list[RenderableType]:
        """The trials under way, with their settings as far as the terminal has lines for them."""
        rows = self._rows(running)
        if not running:
            return [rows]
        settings = [Text(line, style="dim") for line in _differences(running, best)]
        room = self._console.height - 1
        if self._lines([*beside, rows, *settings]) <= room:
            return [rows, *settings]
        for count in range(len(running), 0, -1):
            more = [Text(f"and {len(running) - count} more trials", style="dim")] if count < len(running) else []
            rows = self._rows(running[:count])
            if count == 1 or self._lines([*beside, rows, *more]) <= room:
                return [rows, *more]
        raise AssertionError("one trial is always shown")

    def _lines(self, parts: Sequence[RenderableType]) -> int:
        return len(self._console.render_lines(Group(*parts), pad=False))

    def _rows(self, running: Sequence[RunningTrial]) -> RenderableType:
        """A table, or where a number in it would have to be cut a line for each trial."""
        columns = [column for objective in self._objectives for column in (objective.name, f"best {objective.short}")]
        table = whole_table("trial", "stage, epochs", *columns, "left")
        for column in (table.columns[0], *table.columns[2:]):
            column.no_wrap = True
        for trial in running:
            seconds = trial.seconds_left
            left = "" if seconds is None else duration(seconds)
            table.add_row(str(trial.number), trial.doing, *self._values(trial), left)
        table.columns[1].min_width = max(map(len, (trial.underway.words for trial in running)), default=0)
        if width_of(self._console, table).minimum <= self._console.width:
            return table
        return Group(*(Text(self._line(trial)) for trial in running))

    def _line(self, trial: RunningTrial) -> str:
        names = [name for objective in self._objectives for name in (objective.name, f"best {objective.short}")]
        values = [f"{name} {value}" for name, value in zip(names, self._values(trial), strict=True) if value]
        left = [] if trial.seconds_left is None else [f"{duration(trial.seconds_left)} left"]
        return f"trial {trial.number}: " + ", ".join([trial.doing, *values, *left])

    def _values(self, trial: RunningTrial) -> list[str]:
        """Each objective in the last epoch and in the best one."""
        last = trial.reports[-1] if trial.reports else EpochReport({})
        values = [value for one in self._objectives for value in (last.get(one.name), trial.best.get(one.short))]
        return ["" if value is None else f"{value:.4g}" for value in values]

    def _footer(self, running: Sequence[RunningTrial], trials_per_second: float) -> list[str]:
        lines = []
        rungs = [
            f"fusion epoch {rung.epochs}: {rung.trials} trials"
            + ("" if rung.cutoff is None else f", cut-off {rung.cutoff:.4g}")
            for rung in self._read_rungs()
        ]
        if rungs:
            lines.append("rungs: " + "; ".join(rungs))
        speed = sum(trial.reports[-1].get("speed/utterances_per_second", 0.0) for trial in running if trial.reports)
        pace = [f"{speed:.0f} utterances/s"] if speed else []
        if trials_per_second:
            pace.append(f"{3600 * trials_per_second:.0f} trials/h")
        if pace:
            lines.append(", ".join(pace))
        return lines


def duration(seconds: float) -> str:
    """Seconds in words of one or two units, e.g. ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def time_line(seconds: Seconds) -> str:
    """What trials have taken, and the part of it that no fidelity counts, e.g. ``2 h 5 min, 12 min before fusion``."""
    return f"{duration(seconds.total)} of trials, {duration(seconds.before_fusion)} of it before fusion"


def settings_line(params: Mapping[str, Any]) -> str:
    """Settings on one line, e.g. ``model.fusion_depth=5, training.lr_fusion=0.0001``."""
    return ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _differences(running: Sequence[RunningTrial], best: Best | None) -> list[str]:
    """What was drawn for each trial under way, as far as it is not what the best one has."""
    if best is None:
        return [f"trial {trial.number}: {settings_line(trial.params)}" for trial in running if trial.params]
    lines = []
    for trial in running:
        differs = {name: value for name, value in trial.params.items() if best.params.get(name, ...) != value}
        if differs:
            lines.append(f"trial {trial.number}, unlike the best: {settings_line(differs)}")
    return lines
