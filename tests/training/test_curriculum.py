"""Curricula: their stages by construction, and what each of them trains, freezes and leaves out."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import CheckpointError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.curriculum import Underway, epoch_words, stages_of, underway, whole_model_from
from deepmlf.training.reports import EpochReport, best_epoch
from deepmlf.training.trainer import Trainer
from tests.sealed import content_of, write
from tests.training.small_trial import config_of, run, without_times

CURRICULA = ["joint", "av_first", "av_frozen", "unimodal_first", "grow_depth"]


def newest(folder: Path, part: str = "model") -> dict[str, Tensor]:
    return load_file((latest_checkpoint(folder) or folder) / f"{part}.safetensors")


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Modules (``mm_blocks.3``, ``text_head``, ...) of which some weight differs."""
    names = {name for name in before if not torch.equal(before[name], after[name])}
    return {".".join(name.split(".")[: 2 if name.startswith("mm_blocks") else 1]) for name in names}


@pytest.mark.parametrize("name", CURRICULA)
def test_every_schedule_is_legal(name: str) -> None:
    for epochs, depth, share in itertools.product([1, 2, 3, 7, 15, 100], [1, 2, 5, 8], [0.0, 0.01, 0.5, 0.99]):
        config = TrialConfig.from_overrides({
            "curriculum.name": name, "curriculum.av_share": share, "curriculum.text_share": share,
            "curriculum.grow_share": share, "model.fusion_depth": depth, "training.epochs": epochs,
        })  # fmt: skip
        stages = stages_of(config)
        assert sum(stage.epochs for stage in stages if stage.is_fusion) == epochs
        assert [stage.is_fusion for stage in stages] == sorted(stage.is_fusion for stage in stages)
        assert all(stage.epochs >= 1 for stage in stages)
        assert all(stage.epochs == max(1, round(share * epochs)) for stage in stages if not stage.is_fusion)
        active = [stage.active_blocks or depth for stage in stages if stage.is_fusion]
        assert active == sorted(set(active))
        assert 1 <= active[0] <= active[-1] == depth


def test_blocks_join_one_by_one_while_epochs_last() -> None:
    def growth(epochs: int) -> list[tuple[int | None, int]]:
        overrides = {"curriculum.name": "grow_depth", "model.fusion_depth": 4, "training.epochs": epochs}
        return [(stage.active_blocks, stage.epochs) for stage in stages_of(TrialConfig.from_overrides(overrides))]

    assert growth(12) == [(1, 2), (2, 2), (3, 2), (None, 6)]
    assert growth(4) == [(2, 1), (3, 1), (None, 2)]
    assert growth(1) == [(None, 1)]


@pytest.mark.parametrize(
    ("curriculum", "before_fusion"),
    [("joint", []), ("av_first", ["av"] * 2), ("av_frozen", ["av"] * 2), ("unimodal_first", ["av"] * 2 + ["text"])],
)
def test_only_fusion_epochs_count(tmp_path: Path, small_data: Path, curriculum: str, before_fusion: list[str]) -> None:
    reports = run(tmp_path, small_data, curriculum__name=curriculum, curriculum__text_epochs=1)
    first = len(before_fusion)
    assert [report["stage"] for report in reports] == before_fusion + ["fusion"] * 3
    assert [report.get("fusion_epoch") for report in reports] == [None] * first + [1, 2, 3]
    assert [report.get("finished") for report in reports] == [None] * (first + 2) + ["full"]
    assert [report["curriculum/stage"] for report in reports][-1] == len(set(before_fusion))
    assert {"valid/MAE", "train/loss", "loss/task", "lr/fusion", "gate/3/ffn"} <= reports[-1].keys()
    assert not any(name.startswith("valid/") for report in reports[:first] for name in report)


