"""`deepmlf export`, `predict` and `explain`: a finished model taken home."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deepmlf.cli.completion import folders, language_models
from deepmlf.cli.options import PATH, device_option, usable_device
from deepmlf.cli.output import as_json, emit, tell

FILE = click.Path(path_type=Path, dir_okay=False)
place_argument = click.argument("place", metavar="MODEL", shell_complete=folders)
data_argument = click.argument("dataset", metavar="DATA", shell_complete=folders)
lm_option = click.option(
    "--lm",
    "language_model",
    shell_complete=language_models,
    help="Another copy of the language model: a name or a folder.",
)


@click.command()
@click.argument("trial", metavar="TRIAL", shell_complete=folders)
@click.argument("out", type=PATH)
@click.option("--data", shell_complete=folders, help="Dataset of the training, if it has moved.")
@as_json
def export(trial: str, out: Path, data: str | None, json_output: bool) -> None:
    """Write a trial's best epoch as a folder to take home, with a model card."""
    from deepmlf.inference.export import export_trial
    from deepmlf.tune.experiment.remote import open_trial

    valid = export_trial(open_trial(trial), out, data)
    click.echo(f"{out}: README.md says how to use it and what its licence depends on")
    emit({"out": str(out), "valid": valid}, json_output)


@click.command()
@place_argument
@data_argument
@click.option("--out", type=FILE, required=True, help="Parquet file to write.")
@click.option("--split", default="test", type=click.Choice(["train", "valid", "test"]), show_default=True)
@lm_option
@device_option
@as_json
def predict(
    place: str, dataset: str, out: Path, split: str, language_model: str | None, device: str, json_output: bool
) -> None:
    """Predictions of MODEL, an exported folder or a trial, for every utterance of a split."""
    import pyarrow.parquet as pq

    _require_writable(out)
    predictor, data = _open(place, dataset, language_model, device)
    table = predictor.predict(data, split)
    _write(out, lambda path: pq.write_table(table, path, write_page_checksum=True))
    metrics = predictor.metrics(data, table)
    for name, value in (metrics or {}).items():
        click.echo(f"{name}: {value:.4f}")
    if metrics is None:
        kind = "class" if predictor.task.is_classification else "range"
        tell(f"no metrics: labels are missing or of another {kind} than in training")
    click.echo(f"{out}: {len(table)} utterances")
    said = {"out": str(out), "utterances": len(table), "metrics": metrics}
    emit(said | {"language_model": predictor.model.language_model.identity}, json_output)


@click.command()
@place_argument
@data_argument
@click.option("--id", "utterance", required=True, help="Id of the utterance, in any split.")
@click.option("--out", type=FILE, default=Path("explain.html"), show_default=True, help="Page to write.")
@lm_option
@device_option
@as_json
def explain(
    place: str, dataset: str, utterance: str, out: Path, language_model: str | None, device: str, json_output: bool
) -> None:
    """Why MODEL says what it says of one utterance: one HTML page, readable offline."""
    from deepmlf.inference.explain import explain as explain_utterance

    _require_writable(out)
    predictor, data = _open(place, dataset, language_model, device)
    explanation = explain_utterance(predictor, data, utterance)
    from deepmlf.analysis.report.explain_page import explain_page

    page = explain_page(explanation)
    _write(out, lambda path: path.write_text(page))
    click.echo(f"{out}: {explanation.classes['task']} ({explanation.said('task')})")
    without = explanation.without
    emit(
        {
            "out": str(out),
            "predictions": explanation.predictions,
            "label": explanation.label,
            "change_without": {part.what: part.change for part in without.parts},
            "change_without_word": [{"word": word.what, "change": word.change} for word in without.words],
        },
        json_output,
    )


def _open(place: str, dataset: str, language_model: str | None, device: str) -> tuple[Any, Any]:
    from deepmlf.data.dataset import Dataset
    from deepmlf.inference.predictor import Predictor
    from deepmlf.tune.experiment.remote import open_trial

    data = Dataset.open(dataset)
    predictor = Predictor.open(open_trial(place), language_model, usable_device(device))
    for note in predictor.notes:
        tell(note)
    if data.info.lowercase != predictor.trained_on.dataset.lowercase:
        kept = "lower-cased" if data.info.lowercase else "not lower-cased"
        tell(f"{dataset}: texts are {kept}, unlike those of the training")
    return predictor, data


def _require_writable(out: Path) -> None:
    """Refuse a file that cannot be written before there is anything to lose."""
    from deepmlf.errors import DataError
    from deepmlf.files import why_unwritable

    if (fault := why_unwritable(out.parent)) is not None:
        raise DataError(f"--out {out}: cannot be written ({fault})")


def _write(out: Path, write: Callable[[Path], object]) -> None:
    """Write a file, whole or not at all."""
    from deepmlf.errors import DataError
    from deepmlf.files import new_file

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with new_file(out) as temporary:
            write(temporary)
    except OSError as error:
        raise DataError(f"--out {out}: cannot be written ({error.strerror or error})") from error
