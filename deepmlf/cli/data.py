"""`deepmlf data` and `deepmlf lm`: what a search needs beside its settings."""

from pathlib import Path

import click

from deepmlf.cli.options import PATH, as_json, emit


@click.group()
def data() -> None:
    """Import, make and describe datasets."""


@data.command("import")
@click.argument("pickle", type=PATH)
@click.argument("out", type=PATH)
@click.option("--dataset", default="mosi", show_default=True, help="mosi, mosei or sims: metrics and label range.")
@click.option("--lowercase", is_flag=True, help="Lower-case texts, e.g. ASR transcripts.")
@click.option("--unlabelled", is_flag=True, help="For `predict` alone: labels and splits may be missing.")
@as_json
def data_import(pickle: Path, out: Path, dataset: str, lowercase: bool, unlabelled: bool, json_output: bool) -> None:
    """Import an MMSA pickle into a memory-mapped dataset folder."""
    from deepmlf.data.mmsa import import_mmsa

    info = import_mmsa(
        pickle,
        out,
        dataset,
        lowercase,
        unlabelled=unlabelled,
        progress=lambda message: click.echo(f"deepmlf: {message}", err=True),
    )
    for modality in info.missing:
        click.echo(f"deepmlf: {modality} is absent (all zero) and will not be used", err=True)
    counts = ", ".join(f"{count} {name}" for name, count in info.splits.items())
    click.echo(f"{out}: {counts}; audio {info.audio_dim}, vision {info.vision_dim} features")
    emit(info.model_dump(include={"name", "fingerprint", "splits", "missing"}), json_output)


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
@as_json
def data_synthetic(out: Path, seed: int, size: int, json_output: bool) -> None:
    """Write a seeded set on which fusion must beat every single modality."""
    from deepmlf.data.synthetic import make_synthetic, reachable_mae

    info = make_synthetic(out, seed=seed, sizes=(size, max(2, size // 4), max(2, size // 4)))
    best = reachable_mae()
    click.echo(f"{out}: best reachable MAE " + ", ".join(f"{value:.2f} from {name}" for name, value in best.items()))
    emit({"fingerprint": info.fingerprint, "splits": info.splits, "reachable_mae": best}, json_output)


@data.command("info")
@click.argument("folder", metavar="DATA")
@as_json
def data_info(folder: str, json_output: bool) -> None:
    """Print splits, lengths, label histogram, dimensions and missing modalities."""
    from deepmlf.data.dataset import Dataset, describe

    facts = describe(Dataset.open(folder))
    for name, value in facts.items():
        if name != "splits":
            click.echo(f"{name}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
    for split, details in facts["splits"].items():
        without = f", {details['unlabelled']} of them without a label" if details["unlabelled"] else ""
        click.echo(f"{split}: {details['utterances']} utterances{without}")
        if not details["utterances"]:
            continue
        for kind in ("words", "audio_frames", "vision_frames"):
            click.echo("  {}: {min:g} to {max:g}, median {median:g}".format(kind, **details[kind]))
        click.echo("  labels: " + ", ".join(f"{label}: {count}" for label, count in details["labels"].items()))
    emit(facts, json_output)


@click.group()
def lm() -> None:
    """Make language models available offline."""


@lm.command("get")
@click.argument("name")
@as_json
def lm_get(name: str, json_output: bool) -> None:
    """Fetch or convert a language model: a hub id, a folder, a .gguf file, or smollm2-135m."""
    from deepmlf.model import lm_store
    from deepmlf.progress import steps

    with steps() as say:
        folder = lm_store.get(name, progress=say)
        fingerprint = lm_store.fingerprint(name)
    found = lm_store.present(name)  # another model may stand in
    click.echo(f"{found}: {folder}, fingerprint {fingerprint[:12]}")
    layers = lm_store.facts(name).num_layers
    emit({"name": found, "folder": str(folder), "layers": layers, "fingerprint": fingerprint}, json_output)