def test_growing_epochs_are_fusion_epochs_and_show_what_is_active(tmp_path: Path, small_data: Path) -> None:
    reports = run(tmp_path, small_data, curriculum__name="grow_depth", model__fusion_layers=[1, 2, 3],
                  training__epochs=4)  # fmt: skip
    assert [report["stage"] for report in reports] == ["fusion_1", "fusion_2", "fusion", "fusion"]
    assert [report["fusion_epoch"] for report in reports] == [1, 2, 3, 4]
    assert [report["curriculum/stage"] for report in reports] == [0, 1, 2, 2]
    assert [report["curriculum/active_blocks"] for report in reports] == [1, 2, 3, 3]
    assert [sum(name.endswith("/ffn") for name in report) for report in reports] == [1, 2, 3, 3]


@pytest.mark.parametrize("stage", ["av", "text", "fusion_1", "fusion_2"])
def test_a_stage_changes_what_it_trains_and_nothing_else(tmp_path: Path, small_data: Path, stage: str) -> None:
    settings = {
        "curriculum__name": "grow_depth" if stage.startswith("fusion") else "unimodal_first",
        "model__fusion_layers": [1, 2, 3], "model__av_batch_norm": "both",
        "training__epochs": 4, "training__weight_decay": 0.5,
    }  # fmt: skip
    heads = {"task_head", "av_head", "text_head", "fusion_head"}
    first, trained = {
        "av": (1, {"av_encoder", "av_head"}),
        "text": (3, {"text_head"}),
        "fusion_1": (None, heads | {"av_encoder", "fusion_tokens", "mm_blocks.3"}),
        "fusion_2": (1, heads | {"av_encoder", "fusion_tokens", "mm_blocks.3", "mm_blocks.2"}),
    }[stage]
    if first is None:
        before = Trainer(config_of(small_data, **settings), tmp_path).model.state_dict()
    else:
        run(tmp_path, small_data, stop_after=first, **settings)
        before = newest(tmp_path)
    reports = run(
        tmp_path, small_data, resume_from=latest_checkpoint(tmp_path), stop_after=(first or 0) + 1, **settings
    )
    assert reports[-1]["stage"] == stage
    after = newest(tmp_path)
    assert changed({name: before[name] for name in after}, after) == trained


def test_av_frozen_leaves_the_av_encoder_as_its_stage_left_it(tmp_path: Path, small_data: Path) -> None:
    settings = {"curriculum__name": "av_frozen", "model__av_batch_norm": "both"}
    run(tmp_path, small_data, stop_after=2, **settings)
    before = newest(tmp_path)
    run(tmp_path, small_data, resume_from=latest_checkpoint(tmp_path), **settings)
    assert "av_encoder" not in changed(before, newest(tmp_path))


def test_a_stage_switch_keeps_the_optimiser_state_of_what_goes_on_training(tmp_path: Path, small_data: Path) -> None:
    run(tmp_path, small_data, stop_after=2)
    before = newest(tmp_path, "optimizer")
    run(tmp_path, small_data, resume_from=latest_checkpoint(tmp_path), stop_after=3)
    after = newest(tmp_path, "optimizer")
    batches = 4  # 49 utterances in batches of 16, the last of one joined to the one before
    steps = {name: int(after[name]) for name in after if name.endswith(".step")}
    assert {name.partition(".")[0] for name in before} == {"av_encoder", "av_head"}
    assert steps["av_encoder.join.weight.step"] == steps["av_head.weight.step"] == 3 * (batches - 1)
    assert steps["fusion_tokens.step"] == batches - 1


def test_second_moments_decay_from_where_the_last_stage_left_them(tmp_path: Path, small_data: Path) -> None:
    trainer = Trainer(config_of(small_data), tmp_path)
    av, fusion = trainer.stages
    name = "av_encoder.join.weight"
    for stage in (av, av):
        trainer._run_epoch(stage, lambda metrics, checkpoint: None)
    before = trainer.optimizer.state[trainer.parameters[name]]["exp_avg_sq"].clone()
    trainer._run_epoch(fusion, lambda metrics, checkpoint: None)
    after = trainer.optimizer.state[trainer.parameters[name]]["exp_avg_sq"]
    assert torch.all(before > 0)
    assert torch.all(after >= before * 0.95**3 * (1 - 1e-5))  # three steps of β₂ = 0.95


