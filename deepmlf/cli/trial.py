"""`deepmlf train`, `evaluate` and `import-reference`: one DeepMLF at a time."""

from pathlib import Path
from typing import Any

import click

from deepmlf.cli.options import PATH, as_json, cache_option, emit, keep_option, set_option
from deepmlf.config import TrialConfig, read_overrides, read_toml
from deepmlf.errors import ConfigError
from deepmlf.places import absolute


@click.command()
@click.argument("dataset", metavar="DATA")
@click.option("--config", type=PATH, help="TOML file of settings.")
@set_option
@cache_option
@keep_option
@click.option("--out", type=PATH, default=Path("runs/train"), show_default=True, help="Folder of the trial.")
@as_json
def train(
    dataset: str,
    config: Path | None,
    pairs: tuple[str, ...],
    cache_gb: float,
    keep: int,
    out: Path,
    json_output: bool,
) -> None:
    """Train one DeepMLF; run it again to resume."""
    place = absolute(dataset)
    given = (read_toml(config) if config else {}) | read_overrides(pairs)
    if given.get("data.path", place) != place:
        raise ConfigError(f"data.path={given['data.path']}: is given as DATA; leave it out")
    overrides = given | {"data.path": place}
    trial = TrialConfig.from_overrides(overrides)
    from deepmlf.model import lm_store

    overrides["model.language_model"] = lm_store.absolute(trial.model.language_model)
    trial = TrialConfig.from_overrides(overrides)
    _refuse_foreign(out)
    from deepmlf.training.trainer import Trainer

    trainer = Trainer(trial, out, cache_gb=cache_gb, keep=keep)  # refuses what cannot be trained; has written nothing
    from rich.console import Console
    from rich.progress import Progress

    from deepmlf.events.dashboard import write_dashboard
    from deepmlf.events.note import trial_note
    from deepmlf.events.writer import TrialWriter
    from deepmlf.training.checkpoints.files import epoch_of, latest_checkpoint
    from deepmlf.training.curriculum import stages_of
    from deepmlf.training.metrics import is_better

    out.mkdir(parents=True, exist_ok=True)
    resume_from = latest_checkpoint(out)
    if resume_from is not None:
        _refuse_another(out, trial)
    (out / "config.json").write_text(trial.to_json())
    write_dashboard(out, [trial.training.select_by])
    # A resume reports the checkpoint's own epoch again.
    writer = TrialWriter(out, purge_step=epoch_of(resume_from) if resume_from else None)
    writer.start({name: value for name, value in trial.flat().items() if name in overrides}, trial_note(overrides))
    best, best_epoch = _best_so_far(out) if resume_from else ({}, {})
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("epochs", total=sum(stage.epochs for stage in stages_of(trial)))

        def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
            valid = {n.removeprefix("valid/"): v for n, v in metrics.items() if n.startswith("valid/")}
            selected = trial.training.select_by
            if valid and is_better(selected, valid[selected], best.get(selected)):
                best.update(valid)
                best_epoch.update(metrics)
            writer.write(metrics, best)
            progress.update(task, completed=metrics["epoch"], description=str(metrics["stage"]))
            shown = valid or {"loss": metrics["train/loss"]}
            line = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
            progress.console.print(f"{metrics['stage']} epoch {metrics['epoch']}: {line}", highlight=False)

        trainer.run(report, resume_from)
    writer.close("COMPLETE", best_epoch)
    emit({"folder": str(out), "valid": best}, json_output)


def _refuse_foreign(out: Path) -> None:
    from deepmlf.errors import CheckpointError
    from deepmlf.inference.predictor import read_trial_config

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        try:
            read_trial_config(out)
        except (CheckpointError, NotADirectoryError):
            raise CheckpointError(f"{out}: holds something that is not a trial; choose another --out") from None


def _refuse_another(out: Path, trial: TrialConfig) -> None:
    from deepmlf.errors import CheckpointError
    from deepmlf.inference.predictor import read_trial_config

    begun, wanted = read_trial_config(out).flat(), trial.flat()
    changed = ", ".join(f"{name}={begun[name]}" for name in wanted if begun[name] != wanted[name])
    if changed:
        raise CheckpointError(f"{out}: holds a trial begun with {changed}; choose another --out")


def _best_so_far(out: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Validation metrics of the best epoch of a trial that is resumed, and what TensorBoard shows of that epoch."""
    from deepmlf.training.checkpoints.files import read_metadata

    if not (out / "best" / "state.json").is_file():
        return {}, {}
    metadata = read_metadata(out / "best")
    valid = metadata.pop("valid")
    return valid, metadata | {f"valid/{name}": value for name, value in valid.items()}


@click.command()
@click.argument("trial", metavar="TRIAL")
@click.argument("dataset", metavar="[DATA]", required=False)
@click.option("--data", help="Dataset of the training, if it has moved.")
@click.option("--split", default="test", type=click.Choice(["train", "valid", "test"]), show_default=True)
@as_json
def evaluate(trial: str, dataset: str | None, data: str | None, split: str, json_output: bool) -> None:
    """Metrics of a trial's best epoch on a split of the dataset that it was trained on, or of DATA."""
    from deepmlf.inference.evaluate import evaluate_trial
    from deepmlf.tune.experiment.remote import open_trial

    metrics = evaluate_trial(open_trial(trial), dataset, split, trained_on=data)
    for name, value in metrics.items():
        click.echo(f"{name}: {value:.4f}")
    emit(metrics, json_output)


@click.command("import-reference")
@click.argument("checkpoint", type=PATH)
@click.argument("config", type=PATH)
@click.argument("out", type=PATH)
@click.option("--lm-config", type=PATH, help="The language model's Hugging Face config.json.")
@as_json
def import_reference_command(
    checkpoint: Path, config: Path, out: Path, lm_config: Path | None, json_output: bool
) -> None:
    """Convert a checkpoint of the authors' code."""
    from deepmlf.model.reference import import_reference

    import_reference(checkpoint, config, out, lm_config)
    click.echo(str(out))
    emit({"out": str(out)}, json_output)
