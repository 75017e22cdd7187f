"""The report of an experiment: one HTML page that opens offline, what to do first and all numbers last."""

import gzip
import json
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import plotly.io
from markupsafe import Markup
from rich.console import Console

from deepmlf.analysis.next_steps import closing_steps, evaluate_command
from deepmlf.analysis.records import Records, TrialRecord, load_records
from deepmlf.analysis.report import figures, headline, scaling, study_figures
from deepmlf.analysis.report.answers import answers
from deepmlf.analysis.report.statements import statement
from deepmlf.analysis.results import results_of, write_results
from deepmlf.analysis.spending import failures_by_reason, rungs_of, spending_of
from deepmlf.analysis.standing import Standing, show_standing, standing_of
from deepmlf.analysis.verdict import unbeaten_line, verdict_line
from deepmlf.config.overrides import as_override
from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError, SearchError, first_line
from deepmlf.files import new_file, why_unwritable
from deepmlf.places import Place
from deepmlf.seal import read_document
from deepmlf.templates import templates_of
from deepmlf.training.reports import TRAINED_PARAMETERS, VALID
from deepmlf.tune.experiment.layout import CONFIRMATIONS, PAGE, VERDICT
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment

_LISTED = 20  # trials of the leaderboard that are seen at once


def analyze(
    place: str | Path | Place, *, out: Path | None = None, quiet: bool = False, hints: bool = True
) -> dict[str, Any]:
    """Print an experiment's summary and write its ``results.parquet`` and its report.

    Args:
        place: The experiment's folder or URI.
        out: Folder to write into, made if missing; None: the experiment's. An experiment that cannot be written, as a
            colleague's, is printed alone.
        quiet: Print nothing.
        hints: Print what to do next, too.

    Returns:
        The standing as scripts are told it, and ``report``, the page's path or URI, or None if it was not written.

    Raises:
        SearchError: If the folder is no experiment, or `out` cannot be written.
    """
    experiment = open_experiment(place)
    if out is not None and (fault := why_unwritable(out)) is not None:
        raise SearchError(f"--out {out}: cannot be written ({fault}); choose another folder")
    table = results_of(experiment)
    records = load_records(experiment, table)
    standing = standing_of(experiment, table, records)
    console = Console(quiet=quiet)
    show_standing(standing, console)
    page, lines = None, []
    try:
        lines.append(f"table: {write_results(experiment, out, table)}")
        page = write_report(records, standing, out)
        lines.append(f"report: {page}")
    except OSError as error:
        where = experiment.place if out is None else f"--out {out}"
        fault = why_unwritable(experiment.folder if out is None else out) or first_line(error)  # Arrow's has no name
        Console(stderr=True, quiet=quiet).print(
            f"deepmlf: {where}: cannot be written ({fault}), so there is no report; --out FOLDER writes it elsewhere",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    steps = closing_steps(experiment, standing.leaderboard, has_looked=True) if hints else []
    for line in [*lines[:1], unfinished_line(standing), *lines[1:], *steps]:
        if line is not None:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    return standing.to_dict() | {"report": page}


def write_report(records: Records, standing: Standing, out: Path | None = None) -> str:
    """Write the page, whole or not at all, into the experiment or another folder, and return its path or URI.

    Args:
        records: The experiment's trials.
        standing: How it stands.
        out: The folder, made if missing; None: the experiment's.

    Raises:
        OSError: If it cannot be written.
    """
    experiment = standing.experiment
    path = (experiment.folder if out is None else out) / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        temporary.write_text(render(records, standing), encoding="utf-8")
    return str(path) if out is not None else experiment.place.publish(PAGE)


def render(records: Records, standing: Standing, live: dict[str, Any] | None = None) -> str:
    """The page's HTML; everything that comes from the experiment is escaped.

    Args:
        records: Its trials.
        standing: How it stands.
        live: The page's own ``version`` and the ``seconds`` between looks for another one, of a page that is served.
    """
    experiment = standing.experiment
    environment = templates_of("deepmlf.analysis.report", html=True)
    environment.filters |= {"short": _decimal, "spelled": _spelled}
    template = environment.get_template("report.html.jinja")
    rungs = rungs_of(records)
    board = standing.leaderboard
    leader, listed = board.best, {trial.number for trial in records.listed}
    best = None if leader is None else next(trial for trial in records.trials if trial.number == leader.trial)
    commands = {} if best is None else _commands(experiment, best)
    confirmations = _confirmations(experiment.folder)
    metrics = list(dict.fromkeys(name for trial in records.trials for name in trial.best if name.startswith(VALID)))
    return template.render(
        live=live,
        records=records,
        name=experiment.folder.name,
        unfinished=unfinished_line(standing),
        best=best,
        first_screen=best and headline.first_screen(records, standing, best, confirmations, commands),
        board=board,
        rows=[row for row in board.rows if row.trial in listed],
        board_listed=_LISTED,
        missing=standing.missing,
        front=standing.front if len(records.objectives) > 1 else [],
        metrics=metrics,
        shown=list(dict.fromkeys([*(one.name for one in records.objectives), *metrics, TRAINED_PARAMETERS])),
        last_epoch=max((trial.epochs for trial in records.trials), default=0),
        confirmations=confirmations,
        verdict_line=verdict_line,
        unbeaten_line=unbeaten_line,
        commands=commands,
        answers=[
            (one, statement(one, records), figures.question(one, records.objectives[0])) for one in answers(records)
        ],
        rungs=rungs,
        survivors=figures.survivors(rungs),
        curves=figures.learning_curves(records, rungs),
        spending=spending_of(records),
        failures=failures_by_reason(records),
        **_plots_of_settings(records),
        **_plots_of_costs(records),
        plotly=Markup(_plotly()),
        themes=Markup(json.dumps(_themes()).replace("<", "\\u003c")),
    )


def _plots_of_settings(records: Records) -> dict[str, Any]:
    """What mattered, under the template's names."""
    each = range(len(records.objectives))
    mattered = [study_figures.importances(records, index) for index in each]
    alone = [study_figures.explained(records, index) for index in each]
    order = study_figures.by_importance(mattered[0][1], alone[0][1], records)
    return {
        "histories": [study_figures.history(records, index) for index in each],
        "mattered": mattered,
        "alone": [plot for plot, _ in alone],
        "parallel": study_figures.parallel_coordinates(records, order),
        "slices": study_figures.slices(records, order),
        "together": study_figures.together(records, order, stands_out=bool(mattered[0][1])),
    }


def _plots_of_costs(records: Records) -> dict[str, Any]:
    """Quality against size and time, under the template's names."""
    parameters, seconds = "trained parameters", "seconds per utterance"
    return {
        "scaling": scaling.plots(records),
        "parameters": figures.pareto(
            records, f"Quality against {parameters}", parameters, lambda trial: trial.best.get(TRAINED_PARAMETERS)
        ),
        "speed": figures.pareto(records, "Quality against time", seconds, lambda trial: trial.seconds_per_utterance),
    }


def unfinished_line(standing: Standing) -> str | None:
    """What to know of an experiment whose search is not at its end; None if it is."""
    if not standing.trials_unfinished:
        return None
    wanted = standing.experiment.manifest.settings.trials
    ended = wanted - standing.trials_unfinished
    so_far = f"{ended} of {wanted} trials have ended" if ended else f"none of {wanted} trials has ended"
    place = standing.experiment.place
    return f"{so_far}: the search is still running, or `deepmlf resume {place}` goes on with it"


def _commands(experiment: StoredExperiment, best: TrialRecord) -> dict[str, str]:
    """What to do with the best trial, as command lines."""
    folder = shlex.quote(str(experiment.place_of_trial(best.number)))
    again = {"confirm": f"deepmlf confirm {shlex.quote(str(experiment.place))}"}
    again["evaluate"] = evaluate_command(experiment, best.number)
    again["export"] = f"deepmlf export {folder} exported"
    defaults = TrialConfig().flat()
    try:
        config = TrialConfig.from_overrides(best.settings).flat()
    except ConfigError:  # of an older version, whose settings have other names
        return again
    changed = [as_override(name, value) for name, value in config.items() if value != defaults[name]]
    options = [f"--set {shlex.quote(option)}" for option in changed if not option.startswith("data.path=")]
    again["train"] = " ".join(["deepmlf train", shlex.quote(experiment.manifest.settings.data), *options])
    return again


def _confirmations(experiment: Path) -> list[dict[str, Any]]:
    """What `confirm` found, the newest first."""
    paths = sorted(experiment.glob(f"{CONFIRMATIONS}/{VERDICT}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [read_document(path) for path in paths]


def _plotly() -> str:
    """The part of plotly.js that draws points, lines and bars: a fourth of the whole, which `plotly` brings."""
    packed = resources.files("deepmlf.analysis.report").joinpath("static/plotly-basic.min.js.gz").read_bytes()
    return gzip.decompress(packed).decode()


def _themes() -> dict[str, Any]:
    """Plotly's templates for light and dark pages."""
    return {
        "light": plotly.io.templates["plotly_white"].to_plotly_json(),
        "dark": plotly.io.templates["plotly_dark"].to_plotly_json(),
    }


def _decimal(value: Any) -> str:
    """A number to four decimals, or significant digits where they would say nothing; anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"
    return str(value)


def _spelled(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "–"
