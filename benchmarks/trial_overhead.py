"""What a trial costs beside its training, in real searches on this machine; one JSON line. Linux only.

Workers note for each trial when it ended, how long its epochs took and their memory: the proportional set size, in
which a page that two processes share counts half for each.
"""

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepmlf.config.trial import TrialConfig
from deepmlf.data.synthetic import make_synthetic
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings

ROOT = Path(__file__).resolve().parent.parent
TIMES = "times.json"
BASE = {
    "model.fusion_depth": 2, "model.max_text_len": 24, "model.av_frames": 20,
    "training.batch_size": 16, "curriculum.name": "joint",
}  # fmt: skip
SPACE = f"""
BASE = {BASE!r}


def space(trial):
    return {{"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 4, 12)}}
"""

Report = Callable[[dict[str, Any], Path | None], None]


def memory() -> dict[str, int]:
    """Bytes of this process: its proportional set size, whole and by anonymous and file-mapped pages."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return {name: 1024 * int(kib) for name, kib in re.findall(r"^(Pss|Pss_Anon|Pss_File): +(\d+) kB", text, re.M)}


def timed_train(config: TrialConfig, report: Report, *, out_dir: Path, **options: Any) -> None:
    """The trainer, with notes beside what it writes."""
    from deepmlf.training.trainer import train

    notes: dict[str, Any] = {"pid": os.getpid(), "called": time.time(), "training": 0.0}

    def noted_report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        notes.setdefault("started", time.time() - metrics["time/epoch_seconds"])
        notes["training"] += metrics["time/epoch_seconds"]
        notes["trained_parameters"] = metrics["model/trained_parameters"]
        notes["checkpoint"] = sum(path.stat().st_size for path in checkpoint.iterdir()) if checkpoint else 0
        # In the first epoch, while both of two trials are there: a worker that ends leaves its pages to the other.
        notes.setdefault("memory", memory())
        report(metrics, checkpoint)

    train(config, noted_report, out_dir=out_dir, **options)
    _note(out_dir, notes)


def no_training(config: TrialConfig, report: Report, *, out_dir: Path, **options: Any) -> None:
    """A trial that does nothing."""
    _note(out_dir, {"pid": os.getpid()})
    report({"stage": "fusion", "epoch": 1, "fusion_epoch": 1, "valid/MAE": 1.0, "finished": "full"}, None)


def _note(out_dir: Path, notes: dict[str, Any]) -> None:
    (out_dir / TIMES).write_text(json.dumps(notes | {"ended": time.time()}))


def search(folder: Path, name: str, train: str, **settings: Any) -> list[dict[str, Any]]:
    """Run a search and return its trials' notes in the order in which they ended."""
    run_search(
        SearchSettings(
            data=str(folder / "data"),
            space=str(folder / "space.py"),
            storage=str(folder),
            name=name,
            scheduler="none",
            train_function=f"benchmarks.trial_overhead:{train}",
            quiet=True,
            **settings,
        )
    )
    notes = [json.loads(path.read_text()) for path in (folder / name).glob(f"trials/*/{TIMES}")]
    return sorted(notes, key=lambda note: note["ended"])


def measure(folder: Path, trials: int, epochs: int) -> dict[str, Any]:
    """All figures, from three searches in `folder`."""
    make_synthetic(folder / "data", sizes=(128, 32, 32))
    (folder / "space.py").write_text(SPACE)
    empty = search(folder, "empty", "no_training", trials=20, epochs=1)
    began = time.time()
    one = search(folder, "one", "timed_train", trials=trials, epochs=epochs)
    two = search(folder, "two", "timed_train", trials=2, epochs=epochs, concurrent=2)
    pairs = [(before, after) for before, after in zip(one, one[1:], strict=False) if before["pid"] == after["pid"]]
    last = one[-1]
    alone, both = last["memory"], [note["memory"] for note in two]
    return {
        "benchmark": "trial_overhead",
        "seconds_beside_training_first": round(one[0]["ended"] - began - one[0]["training"], 2),
        "seconds_beside_training_later": _median(b["ended"] - a["ended"] - b["training"] for a, b in pairs),
        "seconds_from_end_to_training": _median(b["started"] - a["ended"] for a, b in pairs),
        "seconds_of_an_empty_trial": round((empty[-1]["ended"] - empty[0]["ended"]) / (len(empty) - 1), 3),
        "checkpoint_bytes_to_trained_and_moments": round(last["checkpoint"] / (12 * last["trained_parameters"]), 3),
        "memory_mb_of_one": _megabytes(alone),
        "memory_mb_of_two": _megabytes({name: sum(each[name] for each in both) for name in alone}),
        "second_adds": round(sum(each["Pss"] for each in both) / alone["Pss"] - 1, 3),
        "seconds_both_were_at_work": round(min(n["ended"] for n in two) - max(n["called"] for n in two), 1),
    }


def _median(values: Any) -> float:
    return round(statistics.median(values), 3)


def _megabytes(memory: dict[str, int]) -> dict[str, int]:
    return {name: round(value / 1e6) for name, value in memory.items()}


def importable_by_workers() -> None:
    """Let Ray's workers import the benchmarks, which are no part of the installed package."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    importable_by_workers()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), options.trials, options.epochs)))


if __name__ == "__main__":
    main()