@pytest.mark.parametrize("curriculum", ["unimodal_first", "grow_depth"])
def test_resume_is_bit_equal_across_stages(tmp_path: Path, small_data: Path, curriculum: str) -> None:
    settings = {"curriculum__name": curriculum, "model__fusion_layers": [1, 2, 3], "training__epochs": 4}
    whole = run(tmp_path / "whole", small_data, **settings)
    parts = []
    for stop in range(1, len(whole) + 1):
        checkpoint = latest_checkpoint(tmp_path / "parts")
        reports = run(tmp_path / "parts", small_data, resume_from=checkpoint, stop_after=stop, **settings)
        parts += reports if checkpoint is None else reports[1:]  # the checkpoint's own epoch is reported again
    assert without_times(parts) == without_times(whole)


def test_weights_of_a_growth_stage_are_evaluated_with_the_blocks_they_had(tmp_path: Path, small_data: Path) -> None:
    settings = {"curriculum__name": "grow_depth", "model__fusion_layers": [1, 2, 3], "training__epochs": 4}
    reports = run(tmp_path, small_data, stop_after=1, **settings)
    assert reports[0]["curriculum/active_blocks"] == 1
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    shutil.copytree(checkpoint, tmp_path / "best")  # as the first release kept them
    assert evaluate_trial(tmp_path, split="valid")["MAE"] == pytest.approx(reports[0]["valid/MAE"], abs=1e-6)
    state = tmp_path / "best" / "state.json"
    metadata = content_of(state)
    assert metadata.pop("active_layers") == [3]
    write(state, metadata)
    assert evaluate_trial(tmp_path, split="valid")["MAE"] != pytest.approx(reports[0]["valid/MAE"], abs=1e-4)


