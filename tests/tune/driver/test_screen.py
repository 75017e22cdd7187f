"""The screen of a search and its plain lines: what they say of running trials, the best one, rungs and pace."""

import io
from typing import Any

import optuna
import pytest
from rich.console import Console

from deepmlf.training.reports import EpochReport, Seconds
from deepmlf.tune.decide.scheduler import Rung, make_scheduler, rungs_of
from deepmlf.tune.driver.screen import Best, RunningTrial, SearchScreen, duration
from deepmlf.tune.objective import make_objectives
from tests.tune.parts import RayTrial

OBJECTIVES = make_objectives(["valid/MAE"])


def epoch(number: int, stage: str = "fusion", **more: Any) -> EpochReport:
    return EpochReport({"stage": stage, "epoch": number, "train/loss": 1.0, "time/epoch_seconds": 60.0} | more)


def trial(number: int, *epochs: EpochReport) -> RunningTrial:
    return RunningTrial(number, epochs, {"MAE": 0.61}, planned_epochs=9, planned_fusion_epochs=6)


def progress(width: int = 100, *, terminal: bool = True, **changes: Any) -> tuple[SearchScreen, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    facts: dict[str, Any] = {"trials": 20, "ended": 0, "rungs": list} | changes
    return SearchScreen(console, "mosi", OBJECTIVES, **facts), out


def drawn(shown: SearchScreen, *arguments: Any) -> str:
    console = Console(width=100, color_system=None, file=io.StringIO())
    with console.capture() as capture:
        console.print(shown.screen(*arguments))
    return capture.get()


def test_the_screen_has_all_that_one_asks_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 700.0])
    monkeypatch.setattr("deepmlf.tune.driver.screen.time.monotonic", lambda: next(clock))
    rungs = [Rung(1, 12, 0.71), Rung(3, 0, None)]
    shown, _ = progress(ended=2, rungs=lambda: rungs)
    running = [
        trial(12, epoch(3, "av"), epoch(4, fusion_epoch=1, **{"valid/MAE": 0.62, "speed/utterances_per_second": 40.4})),
        trial(13),
    ]
    best = Best(7, 0.5703, {"model.num_fusion_tokens": 12, "training.lr": 0.00012345})
    text = drawn(shown, running, {"COMPLETE": 3, "PRUNED": 9, "RUNNING": 2}, best, Seconds(7200.0, 1200.0))
    # Ten trials in 600 s of this driver, eight to go.
    assert "mosi: 12 of 20 trials (3 COMPLETE, 9 PRUNED); 10 min, about 8 min left" in text
    assert "best valid/MAE 0.5703, trial 7: num_fusion_tokens=12, lr=0.000123" in text
    rows = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["12", "fusion", "4", "of", "9", "1", "of", "6", "0.62", "0.61", "5", "min"] in rows
    assert ["13", "starts", "0", "of", "9", "0", "of", "6", "0.61"] in rows
    assert "rungs: epoch 1: 12 trials, cut-off 0.71; epoch 3: 0 trials" in text
    assert "40 utterances/s, 60 trials/h" in text
    # Two epochs of a minute each run, one of them before fusion.
    assert "2 h 2 min of trials, 21 min of it before fusion" in text


def test_seconds_left_are_those_of_the_stage_that_runs() -> None:
    slow = {"time/epoch_seconds": 500.0}
    assert trial(0).seconds_left is None
    assert trial(0, epoch(1, "av")).seconds_left == 8 * 60
    assert trial(0, epoch(1, "av"), epoch(2, **slow)).seconds_left == 7 * 500
    assert trial(0, epoch(1, **slow), epoch(2), epoch(3), epoch(4)).seconds_left == 5 * 60
    assert trial(0, EpochReport({"stage": "fusion", "epoch": 1})).seconds_left is None


def test_a_terminal_gets_a_screen_and_a_file_gets_lines() -> None:
    shown, out = progress()
    shown.draw([trial(0)], {}, None, Seconds())
    assert not shown.is_due  # it was drawn just now
    shown.epoch(0, epoch(1))
    shown.ended(0, "COMPLETE", None, {"COMPLETE": 1}, None)
    shown.close()
    assert "starts" in out.getvalue()
    assert "trial 0: " not in out.getvalue()

    shown, out = progress(terminal=False)
    assert not shown.is_due
    shown.draw([trial(0)], {}, None, Seconds())
    shown.epoch(0, epoch(1, "av"))
    shown.epoch(0, epoch(2, **{"valid/MAE": 0.5}))
    shown.ended(0, "COMPLETE", None, {"COMPLETE": 1}, Best(0, 0.5, {}))
    shown.ended(1, "FAIL", "NonFiniteLossError: nan", {"COMPLETE": 1, "FAIL": 1}, Best(0, 0.5, {}))
    assert out.getvalue().splitlines() == [
        "trial 0: av epoch 1, loss 1.0000",
        "trial 0: fusion epoch 2, valid/MAE 0.5000",
        "trial 0: COMPLETE; 1 of 20, best valid/MAE 0.5000 (trial 0)",
        "trial 1: FAIL (NonFiniteLossError: nan); 2 of 20, best valid/MAE 0.5000 (trial 0)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (12000, "3 h 20 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("objective", "cutoff"), [("valid/MAE", 5 / 3), ("valid/Corr", 7 / 3)])
def test_rungs_say_how_many_came_and_what_it_takes(objective: str, cutoff: float) -> None:
    asha = make_scheduler(
        "asha", optuna.create_study(), make_objectives([objective])[0], epochs=9, grace_period=1, reduction_factor=3,
        seed=0,
    )  # fmt: skip
    for number, value in enumerate([1.0, 2.0, 3.0]):
        asha.on_trial_add(None, RayTrial.of(number))
        asha.on_trial_result(None, RayTrial.of(number), {"fusion_epoch": 1, objective: value})
    lowest, *higher = rungs_of(asha)
    assert lowest == Rung(1, 3, pytest.approx(cutoff), 0, ("ray0", "ray1", "ray2"), (1.0, 2.0, 3.0))
    assert higher == [Rung(3, 0, None), Rung(9, 0, None)]


def test_a_scheduler_without_rungs_has_none() -> None:
    settings: dict[str, Any] = {"epochs": 9, "grace_period": 1, "reduction_factor": 3, "seed": 0}
    assert rungs_of(make_scheduler("none", optuna.create_study(), OBJECTIVES[0], **settings)) == []
