"""The command line: parse, build a config, call one function. Heavy imports happen inside commands."""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from deepmlf import __version__
from deepmlf.config import TrialConfig, read_overrides, read_toml
from deepmlf.errors import DeepMLFError

DEMO_LAYERS = 8
_PATH = click.Path(path_type=Path)

as_json = click.option("--json", "json_output", is_flag=True, help="Last line of stdout is one JSON object.")
time_budget_option = click.option("--time-budget", metavar="2h", help="Stop after so many s, m or h; resumable.")
study_storage_option = click.option(
    "--study-storage",
    metavar="URL",
    help="Database of the Optuna study; resume takes its password from here or from DEEPMLF_STUDY_STORAGE.",
)
cache_option = click.option(
    "--cache-gb", default=10.0, show_default=True, help="Disk for the frozen part of texts, on each node; 0: none."
)
keep_option = click.option(
    "--keep",
    default=1,
    type=click.IntRange(1),
    show_default=True,
    help="Newest checkpoints that stay on disk per trial.",
)
experiment_argument = click.argument("experiment", metavar="EXPERIMENT")
set_option = click.option("--set", "pairs", multiple=True, metavar="K=V", help="Override a setting by its dotted name.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show stack traces.")
def cli(debug: bool) -> None:
    """Find the best DeepMLF for your data: how deep to fuse, with how many tokens, under which curriculum."""