def test_the_best_epoch_and_the_parameters_are_those_of_the_whole_model(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Trainer._validate

    def better_while_growing(trainer: Trainer, head: Any) -> tuple[dict[str, float], dict[str, float]]:
        missing = len(trainer.model.fusion_layers) - len(trainer.model.active_layers)
        valid, beside = validate(trainer, head)
        return valid | {"MAE": 0.9 - 0.2 * missing - 0.01 * trainer.position.epoch}, beside

    monkeypatch.setattr(Trainer, "_validate", better_while_growing)
    settings = {"curriculum__name": "grow_depth", "model__fusion_layers": [1, 2, 3], "training__epochs": 6}
    reports = [EpochReport(metrics) for metrics in run(tmp_path, small_data, **settings)]
    assert [report.get("curriculum/missing_blocks") for report in reports] == [2, 1, 1, None, None, None]
    assert [report.is_whole for report in reports] == [False] * 3 + [True] * 3
    best = best_epoch(reports, "valid/MAE", "minimize")
    assert best is not None
    assert best.fidelity == 6
    assert json.loads((tmp_path / "best" / "state.json").read_text())["fusion_epoch"] == 6
    config = config_of(small_data, **settings)
    assert whole_model_from(config) == 4
    model = Trainer(config, tmp_path / "again").model
    block = sum(parameter.numel() for parameter in model.mm_blocks["3"].parameters() if parameter.requires_grad)
    counted = [report.get("model/trained_parameters") for report in reports]
    whole = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert counted == [whole - 2 * block, whole - block, whole - block, whole, whole, whole]


def test_a_trial_stopped_while_it_grew_has_no_best_weights(tmp_path: Path, small_data: Path) -> None:
    run(tmp_path, small_data, stop_after=1, curriculum__name="grow_depth", training__epochs=4)
    with pytest.raises(CheckpointError, match=r"has no best weights; let it train for one fusion epoch with all MM"):
        evaluate_trial(tmp_path, split="valid")


def test_patience_waits_until_all_blocks_had_their_chance(tmp_path: Path, small_data: Path) -> None:
    trainer = Trainer(
        config_of(small_data, curriculum__name="grow_depth", training__epochs=8, training__patience=2), tmp_path
    )
    assert [stage.epochs for stage in trainer.stages] == [4, 4]
    metrics: dict[str, str] = {}
    while not metrics:  # epochs of which none is better than the first
        trainer.position.fusion_epoch += 1
        trainer.position.stage_epoch += 1
        trainer._advance(trainer.stages[trainer.position.stage], metrics)
    assert metrics == {"finished": "patience"}
    assert trainer.position.fusion_epoch == 6


def reported(*epochs: tuple[str, int, int | None], **more: Any) -> list[EpochReport]:
    """Reports by stage, epoch and fusion epoch."""
    return [
        EpochReport({"stage": stage, "epoch": epoch} | ({} if fidelity is None else {"fusion_epoch": fidelity}) | more)
        for stage, epoch, fidelity in epochs
    ]


def test_where_a_trial_stands_is_its_stage_now_and_not_that_of_its_last_report() -> None:
    lengths = {"training.epochs": 9, "curriculum.av_epochs": 2, "curriculum.text_epochs": 3}
    config = TrialConfig.from_overrides({"curriculum.name": "unimodal_first"} | lengths)
    assert underway(config, []) == Underway("av", 0, 2, 14)
    epochs = reported(("av", 1, None), ("av", 2, None), ("text", 3, None), ("text", 4, None), ("text", 5, None),
                      ("fusion", 6, 1), ("fusion", 14, 9))  # fmt: skip
    seen = [(underway(config, epochs[:count]).words, epoch_words(config, epochs[:count])) for count in range(1, 8)]
    assert seen == [
        ("av 1 of 2", "av epoch 1 of 2"), ("text 0 of 3", "av epoch 2 of 2"), ("text 1 of 3", "text epoch 1 of 3"),
        ("text 2 of 3", "text epoch 2 of 3"), ("fusion 0 of 9", "text epoch 3 of 3"),
        ("fusion 1 of 9", "fusion epoch 1 of 9"), ("fusion 9 of 9", "fusion epoch 9 of 9"),
    ]  # fmt: skip
    assert [underway(config, epochs[:count]).epochs_left for count in (1, 2, 4, 6, 7)] == [13, 12, 10, 8, 0]


def test_a_stage_that_its_patience_ended_is_over_for_who_watches() -> None:
    config = TrialConfig.from_overrides({"training.epochs": 9, "curriculum.av_epochs": 30, "curriculum.av_patience": 2})
    errors = [1.5, 1.2, 1.3, 1.25]
    reports = [reported(("av", epoch, None), **{"unimodal/av_MAE": error})[0] for epoch, error in enumerate(errors, 1)]
    assert underway(config, reports[:3]).words == "av 3 of 30"
    assert underway(config, reports) == Underway("fusion", 0, 9, 9)
    stored = reported(("av", 4, None), **{"curriculum/av_reused": 1})
    assert underway(config, stored).words == "fusion 0 of 9"


def test_blocks_that_join_are_one_fusion() -> None:
    config = TrialConfig.from_overrides(
        {"curriculum.name": "grow_depth", "training.epochs": 6, "curriculum.grow_share": 0.5, "model.fusion_depth": 2}
    )
    assert [(stage.name, stage.epochs) for stage in stages_of(config)] == [("fusion_1", 3), ("fusion", 3)]
    reports = reported(*((("fusion_1" if epoch < 4 else "fusion"), epoch, epoch) for epoch in range(1, 7)))
    assert underway(config, reports[:2]) == Underway("fusion_1", 2, 6, 4)
    assert underway(config, reports[:3]) == Underway("fusion", 3, 6, 3)
    assert epoch_words(config, reports[:3]) == "fusion_1, fusion epoch 3 of 6"
    assert epoch_words(config, reports) == "fusion epoch 6 of 6"
