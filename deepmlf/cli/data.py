"""`deepmlf data` and `deepmlf lm`: what a search needs beside its settings."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepmlf.cli.completion import folders, known_datasets, language_models
from deepmlf.cli.options import PATH
from deepmlf.cli.output import as_json, emit, tell
from deepmlf.cli.texts import DEFAULT_LM, limit_of, tell_cut_texts

if TYPE_CHECKING:
    from deepmlf.data.dataset import Dataset

force_option = click.option("--force", is_flag=True, help="Replace the dataset that is in OUT.")


@click.group()
def data() -> None:
    """Import, make and describe datasets."""


@data.command("import")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--dataset",
    default="mosi",
    show_default=True,
    shell_complete=known_datasets,
    help="Name; mosi, mosei and sims have known metrics and labels.",
)
@click.option(
    "--audio",
    metavar="COLUMN|FOLDER",
    help="Of a table: column with an array [frames, features] for each utterance, or folder with ID.npy.",
)
@click.option("--vision", metavar="COLUMN|FOLDER", help="The same of vision.")
@click.option("--label-range", type=(float, float), metavar="LOW HIGH", help="Labels are numbers from LOW to HIGH.")
@click.option("--task", type=click.Choice(["regression", "classification"]), default="regression", show_default=True,
              help="Whether labels are numbers or classes.")  # fmt: skip
@click.option("--lowercase", is_flag=True, help="Lower-case texts, e.g. ASR transcripts.")
@click.option("--unlabelled", is_flag=True, help="For `predict` alone: labels and splits may be missing.")
@click.option("--metrics", type=PATH, help="Python file with METRICS of your own; see `data metrics`.")
@force_option
@as_json
def data_import(
    source: Path,
    out: Path,
    dataset: str,
    audio: str | None,
    vision: str | None,
    label_range: tuple[float, float] | None,
    task: str,
    lowercase: bool,
    unlabelled: bool,
    metrics: Path | None,
    force: bool,
    json_output: bool,
) -> None:
    """Import an MMSA pickle, a table (CSV, TSV, Parquet, JSON lines), or a folder of Hugging Face's datasets."""
    if label_range is not None and task == "classification":
        raise click.UsageError("--label-range is of numbers, --task classification of classes; give one of them")
    from deepmlf.data.dataset import Dataset
    from deepmlf.data.formats.importing import import_dataset

    info = import_dataset(
        source,
        out,
        dataset,
        lowercase,
        audio=audio,
        vision=vision,
        label_range=label_range,
        classification=task == "classification",
        unlabelled=unlabelled,
        force=force,
        progress=tell,
    )
    if metrics is not None:
        from deepmlf.data.dataset import add_metrics

        info = add_metrics(out, metrics)
    for modality in info.missing:
        tell(f"{modality} is absent (all zero, or not there) and will not be used")
    imported = Dataset.open(out)
    tell_cut_texts(imported, DEFAULT_LM, limit_of(imported), info.splits)
    counts = ", ".join(f"{count} {name}" for name, count in info.splits.items())
    click.echo(f"{out}: {counts}; audio {info.audio_dim}, vision {info.vision_dim} features; {info.task.describe()}")
    emit(info.model_dump(include={"name", "fingerprint", "splits", "missing", "task"}), json_output)


@data.command("metrics")
@click.argument("folder", metavar="DATA", type=PATH)
@click.argument("source", metavar="FILE", type=PATH)
@as_json
def data_metrics(folder: Path, source: Path, json_output: bool) -> None:
    """Give a dataset metrics of your own: FILE has METRICS = {name: (function, "minimize" or "maximize")}.

    A function gets predictions and labels as arrays, of classes their probabilities. It runs wherever the dataset is
    trained or evaluated on.
    """
    from deepmlf.data.dataset import add_metrics

    task = add_metrics(folder, source).task
    click.echo(f"{folder}: " + ", ".join(f"{name} ({direction})" for name, direction in task.own.items()))
    emit({"metrics": task.own}, json_output)


@data.command("extract")
@click.argument("clips", type=PATH)
@click.argument("out", type=PATH)
@click.option("--fps", default=10.0, type=click.FloatRange(0, min_open=True), show_default=True,
              help="Pictures of each second that are looked at, at most.")  # fmt: skip
@click.option(
    "--only", type=click.Choice(["audio", "vision"]), help="One modality alone, without the other's libraries."
)
@click.option("--workers", default=1, type=click.IntRange(1), show_default=True, help="Processes at the same time.")
@as_json
def data_extract(clips: Path, out: Path, fps: float, only: str | None, workers: int, json_output: bool) -> None:
    """Extract features of video and audio files for `data import`; run again to go on."""
    from deepmlf.data.extract.extracting import extract_features
    from deepmlf.data.features import MODALITIES
    from deepmlf.errors import DataError

    result = extract_features(
        clips,
        out,
        modalities=MODALITIES if only is None else (only,),
        pictures_per_second=fps,
        workers=workers,
        progress=tell,
    )
    for modality, names in result.absent.items():
        what = "have no sound of 60 ms" if modality == "audio" else "show no face"
        tell(
            f"{len(names)} of {len(result.extracted)} clips {what} ({names[0]}{', …' if names[1:] else ''}): "
            f"their {modality} has no frames"
        )
    kept = f", {len(result.kept)} were there" if result.kept else ""
    click.echo(f"{out}: features of {len(result.extracted)} clips{kept}")
    emit(dataclasses.asdict(result), json_output)
    if result.failed:
        raise DataError(
            f"{len(result.failed)} of {len(result.failed) + len(result.extracted) + len(result.kept)} clips failed, "
            "as told above; mend them and run again, or leave their utterances out of the table"
        )