def main() -> None:
    """Entry point: errors meant for users are one line on stderr and exit status 2."""
    try:
        cli.main(standalone_mode=False)
    except DeepMLFError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(f"deepmlf: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("deepmlf: interrupted", err=True)
        sys.exit(130)


def _emit(result: dict[str, Any], json_output: bool) -> None:
    if json_output:
        click.echo(json.dumps(result))


@cli.group()
def data() -> None:
    """Import, make and describe datasets."""


@data.command("import")
@click.argument("pickle", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--dataset", default="mosi", show_default=True, help="mosi, mosei or sims: metrics and label range.")
@click.option("--lowercase", is_flag=True, help="Lower-case texts, e.g. ASR transcripts.")
@as_json
def data_import(pickle: Path, out: Path, dataset: str, lowercase: bool, json_output: bool) -> None:
    """Import an MMSA pickle into a memory-mapped dataset folder."""
    from deepmlf.data.mmsa import import_mmsa

    info = import_mmsa(pickle, out, dataset, lowercase)
    for modality in info.missing:
        click.echo(f"deepmlf: {modality} is absent (all zero) and will not be used", err=True)
    counts = ", ".join(f"{count} {name}" for name, count in info.splits.items())
    click.echo(f"{out}: {counts}; audio {info.audio_dim}, vision {info.vision_dim} features")
    _emit(info.model_dump(include={"name", "fingerprint", "splits", "missing"}), json_output)


@data.command("synthetic")
@click.argument("out", type=_PATH)
@click.option("--seed", default=0, show_default=True)
@click.option("--size", default=512, show_default=True, help="Train utterances; a quarter of it in valid and test.")
@as_json
def data_synthetic(out: Path, seed: int, size: int, json_output: bool) -> None:
    """Write a seeded set on which fusion must beat every single modality."""
    from deepmlf.data.synthetic import make_synthetic, reachable_mae

    info = make_synthetic(out, seed=seed, sizes=(size, max(2, size // 4), max(2, size // 4)))
    best = reachable_mae()
    click.echo(f"{out}: best reachable MAE " + ", ".join(f"{value:.2f} from {name}" for name, value in best.items()))
    _emit({"fingerprint": info.fingerprint, "splits": info.splits, "reachable_mae": best}, json_output)


@data.command("info")
@click.argument("folder", type=_PATH)
@as_json
def data_info(folder: Path, json_output: bool) -> None:
    """Print splits, lengths, label histogram, dimensions and missing modalities."""
    from deepmlf.data.dataset import Dataset, describe

    facts = describe(Dataset.open(folder))
    for name, value in facts.items():
        if name != "splits":
            click.echo(f"{name}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
    for split, details in facts["splits"].items():
        click.echo(f"{split}: {details['utterances']} utterances")
        for kind in ("words", "audio_frames", "vision_frames"):
            click.echo("  {}: {min:g} to {max:g}, median {median:g}".format(kind, **details[kind]))
        click.echo("  labels: " + ", ".join(f"{label}: {count}" for label, count in details["labels"].items()))
    _emit(facts, json_output)


@cli.group()
def lm() -> None:
    """Make language models available offline."""


@lm.command("get")
@click.argument("name")
@as_json
def lm_get(name: str, json_output: bool) -> None:
    """Fetch or convert a language model: a hub id, a folder, a .gguf file, or smollm2-135m."""
    from deepmlf.model import lm_store

    folder = lm_store.get(name)
    click.echo(f"{name}: {folder}")
    _emit({"name": name, "folder": str(folder), "layers": lm_store.facts(name).num_layers}, json_output)


@cli.command()
@click.argument("dataset", type=_PATH, metavar="DATA")
@click.option("--config", type=_PATH, help="TOML file of settings.")
@set_option
@cache_option
@keep_option
@click.option("--out", type=_PATH, default=Path("runs/train"), show_default=True, help="Folder of the trial.")
@as_json
def train(
    dataset: Path,
    config: Path | None,
    pairs: tuple[str, ...],
    cache_gb: float,
    keep: int,
    out: Path,
    json_output: bool,
) -> None:
    """Train one DeepMLF; run it again to resume."""
    overrides = (read_toml(config) if config else {}) | {"data.path": str(dataset.absolute())} | read_overrides(pairs)
    trial = TrialConfig.from_overrides(overrides)
    from rich.console import Console
    from rich.progress import Progress

    from deepmlf.training.checkpoint import latest_checkpoint
    from deepmlf.training.curriculum import stages_of
    from deepmlf.training.metrics import is_better
    from deepmlf.training.tensorboard import TrialWriter
    from deepmlf.training.trainer import train as run_train

    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(trial.to_json())
    resume_from = latest_checkpoint(out)
    writer = TrialWriter(out)
    writer.start({name: value for name, value in trial.flat().items() if name in overrides})
    best: dict[str, float] = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("epochs", total=sum(stage.epochs for stage in stages_of(trial)))

        def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
            valid = {n.removeprefix("valid/"): v for n, v in metrics.items() if n.startswith("valid/")}
            selected = trial.training.select_by
            if valid and is_better(selected, valid[selected], best.get(selected)):
                best.update(valid)
            writer.write(metrics, best)
            progress.update(task, completed=metrics["epoch"], description=str(metrics["stage"]))
            shown = valid or {"loss": metrics["train/loss"]}
            line = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
            progress.console.print(f"{metrics['stage']} epoch {metrics['epoch']}: {line}", highlight=False)

        run_train(trial, report, out_dir=out, resume_from=resume_from, cache_gb=cache_gb, keep=keep)
    writer.close("COMPLETE")
    _emit({"folder": str(out), "valid": best}, json_output)


@cli.command()
@click.argument("dataset", metavar="[DATA]", required=False)
@click.option("--space", help="A space's name or a .py file; default: the dataset's name.")
@click.option("--lm", default="smollm2-135m", show_default=True, help="Language model, as `deepmlf lm get` knows it.")
@click.option("--trials", default=None, type=click.IntRange(1), help="Trials in all (default 20).")
@click.option("--epochs", default=None, type=click.IntRange(1), help="Fusion epochs of a full trial (default 15).")
@click.option("--concurrent", default=None, type=click.IntRange(1), help="Trials at a time (default 1).")
@click.option("--cpus-per-trial", default=1.0, show_default=True)
@click.option("--gpus-per-trial", default=0.0, show_default=True)
@click.option("--storage", default="runs", show_default=True, help="Folder or URI of experiments.")
@click.option("--name", help="Name of the experiment; default: space and time.")
@click.option("--address", help="Address of a running Ray cluster.")
@click.option("--seed", default=0, show_default=True)
@click.option("--objective", "objectives", multiple=True, metavar="METRIC[,METRIC]",
              help="What to optimise (default valid/MAE); two give a Pareto front.")  # fmt: skip
@click.option("--sampler", default="tpe", show_default=True, help="tpe, random, gp, cmaes, grid or nsga2.")
@click.option("--scheduler", default="asha", show_default=True, help="asha, hyperband, median or none.")
@click.option("--warm-start", metavar="EXPERIMENT", help="Learn from an earlier experiment's finished trials.")
@click.option("--max-failures", default=3, type=click.IntRange(0), show_default=True,
              help="Restarts of a trial whose worker or node died.")  # fmt: skip
@click.option("--trial-timeout", metavar="2h", help="Restart a trial that has not reported for so many s, m or h.")
@cache_option
@keep_option
@time_budget_option
@study_storage_option
@set_option
@as_json
def search(
    dataset: str | None,
    pairs: tuple[str, ...],
    objectives: tuple[str, ...],
    time_budget: str | None,
    trial_timeout: str | None,
    json_output: bool,
    **options: Any,
) -> None:
    """Search; without DATA on the synthetic set with the first 8 layers of smollm2-135m."""
    overrides = read_overrides(pairs)
    TrialConfig.from_overrides(overrides)
    from deepmlf.data.dataset import Dataset
    from deepmlf.model import lm_store

    if dataset is None:
        dataset = str(_demo_data())
        overrides = {"model.lm_layers": DEMO_LAYERS} | overrides
        defaults = {"space": "demo", "trials": 8, "epochs": 9, "concurrent": 2}
    else:
        defaults = {"space": Dataset.open(dataset).info.name, "trials": 20, "epochs": 15, "concurrent": 1}
    if options["lm"] != lm_store.TINY_RANDOM:
        lm_store.get(options["lm"])
    from deepmlf.tune.search import run_search
    from deepmlf.tune.settings import SearchSettings, parse_duration

    chosen: dict[str, Any] = defaults | {name: value for name, value in options.items() if value is not None}
    if objectives:
        chosen["objectives"] = [name.strip() for option in objectives for name in option.split(",")]
    if time_budget is not None:
        chosen["time_budget"] = parse_duration(time_budget)
    if trial_timeout is not None:
        chosen["trial_timeout"] = parse_duration(trial_timeout, "--trial-timeout")
    _end_search(run_search(SearchSettings(data=dataset, overrides=overrides, **chosen)), json_output)


def _demo_data() -> Path:
    from deepmlf.data.remote import home
    from deepmlf.data.synthetic import make_synthetic

    folder = home() / "data" / "synthetic"
    if not (folder / "info.json").is_file():
        make_synthetic(folder)
    return folder


@cli.command()
@experiment_argument
@time_budget_option
@study_storage_option
@as_json
def resume(experiment: str, time_budget: str | None, study_storage: str | None, json_output: bool) -> None:
    """Go on with a search after a crash, a kill, Ctrl-C or the end of its time budget."""
    from deepmlf.tune.search import resume_search
    from deepmlf.tune.settings import parse_duration

    budget = None if time_budget is None else parse_duration(time_budget)
    _end_search(resume_search(experiment, study_storage=study_storage, time_budget=budget), json_output)


def _end_search(summary: Any, json_output: bool) -> None:
    from deepmlf.analysis.results import summarise
    from deepmlf.errors import SearchError
    from deepmlf.tune.storage import open_experiment

    experiment = summary.experiment
    facts = summarise(experiment)
    _emit(summary.model_dump() | {"best_folder": facts["best_folder"]}, json_output)
    if summary.stop_reason:
        raise SearchError(f"the search stopped: {summary.stop_reason}")
    if summary.out_of_time:
        click.echo(f"the time budget is spent; go on with `deepmlf resume {experiment}`", err=True)
    elif summary.interrupted:
        click.echo(f"stopped; go on with `deepmlf resume {experiment}`", err=True)
        sys.exit(130)
    if not json_output:
        click.echo(f"TensorBoard: tensorboard --logdir {open_experiment(experiment) / 'trials'}")
        click.echo(f"Test metrics of the best: deepmlf evaluate {facts['best_folder']}")


@cli.command()
@experiment_argument
@click.option("--top", default=3, type=click.IntRange(2), show_default=True, help="Settings to train again.")
@click.option("--seeds", default=5, type=click.IntRange(2), show_default=True, help="Seeds of each.")
@click.option("--concurrent", type=click.IntRange(1), help="Trials at a time; default: as in the search.")
@as_json
def confirm(experiment: str, top: int, seeds: int, concurrent: int | None, json_output: bool) -> None:
    """Train the best settings again with fresh seeds; test metrics, and whether the search's choice holds."""
    from deepmlf.analysis.confirm import confirm as run_confirm

    _emit(run_confirm(experiment, top=top, seeds=seeds, concurrent=concurrent), json_output)


@cli.command()
@experiment_argument
@as_json
def analyze(experiment: str, json_output: bool) -> None:
    """Best trials, states, epochs saved; writes results.parquet."""
    from deepmlf.analysis.results import summarise

    _emit(summarise(experiment), json_output)


@cli.command()
@click.argument("trial", metavar="TRIAL")
@click.argument("dataset", type=_PATH, metavar="[DATA]", required=False)
@click.option("--split", default="test", type=click.Choice(["train", "valid", "test"]), show_default=True)
@as_json
def evaluate(trial: str, dataset: Path | None, split: str, json_output: bool) -> None:
    """Metrics of a trial's best epoch on a split."""
    from deepmlf.training.evaluate import evaluate_trial
    from deepmlf.tune.storage import open_trial

    metrics = evaluate_trial(open_trial(trial), dataset, split)
    for name, value in metrics.items():
        click.echo(f"{name}: {value:.4f}")
    _emit(metrics, json_output)


@cli.command("import-reference")
@click.argument("checkpoint", type=_PATH)
@click.argument("config", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--lm-config", type=_PATH, help="The language model's Hugging Face config.json.")
@as_json
def import_reference_command(
    checkpoint: Path, config: Path, out: Path, lm_config: Path | None, json_output: bool
) -> None:
    """Convert a checkpoint of the authors' code."""
    from deepmlf.model.reference import import_reference

    import_reference(checkpoint, config, out, lm_config)
    click.echo(str(out))
    _emit({"out": str(out)}, json_output)


if __name__ == "__main__":
    main()
