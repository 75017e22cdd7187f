"""What becomes of experiments and models when one of their files is damaged; one JSON line.

Each time one file of a whole copy is cut short, has bits flipped or a block zeroed, and then all is read as users do:
trials and curves of an experiment, predictions of a trial, of an exported model and on a dataset, and a training that
goes on from a checkpoint. What comes of it is the same as from the whole copy, or less of the same (as after a kill),
or an error that names the file. Anything else is a fault.
"""

import argparse
import json
import shutil
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import TrialState

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.experiment import Experiment
from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.synthetic import make_synthetic
from deepmlf.errors import DeepMLFError
from deepmlf.inference.export import export_trial
from deepmlf.inference.predictor import Predictor
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.machine.speed import without_measurements
from deepmlf.training.trainer import train
from deepmlf.tune.experiment.layout import JOURNAL, MANIFEST, METRICS, TRIALS
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import create_study, end_early

SMALL = {
    "model.language_model": "tiny-random", "model.fusion_depth": 2, "model.num_fusion_tokens": 3,
    "model.max_text_len": 16, "model.av_frames": 6, "model.av_layers": 1, "model.lora_rank": 4,
    "training.epochs": 2, "training.batch_size": 16, "training.lr_fusion": 1e-3, "curriculum.av_epochs": 1,
}  # fmt: skip
Told = dict[str, Any]
"""What reading tells, by what it is about; of two readings, one tells less if it lacks some of the other's."""


@dataclass(frozen=True)
class Subject:
    """Something made of files, and how it is read."""

    name: str
    folder: Path
    """Whole; it is never damaged."""
    files: tuple[str, ...]
    """Those that are damaged, by their paths in it."""
    read: Callable[[Path], Told]
    """Reads a copy, which it may change."""


def damage(content: bytes, how: str, rng: np.random.Generator) -> bytes:
    """The content with something gone or wrong: ``cut``, ``flip`` (of a bit), ``flips`` or ``zeros`` (a block)."""
    spoilt = np.frombuffer(content, np.uint8).copy()
    at = int(rng.integers(len(spoilt)))
    if how == "cut":
        return content[:at]
    if how == "zeros":
        spoilt[at : at + int(rng.integers(1, 513))] = 0
    for place in rng.integers(len(spoilt), size=8) if how == "flips" else [at] if how == "flip" else []:
        spoilt[place] ^= 1 << int(rng.integers(8))
    return spoilt.tobytes()


def outcome(subject: Subject, whole: Told, name: str, content: bytes, scratch: Path) -> tuple[str, str]:
    """What reading a copy with that content of a file comes to, and what was said.

    Returns:
        ``same``, ``less`` or ``refused``, which are right; ``wrong``, ``unnamed`` (an error without the file) or
        ``traceback``.
    """
    copy = scratch / subject.folder.name
    shutil.copytree(subject.folder, copy)
    (copy / name).write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = subject.read(copy)
    except DeepMLFError as error:
        return ("refused" if Path(name).name in str(error) else "unnamed"), str(error)
    except Exception:  # whatever it is, a user would see its stack: that is what is looked for
        return "traceback", traceback.format_exc()
    finally:
        shutil.rmtree(copy)
    different = [about for about, value in told.items() if whole.get(about) != value]
    if different:
        return "wrong", f"{different[0]}: {told[different[0]]}, not {whole.get(different[0])}"
    return ("same" if told.keys() == whole.keys() else "less"), ""


def experiment_subject(root: Path) -> Subject:
    """An experiment of a few trials, its journal line by line as a search writes it."""
    folder = make_experiment(root / "search", 6, epochs=4, failed=(2,), seed=3)
    experiment = open_experiment(folder)
    trials = experiment.study.get_trials()
    (folder / JOURNAL).unlink()
    study = create_study(folder, folder.name, None, experiment.objectives)
    for known in trials:
        study.enqueue_trial(known.params)
        trial = study.ask(known.distributions)
        for name, value in known.user_attrs.items():
            trial.set_user_attr(name, value)
        for step, value in known.intermediate_values.items():
            trial.report(value, step)
        if known.state == TrialState.PRUNED:
            end_early(study, trial.number, known.values)
        else:
            study.tell(trial, known.values if known.state == TrialState.COMPLETE else None, state=known.state)
    files = [folder / MANIFEST, folder / JOURNAL, *sorted(folder.glob(f"{TRIALS}/*/{METRICS}"))]
    return Subject("experiment", folder, tuple(str(path.relative_to(folder)) for path in files), told_of_experiment)


