"""`deepmlf data import`: a file in one of several formats becomes a dataset."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deepmlf.data.dataset import DatasetInfo, check_out
from deepmlf.data.formats.arrow import read_parquet, table_in_memory
from deepmlf.data.formats.content import Content, task_of, write_content
from deepmlf.data.formats.huggingface import read_saved
from deepmlf.data.formats.mmsa import read_mmsa
from deepmlf.data.formats.table import read_table
from deepmlf.data.formats.text_table import SUFFIXES as TEXT_SUFFIXES
from deepmlf.data.formats.text_table import read_text_table
from deepmlf.data.paging import Pages
from deepmlf.errors import DataError


def import_dataset(
    source: Any,
    out: str | Path,
    dataset: str = "mosi",
    lowercase: bool = False,
    *,
    audio: str | Path | None = None,
    vision: str | Path | None = None,
    label_range: tuple[float, float] | None = None,
    classification: bool = False,
    unlabelled: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> DatasetInfo:
    """Import a pickle, a table or a folder of Hugging Face's ``datasets`` into a dataset folder that is memory-mapped.

    Of a source on disk, little is in memory at a time.

    Of a pickle in the layout of MMSA, sequences are stored without their padding: by ``audio_lengths`` and
    ``vision_lengths`` where given, else by dropping all-zero frames at both ends. A modality that is zero throughout,
    None or not there is accepted and listed as missing.

    >>> info = import_dataset("MOSI.pkl", "runs/imported", "mosi", lowercase=True)
    >>> info.splits, info.audio_dim, info.vision_dim
    ({'train': 3, 'valid': 3, 'test': 3}, 2, 4)

    Args:
        source: The pickle: ``{"train" | "valid" | "test": {...}}``, or for each split a list of
            ``((words, visual, acoustic), label, segment)`` (MAG-BERT, MISA); gzip, bzip2 or xz may have compressed it.
            Or a table (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``), a pandas DataFrame, a pyarrow Table, or a folder
            that ``save_to_disk`` of Hugging Face's ``datasets`` wrote, see `read_table`.
        out: Folder to write.
        dataset: ``mosi``, ``mosei`` or ``sims``, whose metrics and label range are known; or any other name, with a
            `label_range` or `classification`.
        lowercase: Lower-case the texts, as ASR transcripts want.
        audio: Of a table, the column that has an array [frames, features] for each utterance, or a folder with a
            ``.npy`` file of it for each; ``audio`` if there is such a column.
        vision: The same of vision.
        label_range: Smallest and largest label that there may be.
        classification: Labels are classes, named as in the data: those of the first of ``annotations``,
            ``classification_labels``, ``regression_labels``, ``labels`` and a table's ``label`` that is there.
        unlabelled: The data is to be predicted only: splits and labels may be missing.
        force: Replace a dataset that is in `out`.
        progress: Called with one line on what was not taken as it is, or looks odd: published pickles hold NaN and -inf
            where a feature could not be computed, which become 0.

    Raises:
        DataError: With the split, key and row at fault.
    """
    task = None if classification else task_of(dataset, label_range)
    out = Path(out)
    if isinstance(source, str | Path) and not Path(source).exists():
        swapped = f"; {out} is one: the source comes first" if out.is_file() else ""
        raise DataError(f"{source}: No such file or directory{swapped}")
    check_out(out, force)
    pages = Pages(out.parent)
    features = {of: given for of, given in (("audio", audio), ("vision", vision)) if given is not None}
    return write_content(
        _read(source, features, pages, unlabelled=unlabelled, say=progress),
        out,
        dataset,
        task,
        is_range_given=label_range is not None,
        lowercase=lowercase,
        unlabelled=unlabelled,
        force=force,
        say=progress,
        pages=pages,
    )


def _read(
    source: Any, features: Mapping[str, str | Path], pages: Pages, *, unlabelled: bool, say: Callable[[str], None]
) -> Content:
    if not isinstance(source, str | Path):
        return read_table(table_in_memory(source, pages), features, unlabelled=unlabelled, say=say)
    path = Path(source)
    if path.is_dir():
        return read_table(read_saved(path, pages, say), features, unlabelled=unlabelled, say=say)
    if path.suffix.lower() == ".parquet":
        return read_table(read_parquet(path, pages), features, unlabelled=unlabelled, say=say)
    if path.suffix.lower() in TEXT_SUFFIXES:
        return read_table(read_text_table(path), features, unlabelled=unlabelled, say=say)
    if features:
        raise DataError(f"--{next(iter(features))}: goes with a table; a pickle holds its features itself")
    return read_mmsa(path, pages, unlabelled=unlabelled, say=say)
