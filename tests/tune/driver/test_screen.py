"""The screen of a search and its plain lines: what they say of running trials, the best one, rungs and pace."""

import io
from typing import Any

import optuna
import pytest
from rich.console import Console

from deepmlf.config.trial import TrialConfig
from deepmlf.training.curriculum import underway
from deepmlf.training.reports import EpochReport, Seconds
from deepmlf.tune.decide.scheduler import Rung, make_scheduler, rungs_of
from deepmlf.tune.driver.screen import Best, RunningTrial, SearchScreen, duration
from deepmlf.tune.objective import make_objectives
from tests.tune.parts import RayTrial

OBJECTIVES = make_objectives(["valid/MAE"])


def epoch(number: int, stage: str = "fusion", **more: Any) -> EpochReport:
    return EpochReport({"stage": stage, "epoch": number, "train/loss": 1.0, "time/epoch_seconds": 60.0} | more)


CONFIG = TrialConfig.from_overrides({"training.epochs": 6, "curriculum.name": "av_first", "curriculum.av_epochs": 3})


def trial(number: int, *epochs: EpochReport, awaited: str | None = None, **params: Any) -> RunningTrial:
    best = {"MAE": 0.61} if epochs else {}
    return RunningTrial(number, epochs, best, underway(CONFIG, epochs), params, awaited)


def fused(*numbers: int, **more: Any) -> tuple[EpochReport, ...]:
    """The whole stage before fusion, and epochs of fusion by their numbers among all."""
    before = [epoch(number, "av") for number in (1, 2, 3)]
    return *before, *(epoch(number, fusion_epoch=number - 3, **more) for number in numbers)


def progress(width: int = 100, *, terminal: bool = True, **changes: Any) -> tuple[SearchScreen, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    facts: dict[str, Any] = {"trials": 20, "ended": 0, "rungs": list} | changes
    return SearchScreen(console, "mosi", OBJECTIVES, **facts), out


def drawn(shown: SearchScreen, *arguments: Any, width: int = 100) -> str:
    console = Console(width=width, color_system=None, file=io.StringIO())
    with console.capture() as capture:
        console.print(shown.screen(*arguments))
    return capture.get()


def test_the_screen_has_all_that_one_asks_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 700.0])
    monkeypatch.setattr("deepmlf.tune.driver.screen.time.monotonic", lambda: next(clock))
    rungs = [Rung(1, 12, 0.71), Rung(3, 0, None)]
    shown, _ = progress(ended=2, rungs=lambda: rungs)
    running = [
        trial(12, *fused(4, **{"valid/MAE": 0.62, "speed/utterances_per_second": 40.4})),
        trial(13),
    ]
    best = Best(7, 0.5703, {"model.num_fusion_tokens": 12, "training.lr": 0.00012345})
    text = drawn(shown, running, {"COMPLETE": 3, "PRUNED": 9, "RUNNING": 2}, best, Seconds(7200.0, 1200.0))
    # Ten trials in 600 s of this driver, eight to go.
    assert "mosi: 12 of 20 trials (3 COMPLETE, 9 PRUNED); 10 min, about 8 min left" in text
    assert "best valid/MAE 0.5703, trial 7: model.num_fusion_tokens=12, training.lr=0.000123" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["12", "fusion", "1", "of", "6", "0.62", "0.61", "5", "min"] in rows
    assert ["13", "starts"] in rows
    assert "rungs: fusion epoch 1: 12 trials, cut-off 0.71; fusion epoch 3: 0 trials" in text
    assert "40 utterances/s, 60 trials/h" in text
    # Four epochs of a minute, three of them before fusion.
    assert "2 h 4 min of trials, 23 min of it before fusion" in text


def test_seconds_left_are_those_of_fusion() -> None:
    slow = {"time/epoch_seconds": 500.0}
    assert trial(0).seconds_left is None
    assert trial(0, epoch(1, "av")).seconds_left is None  # epochs before fusion tell nothing about it
    assert trial(0, *fused(4, **slow)).seconds_left == 5 * 500
    assert trial(0, *fused(4, **slow), *fused(5, 6, 7)[3:]).seconds_left == 2 * 60
    untimed = EpochReport({"stage": "fusion", "epoch": 4, "fusion_epoch": 1})
    assert trial(0, untimed).seconds_left is None


def test_the_stage_is_the_one_that_trains_now() -> None:
    assert trial(0).doing == "starts"
    assert trial(0, epoch(1, "av")).doing == "av 1 of 3"
    whole = [epoch(number, "av") for number in (1, 2, 3)]
    assert trial(0, *whole).doing == "fusion 0 of 6"
    assert trial(0, *whole, epoch(4, fusion_epoch=1)).doing == "fusion 1 of 6"
    taken = epoch(2, "av", **{"curriculum/av_reused": 1})  # two epochs, as its patience ended
    assert trial(0, taken).doing == "fusion 0 of 6"
    assert trial(0, epoch(1, "av"), awaited="another trial's stage").doing == "waits for another trial's stage"


