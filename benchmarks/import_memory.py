"""Resident memory and seconds that an import takes, by the form of its source; one JSON line for each.

Sources of about `--gigabytes` are made of random numbers in the shapes of CMU-MOSEI's unaligned features, and each is
imported in a process of its own. Its peak is the kernel's (VmHWM), less what the process holds before it begins.
"""

import argparse
import gzip
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIMS = {"audio": 74, "vision": 35}
FRAMES = 500
SHARES = {"train": 0.72, "valid": 0.08, "test": 0.2}
BYTES = 4 * FRAMES * sum(DIMS.values())
"""Of an utterance that is padded to the full number of frames, in float32."""
Source = tuple[Path, dict[str, Any]]
"""A file or folder, and options of the import."""


def splits_of(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each split in the layout of MMSA, padded with zeros behind, with lengths from half of the frames to all."""
    generator = np.random.default_rng(0)
    for name, share in SHARES.items():
        rows = max(2, round(count * share))
        lengths = generator.integers(FRAMES // 2, FRAMES + 1, rows)
        split: dict[str, Any] = {
            "id": [f"{name}$_${row}" for row in range(rows)],
            "raw_text": [f"utterance {row} of {name}" for row in range(rows)],
            "regression_labels": generator.uniform(-3, 3, rows),
        }
        for modality, dim in DIMS.items():
            split[modality] = np.zeros((rows, FRAMES, dim), np.float32)
            for row, length in enumerate(lengths):
                split[modality][row, :length] = generator.standard_normal((length, dim), np.float32)
            split[f"{modality}_lengths"] = lengths
        yield name, split


def write_pickle(folder: Path, count: int, protocol: int) -> Source:
    with (folder / "data.pkl").open("wb") as file:
        pickle.dump(dict(splits_of(count)), file, protocol)
    return folder / "data.pkl", {}


def write_fortran(folder: Path, count: int) -> Source:
    content = dict(splits_of(count))
    for split in content.values():
        for modality in DIMS:
            split[modality] = np.asfortranarray(split[modality])
    with (folder / "data.pkl").open("wb") as file:
        pickle.dump(content, file, 5)
    return folder / "data.pkl", {}


def write_compressed(folder: Path, count: int) -> Source:
    path, options = write_pickle(folder, count, 4)
    with path.open("rb") as plain, gzip.open(folder / "data.pkl.gz", "wb", compresslevel=1) as file:
        while piece := plain.read(1 << 24):
            file.write(piece)
    path.unlink()
    return folder / "data.pkl.gz", options


def write_mag(folder: Path, count: int) -> Source:
    """In float64 and of two thirds as many utterances, which have no padding there."""
    content = {
        name: [
            ((["word"] * 20, *(split[of][row, :length].astype(np.float64) for of in ("vision", "audio"))), label, name_)
            for row, (length, label, name_) in enumerate(
                zip(split["audio_lengths"], split["regression_labels"], split["id"], strict=True)
            )
        ]
        for name, split in splits_of(count * 2 // 3)
    }
    (folder / "data.pkl").write_bytes(pickle.dumps(content))
    return folder / "data.pkl", {}


def write_lists(folder: Path, count: int) -> Source:
    content = dict(splits_of(count * 4 // 9))  # a number takes nine bytes instead of four
    for split in content.values():
        for modality in DIMS:
            split[modality] = split[modality].tolist()
    with (folder / "data.pkl").open("wb") as file:
        pickle.dump(content, file)
    return folder / "data.pkl", {}


def columns_of(count: int) -> pa.Table:
    """A table with features in columns, without their padding."""
    tables = []
    for name, split in splits_of(count * 4 // 3):
        columns = {"id": split["id"], "text": split["raw_text"], "label": split["regression_labels"]}
        table = pa.table(columns | {"split": [name] * len(split["id"])})
        for modality, dim in DIMS.items():
            lengths = split[f"{modality}_lengths"]
            rows = (frames[:length] for frames, length in zip(split[modality], lengths, strict=True))
            values = np.concatenate([frames.ravel() for frames in rows])
            frames = pa.ListArray.from_arrays(np.arange(0, len(values) + 1, dim, np.int32), values)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            table = table.append_column(modality, pa.ListArray.from_arrays(offsets, frames))
        tables.append(table)
    return pa.concat_tables(tables)


def write_parquet(folder: Path, count: int) -> Source:
    pq.write_table(columns_of(count), folder / "table.parquet")
    return folder / "table.parquet", {}


def write_saved(folder: Path, count: int) -> Source:
    """In the form of ``save_to_disk``."""
    table = columns_of(count)
    with pa.ipc.new_stream(folder / "data.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder, {}


def write_folders(folder: Path, count: int) -> Source:
    lines = []
    for name, split in splits_of(count):
        for row, utterance in enumerate(split["id"]):
            lines.append({"id": utterance, "split": name, "text": split["raw_text"][row],
                          "label": split["regression_labels"][row]})  # fmt: skip
            for modality in DIMS:
                (folder / modality).mkdir(exist_ok=True)
                np.save(folder / modality / f"{utterance}.npy", split[modality][row])
    (folder / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "table.jsonl", {modality: folder / modality for modality in DIMS}


FORMS: dict[str, Callable[[Path, int], Source]] = {
    "pickle, protocol 4": lambda folder, count: write_pickle(folder, count, 4),
    "pickle, protocol 5": lambda folder, count: write_pickle(folder, count, 5),
    "pickle, protocol 2": lambda folder, count: write_pickle(folder, count, 2),
    "pickle, Fortran order": write_fortran,
    "pickle, lists of numbers": write_lists,
    "pickle of MAG-BERT": write_mag,
    "pickle, gzip": write_compressed,
    "table and folders": write_folders,
    "Parquet, columns": write_parquet,
    "Hugging Face datasets": write_saved,
}


def peak() -> int:
    """Most bytes that have been resident of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(source: Source, out: Path) -> dict[str, float]:
    """Seconds and bytes of one import in this process."""
    from deepmlf.data.formats.importing import import_dataset

    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    import_dataset(source[0], out, force=True, **source[1])
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    return {"bytes": peak() - before, **{name: round(value, 1) for name, value in seconds.items()}}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measured(form: str, gigabytes: float, folder: Path) -> dict[str, Any]:
    """What the import of a source of a form takes.

    Args:
        form: One of `FORMS`.
        gigabytes: About its size, if its numbers were padded and in float32.
        folder: An empty one, for the source and the dataset.
    """
    source = folder / "source"
    source.mkdir()
    made = FORMS[form](source, round(gigabytes * 1e9 / BYTES))
    size = size_of(source)
    code = (
        "import json; from pathlib import PosixPath; from benchmarks.import_memory import measure; "
        f"print(json.dumps(measure({made!r}, PosixPath({str(folder / 'out')!r}))))"
    )
    found = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    return {"form": form, "gigabytes": round(size / 1e9, 2), "peak_share": round(found["bytes"] / size, 2), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    parser.add_argument("--folder", type=Path, help="where sources lie while they are measured")
    arguments = parser.parse_args()
    for form in arguments.forms:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(json.dumps(measured(form, arguments.gigabytes, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
