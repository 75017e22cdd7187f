"""The record of a trial: what TensorBoard's own loader reads of it, across stages, restarts and releases."""

import json
import shutil
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepmlf.config.trial import TrialConfig
from deepmlf.events.recorder import TrialRecorder
from deepmlf.training.reports import EpochReport, read_reports

EARLIER = Path(__file__).resolve().parents[1] / "fixtures" / "experiment_0_1_0" / "small" / "trials"
CONFIG = TrialConfig.from_overrides(
    {"curriculum.name": "av_first", "curriculum.av_epochs": 4, "model.fusion_depth": 3, "model.num_fusion_tokens": 6}
)


def reports(before: int, fusion: int) -> list[EpochReport]:
    """So many epochs before fusion, then in it; the second fusion epoch is the best."""
    alone: list[dict[str, Any]] = [
        {"stage": "av", "epoch": epoch, "train/loss": 9.0, "unimodal/av_MAE": 1.5} for epoch in range(1, before + 1)
    ]
    maes = [0.9, 0.4, 0.7, 0.8]
    fused = [
        {"stage": "fusion", "epoch": before + epoch, "fusion_epoch": epoch, "train/loss": 1.0, "valid/MAE": mae}
        for epoch, mae in enumerate(maes[:fusion], start=1)
    ]
    return [EpochReport(metrics) for metrics in alone + fused]


def record(folder: Path, given: list[EpochReport], config: TrialConfig = CONFIG) -> TrialRecorder:
    recorder = TrialRecorder(folder, config, "valid/MAE", "minimize")
    recorder.start({}, {})
    for report in given:
        recorder.add(report)
    return recorder


def steps(folder: Path) -> dict[str, list[int]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_steps_are_fusion_epochs_however_long_the_stages_before_are(tmp_path: Path) -> None:
    for before in (0, 4):
        record(tmp_path / str(before), reports(before, 3))
    short, long = steps(tmp_path / "0"), steps(tmp_path / "4")
    assert short["valid/MAE"] == short["train/loss"] == [1, 2, 3]
    assert {tag: long[tag] for tag in short} == short
    assert long["pre_fusion/unimodal/av_MAE"] == long["pre_fusion/train/loss"] == [1, 2, 3, 4]


def test_a_restart_leaves_the_stages_before_fusion_whole(tmp_path: Path) -> None:
    given = reports(4, 3)
    for count in (2, 5, 6, 7):  # within the stage before fusion, in the first fusion epoch, ...
        record(tmp_path, given[:count])
    assert steps(tmp_path)["pre_fusion/train/loss"] == [1, 2, 3, 4]
    assert steps(tmp_path)["train/loss"] == [1, 2, 3]


def test_the_best_value_stands_at_depth_tokens_and_curriculum(tmp_path: Path) -> None:
    record(tmp_path, reports(4, 3)).close("PRUNED")
    events = EventAccumulator(str(tmp_path)).Reload()
    found = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if tag.startswith("best_over_")}
    assert {tag: [(event.step, round(event.value, 6)) for event in values] for tag, values in found.items()} == {
        "best_over_depth/MAE": [(3, 0.4)],
        "best_over_tokens/MAE": [(6, 0.4)],
        "best_over_curriculum/MAE": [(1, 0.4)],
    }


def test_a_trial_without_a_fusion_epoch_ends_without_a_best_value(tmp_path: Path) -> None:
    record(tmp_path, reports(2, 0)).close("FAIL")
    assert not [tag for tag in steps(tmp_path) if tag.startswith("best")]


def test_a_trial_begun_by_an_earlier_release_is_put_on_the_same_axis(tmp_path: Path) -> None:
    trial = tmp_path / "0002_small"
    shutil.copytree(EARLIER / trial.name, trial)
    known, config = read_reports(trial), TrialConfig.from_dict(json.loads((trial / "config.json").read_text()))
    assert steps(trial)["valid/MAE"] == [3, 4, 5]  # the axis that it was begun on
    last = dict(known[-1].metrics)
    further = EpochReport(last | {"epoch": last["epoch"] + 1, "fusion_epoch": last["fusion_epoch"] + 1})
    record(trial, [further], config).close("COMPLETE")
    assert steps(trial)["valid/MAE"] == [1, 2, 3, 4]
    assert steps(trial)["trial/state"][-1] == 0
