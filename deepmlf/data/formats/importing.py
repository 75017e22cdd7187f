"""`deepmlf data import`: a file in one of several formats becomes a dataset."""

from collections.abc import Callable, Mapping
from pathlib import Path

from deepmlf.data.dataset import DatasetInfo, check_out
from deepmlf.data.formats.content import Content, task_of, write_content
from deepmlf.data.formats.mmsa import read_mmsa
from deepmlf.data.formats.table import is_table, read_table
from deepmlf.data.paging import Pages
from deepmlf.errors import DataError


def import_dataset(
    source: str | Path,
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
    """Import a pickle, or a table beside folders of features, into a dataset folder that is memory-mapped.

    Of a pickle in the layout of MMSA, sequences are stored without their padding: by ``audio_lengths`` and
    ``vision_lengths`` where given, else by dropping all-zero frames at both ends. A modality that is zero throughout,
    None or not there is accepted and listed as missing.

    >>> info = import_dataset("MOSI.pkl", "runs/imported", "mosi", lowercase=True)
    >>> info.splits, info.audio_dim, info.vision_dim
    ({'train': 3, 'valid': 3, 'test': 3}, 2, 4)

    Args:
        source: The pickle: ``{"train" | "valid" | "test": {...}}``, or for each split a list of
            ``((words, visual, acoustic), label, segment)`` (MAG-BERT, MISA); gzip, bzip2 or xz may have compressed it.
            Or a table (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``), see `read_table`.
        out: Folder to write.
        dataset: ``mosi``, ``mosei`` or ``sims``, whose metrics and label range are known; or any other name, with a
            `label_range` or `classification`.
        lowercase: Lower-case the texts, as ASR transcripts want.
        audio: Of a table, folder with a ``.npy`` file [frames, features] for each utterance.
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
    source, out = Path(source), Path(out)
    check_out(out, force)
    pages = Pages(out.parent)
    folders = {name: Path(folder) for name, folder in (("audio", audio), ("vision", vision)) if folder is not None}
    return write_content(
        _read(source, folders, pages, unlabelled=unlabelled, say=progress),
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
    source: Path, folders: Mapping[str, Path], pages: Pages, *, unlabelled: bool, say: Callable[[str], None]
) -> Content:
    if is_table(source):
        return read_table(source, folders, unlabelled=unlabelled, say=say)
    if folders:
        raise DataError(f"--{next(iter(folders))}: goes with a table; a pickle holds its features itself")
    return read_mmsa(source, pages, unlabelled=unlabelled, say=say)
