"""`deepmlf train`, `evaluate` and `import-reference`: one DeepMLF at a time."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepmlf.cli.completion import folders
from deepmlf.cli.options import (
    PATH,
    cache_option,
    device_option,
    keep_option,
    recipe_option,
    set_option,
    usable_device,
)
from deepmlf.cli.output import as_json, emit, tell
from deepmlf.cli.texts import tell_cut_texts
from deepmlf.config.overrides import read_overrides, read_toml
from deepmlf.config.recipe import recipe_line, recipe_settings
from deepmlf.config.trial import TrainingConfig, TrialConfig
from deepmlf.errors import ConfigError

if TYPE_CHECKING:  # it imports what --help must not wait for
    from deepmlf.data.task import Task
    from deepmlf.events.recorder import TrialRecorder


@click.command()
@click.argument("dataset", metavar="DATA", shell_complete=folders)
@click.option("--config", type=PATH, help="TOML file of settings.")
@recipe_option
@set_option
@cache_option
@keep_option
@click.option("--out", type=PATH, default=Path("runs/train"), show_default=True, help="Folder of the trial.")
@as_json
def train(
    dataset: str,
    config: Path | None,
    recipe: str | None,
    pairs: tuple[str, ...],
    cache_gb: float,
    keep: int,
    out: Path,
    json_output: bool,
) -> None:
    """Train one DeepMLF; run it again to resume."""
    given = (read_toml(config) if config else {}) | read_overrides(pairs)
    trial, overrides = _asked(dataset, given, recipe)
    _refuse_foreign(out)
    trial = _as_begun(out, trial, given)
    from deepmlf.training.trainer import Trainer

    trainer = Trainer(trial, out, cache_gb=cache_gb, keep=keep)  # refuses what cannot be trained; has written nothing
    tell_cut_texts(trainer.dataset, trial.model.language_model, trial.model.max_text_len, ("train", "valid"))
    from rich.console import Console
    from rich.progress import Progress

    from deepmlf.training.baselines import baselines, baselines_line
    from deepmlf.training.checkpoints.files import BEST, CONFIG, has_best, latest_checkpoint, read_metadata
    from deepmlf.training.machine.device import device_line, slow_precision
    from deepmlf.training.metrics import direction_of
    from deepmlf.training.reports import VALID, EpochReport, baselines_among

    out.mkdir(parents=True, exist_ok=True)
    resume_from = latest_checkpoint(out)
    if resume_from is not None:
        _refuse_another(out, trial)
    tell(f"trains on {device_line(trainer.device, trial.training.device)}")
    if (slow := slow_precision(trial.training.precision, trainer.device.type)) is not None:
        tell(slow)
    (out / CONFIG).write_text(trial.to_json())
    recorder = _recorder(out, trial, overrides, trainer.dataset.info.task)
    with Progress(console=Console(stderr=True)) as progress:
        start, done = recorder.underway, recorder.reports[-1].epoch if recorder.reports else 0
        task = progress.add_task(start.words, completed=done, total=done + start.epochs_left)

        def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
            epoch = EpochReport(metrics)
            recorder.add(epoch)
            now = recorder.underway
            progress.update(task, completed=epoch.epoch, total=epoch.epoch + now.epochs_left, description=now.words)
            shown = epoch.valid or {"loss": epoch.get("train/loss")}
            line = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
            progress.console.print(f"{recorder.last_epoch}: {line}", highlight=False)

        trainer.run(report, resume_from)
    recorder.close("COMPLETE")
    valid = read_metadata(out / BEST)["valid"] if has_best(out) else {}
    selected, own = trial.training.select_by, trainer.dataset.info.task.own
    by_model = baselines_among(recorder.reports, VALID + selected, direction_of(selected, own))
    beside = baselines(trainer.dataset) | by_model
    tell(baselines_line(VALID + selected, {name: of[selected] for name, of in beside.items() if selected in of}))
    click.echo(f"{out}: " + (", ".join(f"{VALID}{name} {value:.4f}" for name, value in valid.items()) or "trained"))
    emit({"folder": str(out), "valid": valid, "baselines": beside}, json_output)


def _recorder(out: Path, trial: TrialConfig, overrides: dict[str, Any], task: "Task") -> "TrialRecorder":
    """The record of the trial, and what TensorBoard shows beside it."""
    from deepmlf.events.dashboard import LEADING, Parameter, hparams_columns, write_dashboard
    from deepmlf.events.recorder import TrialRecorder
    from deepmlf.training.metrics import direction_of, metric_names
    from deepmlf.training.reports import VALID

    selected = trial.training.select_by
    shown = {name: value for name, value in trial.flat().items() if name in overrides or name in LEADING}
    columns = [Parameter.fixed(name, value) for name, value in shown.items()]
    write_dashboard(
        out,
        [selected],
        lambda: [hparams_columns(columns, [VALID + selected], metric_names(task))],
        has_gates=trial.model.gate != "none",
        has_language=trial.training.language_loss,
    )
    recorder = TrialRecorder(out, trial, VALID + selected, direction_of(selected, task.own))
    recorder.start(shown, overrides)
    return recorder


def _asked(dataset: str, given: dict[str, Any], recipe: str | None) -> tuple[TrialConfig, dict[str, Any]]:
    """The trial that was asked for, and its overrides, with places that hold in any folder.

    What is given wins over the recipe.
    """
    from deepmlf.data.dataset import Dataset
    from deepmlf.places import Place

    place = str(Place.of(dataset))
    if given.get("data.path", place) != place:
        raise ConfigError(f"data.path={given['data.path']}: is given as DATA; leave it out")
    TrialConfig.from_overrides(given)  # what is misspelt is told before what is not there
    info = Dataset.open(place).info
    if recipe is not None:
        tell(recipe_line(recipe, info.name))
    given = _of_the_task(info.task) | recipe_settings(recipe, info.name) | given
    trial = TrialConfig.from_overrides(given, {"data.path": place})
    from deepmlf.model import lm_store

    language_model = lm_store.absolute(trial.model.language_model)
    overrides = given | {"data.path": place, "model.language_model": language_model}
    return trial.placed(language_model=language_model), overrides


def _of_the_task(task: "Task") -> dict[str, Any]:
    """Settings that the dataset's labels ask for."""
    from deepmlf.training.metrics import main_metric

    metric = main_metric(task)
    return {} if metric == TrainingConfig().select_by else {"training.select_by": metric}


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds something else than a trial, or cannot be written."""
    from deepmlf.errors import CheckpointError
    from deepmlf.files import why_unwritable
    from deepmlf.inference.predictor import read_trial_config

    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        try:
            read_trial_config(out)
        except (CheckpointError, NotADirectoryError):
            raise CheckpointError(f"{out}: holds something that is not a trial; choose another --out") from None
    if (fault := why_unwritable(out)) is not None:
        raise CheckpointError(f"--out {out}: cannot be written ({fault}); choose another folder")


def _as_begun(out: Path, trial: TrialConfig, given: dict[str, Any]) -> TrialConfig:
    """The trial with what one that an earlier version began in `out` reads, if nothing else was asked for."""
    from deepmlf.config.earlier import SPECIAL_TOKENS
    from deepmlf.inference.predictor import read_trial_config
    from deepmlf.training.checkpoints.files import CONFIG

    if SPECIAL_TOKENS in given or not (out / CONFIG).is_file():
        return trial
    return TrialConfig.from_overrides(trial.flat(), {SPECIAL_TOKENS: read_trial_config(out).model.special_tokens})


def _refuse_another(out: Path, trial: TrialConfig) -> None:
    from deepmlf.errors import CheckpointError
    from deepmlf.inference.predictor import read_trial_config

    begun, wanted = read_trial_config(out).flat(), trial.flat()
    changed = ", ".join(f"{name}={begun[name]}" for name in wanted if begun[name] != wanted[name])
    if changed:
        raise CheckpointError(f"{out}: holds a trial begun with {changed}; choose another --out")


@click.command()
@click.argument("trial", metavar="TRIAL", shell_complete=folders)
@click.argument("dataset", metavar="[DATA]", required=False, shell_complete=folders)
@click.option("--data", shell_complete=folders, help="Dataset of the training, if it has moved.")
@click.option("--split", default="test", type=click.Choice(["train", "valid", "test"]), show_default=True)
@device_option
@as_json
def evaluate(trial: str, dataset: str | None, data: str | None, split: str, device: str, json_output: bool) -> None:
    """Metrics of a trial's best epoch on a split of the dataset that it was trained on, or of DATA."""
    from deepmlf.inference.evaluate import baselines_beside, evaluate_beside
    from deepmlf.inference.predictor import unchecked
    from deepmlf.training.checkpoints.files import BEST, LANGUAGE_MODEL, read_metadata
    from deepmlf.training.reports import FIDELITY
    from deepmlf.tune.experiment.remote import open_trial

    folder = open_trial(trial)
    found = evaluate_beside(folder, dataset, split, trained_on=data, device=usable_device(device))
    metrics = found.metrics
    for note in unchecked(folder):
        tell(note)
    metadata = read_metadata(folder / BEST)
    epoch = metadata[FIDELITY]
    click.echo(f"{split} split, {found.utterances} utterances; fusion epoch {epoch}, the trial's best on valid")
    simple = baselines_beside(folder, split, dataset, data) | found.of_language_model | found.of_trial
    for name, value in metrics.items():
        beside = "; ".join(f"{baseline} {of[name]:.4f}" for baseline, of in simple.items() if name in of)
        click.echo(f"{name}: {value:.4f}" + (f" ({beside})" if beside else ""))
    emit(
        metrics
        | {"split": split, "fusion_epoch": epoch, "utterances": found.utterances}
        | {"baselines": simple, "language_model": metadata.get(LANGUAGE_MODEL)},
        json_output,
    )


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
