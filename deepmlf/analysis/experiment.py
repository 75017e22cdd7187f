"""The Python face of a search: what the commands do, and an experiment as an object."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepmlf.analysis.leaderboard import trials_table
from deepmlf.analysis.report.notebook import Report, overview
from deepmlf.analysis.report.page import analyze
from deepmlf.analysis.results import results_of
from deepmlf.analysis.standing import Standing, standing_of
from deepmlf.analysis.verdict import confirm as confirm_experiment
from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.changes import SearchChanges
from deepmlf.tune.experiment.layout import PAGE
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.material import get_material
from deepmlf.tune.plan import defaults_for, plan_resume, plan_search
from deepmlf.tune.search import begin, run
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.summary import SearchSummary


@dataclass(frozen=True)
class BestTrial:
    """The best trial of an experiment by its first objective."""

    number: int
    """In the experiment, from 0."""
    folder: str
    """Path or URI, as `evaluate`, `export` and `predict` take it."""
    value: float
    """The objective in its best epoch."""
    params: dict[str, Any]
    """What the search drew for it, by dotted names."""


class Experiment:
    """A search's experiment, finished, stopped or running.

    >>> experiment = Experiment("runs/first")
    >>> experiment.best.params
    {'model.num_fusion_tokens': ...}
    >>> experiment.trials.column_names[:5]
    ['rank', 'trial', 'state', 'fail_reason', 'fusion_epochs']
    >>> experiment.curves.select(["trial", "fusion_epoch", "valid/MAE"]).to_pandas()  # with pandas installed
       trial  fusion_epoch  valid/MAE
    0 ...
    >>> experiment.report()
    '.../runs/first/report/index.html'

    In a notebook it shows its best trials, and what `report` returns the whole page.

    Args:
        place: Its folder or URI.
        study_storage: URL of the study's database, if its password is needed.

    Raises:
        SearchError: If there is none, it is damaged, or its file system cannot be reached.
    """

    def __init__(self, place: str | Path | Place, study_storage: str | None = None) -> None:
        self._place, self._study_storage = Place.of(place), study_storage
        open_experiment(self._place, study_storage)

    def __repr__(self) -> str:
        return f"Experiment({str(self._place)!r})"

    def _repr_html_(self) -> str:
        return overview(self.place, self.trials, self.standing.trials_unfinished)

    @property
    def place(self) -> str:
        """Its path or URI."""
        return str(self._place)

    @property
    def trials(self) -> pa.Table:
        """One row per trial as they are now, best first; ``to_pandas()`` makes a data frame of it.

        ``rank`` is null of trials that failed, still run or repeat another one's training. ``fusion_epochs`` is what a
        trial reached; a column for each objective, under its name, has its best epoch's value; ``seconds`` is what it
        took, stages before fusion included. The other columns are what was drawn, under dotted names.
        """
        experiment = open_experiment(self._place, self._study_storage)
        results = results_of(experiment)
        return trials_table(standing_of(experiment, results).leaderboard, results, experiment.objectives)

    @property
    def curves(self) -> pa.Table:
        """One row per trial and fusion epoch as they are now: metrics, seconds, all settings under dotted names.

        The same as ``results.parquet``. A trial without a finished fusion epoch has one row whose metrics are null.
        """
        return results_of(open_experiment(self._place, self._study_storage))

    @property
    def standing(self) -> Standing:
        """States, failures, epochs spent and saved, all trials best first."""
        return standing_of(open_experiment(self._place, self._study_storage))

    @property
    def best(self) -> BestTrial | None:
        """Its best trial so far, trained to its end or stopped early; None before one has ended."""
        standing = self.standing
        best = standing.leaderboard.best
        if best is None:
            return None
        return BestTrial(best.trial, str(standing.best_folder), best.values[0], dict(best.params))

    def report(self, out: str | Path | None = None) -> Report:
        """Write ``report/index.html`` and ``results.parquet`` into it, and return the page's path or URI.

        It is a string; as the last value of a notebook's cell it shows the page itself.

        Args:
            out: Another folder to write them into, as for an experiment that cannot be written.

        Raises:
            SearchError: If they cannot be written.
        """
        page = analyze(self._place, out=None if out is None else Path(out), quiet=True)["report"]
        if page is None:
            raise SearchError(f"{self._place}: cannot be written, so there is no report; give another folder as `out`")
        return Report(str(page), (self._place.folder if out is None else Path(out)) / PAGE)

    def confirm(self, **options: Any) -> dict[str, Any]:
        """Train the best settings again with fresh seeds and compare them on the test split; see `deepmlf.confirm`."""
        return confirm_experiment(self._place, quiet=True, **options)

    def resume(self, **options: Any) -> "Experiment":
        """Go on with the search to its end; see `deepmlf.resume`."""
        return resume(self._place, study_storage=self._study_storage, **options)


def search(data: str | Path, *, space: str | None = None, lm: str = "smollm2-135m", **settings: Any) -> Experiment:
    """Search for the best DeepMLF, from a dataset to a finished experiment.

    >>> search("runs/mosi", space="mine.py", lm="tiny-random", trials=2, epochs=1, name="second", quiet=True)
    Experiment('.../runs/second')

    Args:
        data: An imported dataset: its folder or URI.
        space: A space's name or a ``.py`` file; None takes that of the dataset's name or size.
        lm: Language model, fetched if it is not on this machine.
        **settings: What else is asked: the fields of :class:`deepmlf.tune.settings.SearchSettings`, as ``trials``,
            ``epochs``, ``concurrent``, ``storage``, ``name``, ``objectives``, ``recipe``, ``overrides``, ``quiet``.

    Raises:
        SearchError: If the experiment exists already, cannot start, or was stopped before its end.
        DeepMLFError: For data, language model, space or settings that cannot be used.
    """
    material = get_material(str(data), lm, *settings.get("more_lms", ()))
    asked = defaults_for(material) | {"data": str(data), "lm": lm} | ({"space": space} if space else {}) | settings
    plan = plan_search(SearchSettings.model_validate(asked), material)
    return _ended(begin(plan), settings.get("study_storage"))


def resume(
    place: str | Path | Place,
    *,
    address: str | None = None,
    time_budget: float | None = None,
    study_storage: str | None = None,
    **changes: Any,
) -> Experiment:
    """Go on with a search after a crash, a kill, Ctrl-C or the end of its time budget, or let it grow.

    >>> resume("runs/first", trials=2, concurrent=2)
    Experiment('.../runs/first')

    Args:
        place: The experiment's folder or URI, wherever it is by now.
        address: Of the Ray cluster to go on with; None takes the one that the search began on.
        time_budget: Seconds for this run; None takes the budget that the search began with.
        study_storage: URL of the study's database, if its password is needed.
        **changes: What is to be other than it was from now on: the fields of
            :class:`deepmlf.tune.changes.SearchChanges`, as ``trials``, ``concurrent``, ``gpus_per_trial``.

    Raises:
        SearchError: If there is no experiment, a driver is still at it, a change cannot be, or it was stopped before
            its end.
    """
    experiment, asked = open_experiment(place, study_storage), SearchChanges.model_validate(changes)
    plan = plan_resume(experiment, address=address, time_budget=time_budget, changes=asked)
    return _ended(run(plan), study_storage)


def _ended(summary: SearchSummary, study_storage: str | None) -> Experiment:
    if summary.stop_reason:
        raise SearchError(f"{summary.experiment}: the search stopped: {summary.stop_reason}")
    return Experiment(summary.experiment, study_storage)