@data.command("synthetic")
@click.argument("out", type=PATH)
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@click.option(
    "--size",
    default=512,
    type=click.IntRange(2),
    show_default=True,
    help="Train utterances; a quarter of it in valid and test.",
)
@force_option
@as_json
def data_synthetic(out: Path, seed: int, size: int, force: bool, json_output: bool) -> None:
    """Write a seeded set on which fusion must beat every single modality."""
    from deepmlf.data.synthetic import make_synthetic, reachable_mae

    info = make_synthetic(out, seed=seed, sizes=(size, max(2, size // 4), max(2, size // 4)), force=force)
    best = reachable_mae()
    click.echo(f"{out}: best reachable MAE " + ", ".join(f"{value:.2f} from {name}" for name, value in best.items()))
    emit({"fingerprint": info.fingerprint, "splits": info.splits, "reachable_mae": best}, json_output)


@data.command("info")
@click.argument("folder", metavar="DATA", shell_complete=folders)
@click.option(
    "--lm",
    "language_model",
    shell_complete=language_models,
    help="Language model whose tokens are counted.  [default: that of `search`]",
)
@click.option(
    "--max-text-len",
    type=click.IntRange(1),
    help="Tokens at which texts are cut.  [default: that of the dataset's search space]",
)
@as_json
def data_info(folder: str, language_model: str | None, max_text_len: int | None, json_output: bool) -> None:
    """Print splits, lengths, texts that are cut, label histogram, dimensions and missing modalities."""
    from deepmlf.cli.dataset_facts import describe
    from deepmlf.data.dataset import Dataset

    dataset = Dataset.open(folder)
    facts = describe(dataset) | _tokens_of(dataset, language_model, max_text_len)
    for name, value in facts.items():
        if name not in ("splits", "tokens"):
            click.echo(f"{name}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
    for split, details in facts["splits"].items():
        without = f", {details['unlabelled']} of them without a label" if details["unlabelled"] else ""
        click.echo(f"{split}: {details['utterances']} utterances{without}")
        if not details["utterances"]:
            continue
        for kind in ("words", "audio_frames", "vision_frames"):
            click.echo("  {}: {min:g} to {max:g}, median {median:g}".format(kind, **details[kind]))
        if facts["tokens"]:
            tokens = "  tokens: {min:g} to {max:g}, median {median:g}; {cut} of {utterances} texts are cut at {limit}"
            click.echo(tokens.format(**facts["tokens"][split], limit=facts["max_text_len"]))
        click.echo("  labels: " + ", ".join(f"{label}: {count}" for label, count in details["labels"].items()))
    emit(facts, json_output)


def _tokens_of(dataset: "Dataset", language_model: str | None, max_text_len: int | None) -> dict[str, Any]:
    """What `data info` says of tokens; nothing if the language model is not here and was not asked for."""
    from deepmlf.errors import LanguageModelError
    from deepmlf.training.stores.text_lengths import text_lengths

    lm, limit = language_model or DEFAULT_LM, max_text_len or limit_of(dataset)
    try:
        tokens = text_lengths(dataset, lm, limit, dataset.info.splits)
    except LanguageModelError as error:
        if language_model:
            raise
        tell(f"tokens are not counted: {error}; or name another one with --lm")
        tokens = {}
    counted = {split: lengths.model_dump() for split, lengths in tokens.items()}
    return {"language_model": lm, "max_text_len": limit, "tokens": counted}


@click.group()
def lm() -> None:
    """Make language models available offline."""


@lm.command("get")
@click.argument("name", shell_complete=language_models)
@as_json
def lm_get(name: str, json_output: bool) -> None:
    """Fetch or convert a language model: a hub id, a folder, a .gguf file, or smollm2-135m."""
    from deepmlf.model import lm_store
    from deepmlf.progress import steps

    compared: list[str] = []

    def compare(folder: Path) -> str:
        from deepmlf.model.admission import reading

        compared.append(reading(folder))
        return compared[0]

    with steps() as say:
        folder = lm_store.get(name, progress=say, compare=compare)
        fingerprint = lm_store.fingerprint(name)
    how = compared[0] if compared else lm_store.read_as(name)  # files that may still change leave no record
    found = lm_store.present(name)  # another model may stand in
    click.echo(f"{found}: {folder}, fingerprint {fingerprint[:12]}")
    if how is not None:
        click.echo(f"runs {how}")
    said = {"name": found, "folder": str(folder), "layers": lm_store.facts(name).num_layers}
    emit(said | {"fingerprint": fingerprint, "read_as": how}, json_output)