def told_of_experiment(folder: Path) -> Told:
    """Each trial's parameters and, once it has ended, how; and each of its epochs."""
    experiment = Experiment(folder)
    told: Told = {("settings",): open_experiment(folder).manifest.settings.model_dump_json()}
    for trial in open_experiment(folder).trials():
        if trial.state == TrialState.RUNNING:
            continue
        told[trial.number,] = (trial.params, trial.state.name, trial.values)
    for row in experiment.curves.to_pylist():
        if row["fusion_epoch"] is not None:
            told[row["trial"], row["fusion_epoch"]] = {key: row[key] for key in ("valid/MAE", "valid/Corr", "seconds")}
    for row in experiment.trials.to_pylist():
        if row["state"] == "COMPLETE":
            told[row["trial"], "best"] = row["valid/MAE"]
    return told


def trial_subjects(root: Path) -> Iterator[Subject]:
    """A dataset, a trained trial on it, a training that was broken off, and an exported model."""
    data = root / "data"
    make_synthetic(data, seed=1, sizes=(48, 24, 24))
    config = TrialConfig.from_overrides(SMALL, {"data.path": str(data)})
    trained, broken, exported = root / "trained", root / "broken", root / "exported"
    for folder, last in ((trained, 3), (broken, 2)):
        run(folder, config, last)
    export_trial(trained, exported)
    split = Dataset.open(data)

    def predictions(folder: Path) -> Told:
        table = Predictor.open(folder).predict(split, "test")
        return {row["id"]: row for row in table.to_pylist()}

    def goes_on(folder: Path) -> Told:
        return {report["epoch"]: report for report in run(folder, config, 3) if report["epoch"] == 3}

    best = [f"best/{name}" for name in ("state.json", "model.safetensors")]
    newest = latest_checkpoint(broken)
    if newest is None:
        raise RuntimeError("no checkpoint was written")
    parts = tuple(str(path.relative_to(broken)) for path in sorted(newest.iterdir()))
    model = Predictor.open(exported)

    def of_all_splits(folder: Path) -> Told:
        damaged = Dataset.open(folder)
        told: Told = {("info",): damaged.info}
        for name in damaged.info.splits:
            told |= {(name, row["id"]): row for row in model.predict(damaged, name).to_pylist()}
        return told

    files = ("info.json", "train.arrow", "valid.arrow", "test.arrow")
    yield Subject("dataset", data, files, of_all_splits)
    yield Subject("trial", trained, ("config.json", *best), predictions)
    yield Subject("exported model", exported, ("config.json", "model.safetensors"), predictions)
    yield Subject("checkpoint", broken, parts, goes_on)


def run(folder: Path, config: TrialConfig, last: int) -> list[dict[str, Any]]:
    """Train to an epoch, from a checkpoint if there is one; what each epoch reported but for times."""
    reports: list[dict[str, Any]] = []

    def report(metrics: Any, checkpoint: Path | None) -> None:
        reports.append(without_measurements(dict(metrics)))
        if metrics["epoch"] == last:
            raise InterruptedError

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.to_json())
    try:
        train(config, report, out_dir=folder, resume_from=latest_checkpoint(folder))
    except InterruptedError:
        pass
    return reports


def subjects(root: Path) -> list[Subject]:
    """All that is damaged, made anew."""
    return [experiment_subject(root), *trial_subjects(root)]


def cases(subject: Subject, count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Files of a subject in turn, how each is damaged, and what it holds then."""
    rng = np.random.default_rng((seed, len(subject.name)))
    for number in range(count):
        name = subject.files[number % len(subject.files)]
        how = ("cut", "flip", "flips", "zeros")[int(rng.integers(4))]
        yield name, how, damage((subject.folder / name).read_bytes(), how, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # on tensors as small as these a second thread only waits
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as root:
        all_of_them = subjects(Path(root) / "whole")
        for subject in all_of_them:
            with tempfile.TemporaryDirectory(dir=root) as scratch:
                shutil.copytree(subject.folder, Path(scratch) / subject.folder.name)
                whole = subject.read(Path(scratch) / subject.folder.name)
            found[subject.name] = Counter()
            for name, how, content in cases(subject, options.files // len(all_of_them), options.seed):
                with tempfile.TemporaryDirectory(dir=root) as scratch:
                    came_to, said = outcome(subject, whole, name, content, Path(scratch))
                found[subject.name][came_to] += 1
                if came_to not in ("same", "less", "refused"):
                    print(f"{subject.name}, {name}, {how}: {came_to}: {said}", flush=True)
    print(json.dumps({"files": options.files, "seed": options.seed} | found))


if __name__ == "__main__":
    main()