def test_running_trials_are_told_by_what_they_have_unlike_the_best() -> None:
    shown, _ = progress()
    drawn_for = {"curriculum.name": "joint", "model.fusion_depth": 3, "model.num_fusion_tokens": 12}
    best = Best(7, 0.57, {"curriculum.name": "av_first", "model.fusion_depth": 3, "training.lr_av": 0.1})
    running = [trial(8, **drawn_for), trial(9, **{"model.fusion_depth": 3})]
    text = drawn(shown, running, {}, best, Seconds())
    assert "trial 8, unlike the best: curriculum.name=joint, model.num_fusion_tokens=12\n" in text
    assert "trial 9, unlike" not in text  # it has the same, as far as it was drawn
    first = drawn(shown, running[:1], {}, None, Seconds())
    assert "trial 8: curriculum.name=joint, model.fusion_depth=3, model.num_fusion_tokens=12\n" in first


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("names", [["valid/MAE"], ["valid/Has0_acc_2", "model/trained_parameters"]])
def test_nothing_is_cut_in_a_terminal_of_any_width(width: int, names: list[str]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, height=50, force_terminal=True, color_system=None)
    rungs = [Rung(10, 120, 0.7123), Rung(30, 40, 0.6123)]
    shown = SearchScreen(console, "mosi", make_objectives(names), trials=200, ended=0, rungs=lambda: rungs)
    last = fused(4, **dict.fromkeys(names, 123456.0) | {"time/epoch_seconds": 5000.0})
    params = {"curriculum.av_accumulation_steps": 4, "model.num_fusion_tokens": 12, "training.lr_fusion": 0.00012345}
    running = [trial(120, *last, **params), trial(121, epoch(1, "av"), **params, awaited="another trial's AV stage")]
    text = drawn(shown, running, {"COMPLETE": 120}, Best(7, 0.5703, dict(params)), Seconds(7200.0), width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = [word.rstrip(",;") for word in text.split()]
    for name, value in params.items():
        shown_value = f"{value:.3g}" if isinstance(value, float) else value
        assert f"{name}={shown_value}" in words
    assert words.count("1.235e+05") >= len(names)
    assert "fusion 1 of 6" in " ".join(words)
    assert "6 h 57 min" in " ".join(words)
    assert "0.6123" in words


def test_settings_give_way_to_trials_where_lines_are_few() -> None:
    def lines(height: int) -> list[str]:
        console = Console(file=io.StringIO(), width=80, height=height, force_terminal=True, color_system=None)
        shown = SearchScreen(console, "mosi", OBJECTIVES, trials=20, ended=0, rungs=list)
        running = [trial(number, *fused(4), **{"model.fusion_depth": number}) for number in range(12)]
        with console.capture() as capture:
            console.print(shown.screen(running, {}, None, Seconds()))
        return capture.get().splitlines()

    assert sum("model.fusion_depth=" in line for line in lines(50)) == 12
    few = lines(22)
    assert not any("model.fusion_depth=" in line for line in few)
    assert sum("fusion 1 of 6" in line for line in few) == 12
    fewer = lines(12)
    assert len(fewer) < 12
    assert any(line.startswith("and ") and line.endswith(" more trials") for line in (one.strip() for one in fewer))


def test_an_interrupted_search_counts_what_is_under_way_as_unfinished() -> None:
    shown, out = progress(ended=0)
    shown.stopping()
    assert "stopping after this step; again to stop now" in out.getvalue()
    text = drawn(shown, [trial(3), trial(4)], {"COMPLETE": 3, "RUNNING": 2}, None, Seconds())
    assert "mosi: 3 of 20 trials (3 COMPLETE, 2 unfinished); 0 s\n" in text


def test_a_terminal_gets_a_screen_and_a_file_gets_lines() -> None:
    shown, out = progress()
    shown.draw([trial(0)], {}, None, Seconds())
    assert not shown.is_due  # it was drawn just now
    shown.epoch(0, "fusion epoch 1 of 6", epoch(1))
    shown.ended(0, "COMPLETE", None, {"COMPLETE": 1}, None)
    shown.close()
    assert "starts" in out.getvalue()
    assert "trial 0: " not in out.getvalue()

    shown, out = progress(terminal=False)
    assert not shown.is_due
    shown.draw([trial(0)], {}, None, Seconds())
    shown.epoch(0, "av epoch 1 of 3", epoch(1, "av"))
    shown.epoch(0, "fusion epoch 1 of 6", epoch(4, **{"valid/MAE": 0.5}))
    shown.ended(0, "COMPLETE", None, {"COMPLETE": 1}, Best(0, 0.5, {}))
    shown.ended(1, "FAIL", "NonFiniteLossError: nan", {"COMPLETE": 1, "FAIL": 1}, Best(0, 0.5, {}))
    assert out.getvalue().splitlines() == [
        "trial 0: av epoch 1 of 3, loss 1.0000",
        "trial 0: fusion epoch 1 of 6, valid/MAE 0.5000",
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
