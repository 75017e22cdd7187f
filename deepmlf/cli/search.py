"""`deepmlf search`, `resume`, `confirm` and `analyze`: experiments."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepmlf.cli.completion import folders, language_models, metrics, published, samplers, schedulers, spaces
from deepmlf.cli.options import (
    PATH,
    address_option,
    cache_option,
    experiment_argument,
    keep_option,
    recipe_option,
    set_option,
    study_storage_option,
    time_budget_option,
    verbose_option,
)
from deepmlf.cli.output import as_json, complain, emit, hint, is_quiet
from deepmlf.cli.texts import limit_of_space, tell_cut_texts
from deepmlf.config.overrides import read_overrides
from deepmlf.config.trial import SEED_LIMIT

if TYPE_CHECKING:  # they import what --help must not wait for
    from deepmlf.tune.experiment.stored import StoredExperiment
    from deepmlf.tune.summary import SearchSummary

DEMO_LAYERS = 8


@click.command()
@click.argument("dataset", metavar="[DATA]", required=False, shell_complete=folders)
@click.option("--space", shell_complete=spaces, help="A space's name or a .py file; default: the dataset's name.")
@click.option("--lm", "lms", default=["smollm2-135m"], multiple=True, show_default=True, shell_complete=language_models,
              help="Language model, as `deepmlf lm get` knows it; with several, trials draw one.")  # fmt: skip
@click.option("--trials", default=None, type=click.IntRange(1), help="Trials in all (default 20; of a grid all).")
@click.option("--epochs", default=None, type=click.IntRange(1), help="Fusion epochs of a full trial (default 15).")
@click.option("--concurrent", default=None, type=click.IntRange(1), help="Trials at a time (default 1).")
@click.option("--cpus-per-trial", default=1.0, type=click.FloatRange(0, min_open=True), show_default=True)
@click.option("--gpus-per-trial", default=None, type=click.FloatRange(0),
              help="0: train on CPUs; default: a share of the GPUs that there are.")  # fmt: skip
@click.option(
    "--storage", default="runs", show_default=True, shell_complete=folders, help="Folder or URI of experiments."
)
@click.option("--name", help="Name of the experiment; default: space and time.")
@address_option
@click.option("--seed", default=0, type=click.IntRange(0, SEED_LIMIT - 1), show_default=True)
@click.option("--objective", "objectives", multiple=True, metavar="METRIC[,METRIC]", shell_complete=metrics,
              help="What to optimise (default valid/MAE); two give a Pareto front.")  # fmt: skip
@click.option("--around", metavar="PUBLISHED|EXPERIMENT", shell_complete=published,
              help="Fix mosi, mosei, mosei_large, sims or an experiment's best in place of BASE.")  # fmt: skip
@click.option("--sampler", default="auto", show_default=True, shell_complete=samplers,
              help="auto, mixed, curves, tpe, random, gp, cmaes, grid or nsga2.")  # fmt: skip
@click.option("--no-priors", "priors", is_flag=True, default=True, flag_value=False,
              help="Leave out the settings that the space evaluates first.")  # fmt: skip
@click.option("--scheduler", default="asha", show_default=True, shell_complete=schedulers,
              help="asha, hyperband, median or none.")  # fmt: skip
@click.option("--first-rung", "grace_period", default=None, type=click.IntRange(1),
              help="Fusion epochs before a trial may be stopped (default a fifth of --epochs).")  # fmt: skip
@click.option("--reduction-factor", default=3, type=click.IntRange(2), show_default=True,
              help="asha and hyperband: one trial in so many goes on from a rung.")  # fmt: skip
@click.option("--warm-start", metavar="EXPERIMENT", shell_complete=folders,
              help="Learn from an earlier experiment's finished trials.")  # fmt: skip
@click.option("--max-failures", default=3, type=click.IntRange(0), show_default=True,
              help="Restarts of a trial whose worker or node died.")  # fmt: skip
@click.option("--trial-timeout", metavar="2h", help="Restart a trial that has not reported for so many s, m or h.")
@cache_option
@keep_option
@time_budget_option
@study_storage_option
@verbose_option
@recipe_option
@set_option
@as_json
def search(
    dataset: str | None,
    lms: tuple[str, ...],
    pairs: tuple[str, ...],
    objectives: tuple[str, ...],
    time_budget: str | None,
    trial_timeout: str | None,
    json_output: bool,
    **options: Any,
) -> None:
    """Search; without DATA on the synthetic set with the first 8 layers of smollm2-135m."""
    overrides = read_overrides(pairs)
    from deepmlf.tune.space.base import check_given

    check_given(overrides)
    from deepmlf.progress import steps
    from deepmlf.tune.material import get_material
    from deepmlf.tune.plan import defaults_for, plan_search

    data = str(_demo_data()) if dataset is None else dataset
    with steps() as say:
        material = get_material(data, *lms, progress=say)
    if dataset is None:
        defaults: dict[str, Any] = {"space": "demo", "trials": 8, "epochs": 9, "concurrent": 2}
        shallowest = min(facts.num_layers for facts in material.facts.values())
        overrides = {"model.lm_layers": min(DEMO_LAYERS, shallowest)} | overrides
    else:
        defaults = defaults_for(material)
    from deepmlf.tune.experiment.manifest import read_manifest
    from deepmlf.tune.search import begin
    from deepmlf.tune.settings import SearchSettings, parse_duration

    if options["sampler"] == "grid":
        defaults.pop("trials", None)  # all points, unless --trials is given
    defaults |= {"lm": lms[0], "more_lms": lms[1:]}
    chosen = defaults | {name: value for name, value in options.items() if value is not None}
    if objectives:
        chosen["objectives"] = [name.strip() for option in objectives for name in option.split(",")]
    if time_budget is not None:
        chosen["time_budget"] = parse_duration(time_budget)
    if trial_timeout is not None:
        chosen["trial_timeout"] = parse_duration(trial_timeout, "--trial-timeout")
    plan = plan_search(SearchSettings(data=data, overrides=overrides, **chosen), material)
    if limit := limit_of_space(plan.space):
        for lm in plan.settings.all_lms:
            tell_cut_texts(material.dataset, lm, limit, ("train", "valid"))  # the test split is not read
    summary, planned = begin(plan), plan.experiment
    _end_search(summary, planned.with_manifest(read_manifest(planned.place)), json_output)


def _demo_data() -> Path:
    from deepmlf.data.synthetic import make_synthetic
    from deepmlf.places import home

    folder = home() / "data" / "synthetic"
    if not (folder / "info.json").is_file():
        make_synthetic(folder)
    return folder


@click.command()
@experiment_argument
@click.option("--trials", type=click.IntRange(1), help="Trials in all, from now on.")
@click.option("--concurrent", type=click.IntRange(1), help="Trials at a time, from now on.")
@click.option("--cpus-per-trial", type=click.FloatRange(0, min_open=True), help="From now on.")
@click.option("--gpus-per-trial", type=click.FloatRange(0), help="From now on; a search that began on CPUs has 0.")
@click.option("--epochs", type=click.IntRange(1), help="As the search has them: others are another search.")
@click.option("--data", help="Where the same dataset is now.")
@address_option
@time_budget_option
@study_storage_option
@verbose_option
@as_json
def resume(
    experiment: str,
    address: str | None,
    time_budget: str | None,
    study_storage: str | None,
    verbose: bool,
    json_output: bool,
    **changes: Any,
) -> None:
    """Go on with a search after a crash, a kill, Ctrl-C, the loss of its cluster or the end of its time budget.

    What else is given holds from now on, for later resumes, too: a search may grow.
    """
    from deepmlf.tune.changes import SearchChanges
    from deepmlf.tune.experiment.stored import open_experiment
    from deepmlf.tune.plan import plan_resume
    from deepmlf.tune.search import run
    from deepmlf.tune.settings import parse_duration

    budget = None if time_budget is None else parse_duration(time_budget)
    opened, asked = open_experiment(experiment, study_storage), SearchChanges(**changes)
    plan = plan_resume(opened, address=address, time_budget=budget, verbose=verbose, changes=asked)
    _end_search(run(plan), plan.experiment, json_output)


def _end_search(summary: "SearchSummary", experiment: "StoredExperiment", json_output: bool) -> None:
    from rich.console import Console

    from deepmlf.analysis.next_steps import closing_steps
    from deepmlf.analysis.results import results_of, write_results
    from deepmlf.analysis.standing import show_standing, standing_of
    from deepmlf.errors import SearchError

    results = results_of(experiment)
    table, standing = write_results(experiment, table=results), standing_of(experiment, results)
    show_standing(standing, Console(), nobody_trains=True)
    click.echo(f"table: {table}")
    emit(summary.model_dump() | {"best_folder": standing.best_folder}, json_output)
    shown = shlex.quote(summary.experiment)
    if summary.stop_reason:
        raise SearchError(f"the search stopped: {summary.stop_reason}")
    if summary.out_of_time:
        complain(f"the time budget is spent; go on with `deepmlf resume {shown}`")
    elif summary.interrupted:
        complain(f"stopped; go on with `deepmlf resume {shown}`")
        sys.exit(130)
    hint(f"TensorBoard: deepmlf tensorboard {shown}")
    for line in closing_steps(experiment, standing.leaderboard, has_looked=False):
        hint(line)


@click.command()
@experiment_argument
@click.option("--top", default=3, type=click.IntRange(2), show_default=True, help="Settings to train again.")
@click.option("--seeds", default=5, type=click.IntRange(2), show_default=True, help="Seeds of each.")
@click.option("--concurrent", type=click.IntRange(1), help="Trials at a time; default: as in the search.")
@address_option
@as_json
def confirm(
    experiment: str, top: int, seeds: int, concurrent: int | None, address: str | None, json_output: bool
) -> None:
    """Train the best settings again with fresh seeds; test metrics, and whether the search's choice holds."""
    from deepmlf.analysis.next_steps import evaluate_command
    from deepmlf.analysis.verdict import confirm as run_confirm
    from deepmlf.tune.experiment.stored import open_experiment

    report = run_confirm(experiment, top=top, seeds=seeds, concurrent=concurrent, address=address)
    emit(report, json_output)
    choice = report["settings"][0]["trial"]
    hint(f"Test metrics of the choice as searched: {evaluate_command(open_experiment(experiment), choice)}")


@click.command()
@experiment_argument
@click.option("--out", type=PATH, help="Folder to write into, as for a read-only experiment; default: EXPERIMENT.")
@as_json
def analyze(experiment: str, out: Path | None, json_output: bool) -> None:
    """Leaderboard, states, epochs saved; writes report/index.html and results.parquet."""
    from deepmlf.analysis.report.page import analyze as run_analyze

    emit(run_analyze(experiment, out=out, hints=not is_quiet()), json_output)
