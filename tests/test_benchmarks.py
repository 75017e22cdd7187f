"""The benchmark of search quality measures what it says; what it measures is no test's business."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks import search_quality
from benchmarks.parts.paired import Run, compare, summarise
from benchmarks.parts.simulation import Outcome, simulate
from benchmarks.problems import Curve, planted, third_party
from benchmarks.problems.planted import Planted
from benchmarks.search_quality import ARMS, KINDS

BEST = {
    **planted.PUBLISHED, "model.fusion_depth": planted.DEPTH, "model.num_fusion_tokens": planted.TOKENS,
    "curriculum.name": planted.CURRICULUM, "training.batch_size": 32, "training.accumulation_steps": 1,
    "training.lr_fusion": 2e-4, "training.lr_av": 1e-3, "model.dropout": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("model.fusion_depth", 2),
        ("model.fusion_depth", 10),
        ("model.num_fusion_tokens", 6),
        ("curriculum.name", "joint"),
        ("training.lr_fusion", 3e-3),
    ],
)
def test_the_planted_setting_is_best_and_its_curve_ends_there(name: str, worse: object) -> None:
    world = Planted(0)
    assert planted.BEST_MAE < world.final(BEST) < world.final(BEST | {name: worse})
    curve = world.curve(BEST, number=0)
    assert curve == world.curve(BEST, number=0)
    assert curve.true == sorted(curve.true, reverse=True)
    assert curve.true[-1] == pytest.approx(world.final(BEST))


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_spends_its_budget_and_comes_nearer(arm: str) -> None:
    outcome = simulate(ARMS[arm], Planted(1), seed=1, budget=40)
    assert len(outcome.regrets) == 40
    assert outcome.regrets[-1] < outcome.regrets[0]
    assert outcome.regrets == simulate(ARMS[arm], Planted(1), seed=1, budget=40).regrets


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"planted"}))
def test_third_parties_curves_are_those_of_the_setting_and_regret_is_scaled(kind: str, shared: Path) -> None:
    problem = KINDS[kind](0)[0]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [problem.space(study.ask()) for _ in range(200)]
    curves = [problem.curve(setting, 0) for setting in settings]
    whole = [curve for curve in curves if curve.failed is None]
    assert {len(curve.observed) for curve in whole} == {problem.epochs}
    assert all(curve.true == np.minimum.accumulate(curve.observed).tolist() for curve in curves)
    finals = [problem.regret(curve.observed[-1]) for curve in whole]
    assert min(finals) >= 0.0
    assert np.median(finals) == pytest.approx(1.0, abs=0.4)
    assert problem.curve(settings[0], 7) == curves[0]


def test_a_setting_of_task_set_has_the_curve_of_its_nearest_row(shared: Path) -> None:
    problem = third_party.TaskSet(third_party.TASKSET_TASKS[0])
    with np.load(shared / "search" / f"FixedTextRNNClassification_imdb_{third_party.TASKSET_TASKS[0]}.npz") as table:
        row = dict(zip(map(str, table["hp"]), table["X"][5].astype(float), strict=True))
        values = table["Y"][5].astype(float)
    setting = {name: 1.0 - value if name.startswith("beta") else value for name, value in row.items()}
    assert problem.curve(setting, 0).observed == values.tolist()
    assert problem.curve(setting | {"learning_rate": setting["learning_rate"] * 1.01}, 0).observed == values.tolist()


def test_epochs_to_a_regret_are_counted_from_one_to_the_first_that_is_as_low() -> None:
    outcome = Outcome(regrets=[0.5, 0.1, 0.3, 0.05], seconds=[30.0, 31.0, 40.0, 41.5])
    assert [outcome.first_below(regret) for regret in (0.6, 0.1, 0.09, 0.01)] == [1, 2, 4, math.inf]
    assert [outcome.seconds_until(regret) for regret in (0.6, 0.1, 0.09, 0.01)] == [30.0, 31.0, 41.5, math.inf]


def test_seconds_of_a_search_have_the_stages_before_fusion_inside() -> None:
    class Slow(Planted):
        def curve(self, setting: dict[str, Any], number: int) -> Curve:
            return replace(super().curve(setting, number), epoch_seconds=2.0, startup_seconds=100.0)

    outcome = simulate(ARMS["random"], Slow(3), seed=0, budget=12)
    assert outcome.seconds[:4] == [102.0] * 4
    assert outcome.seconds[-1] == 106.0


def runs(*finals: float, seeds: int = 0) -> list[Run]:
    return [Run("p", seeds + seed, (1.0, 0.5, final), 10.0) for seed, final in enumerate(finals)]


def test_pairs_are_runs_of_one_problem_and_seed() -> None:
    found = compare(runs(0.1, 0.1, 0.2, 0.3), runs(0.2, 0.2, 0.2, 0.1) + runs(0.0, seeds=9))
    assert (found["pairs"], found["won"]) == (4, 0.667)
    assert found["wins_losses"] == {"0.25": [0, 0], "0.5": [0, 0], "1": [2, 1]}
    assert found["log10_ratio"] == pytest.approx((2 * math.log10(0.5) + math.log10(3)) / 4, abs=1e-3)
    low, high = found["won_interval"]
    assert low < 0.2
    assert high > 0.98


def test_a_regret_of_nothing_is_one_of_a_ten_thousandth() -> None:
    found = compare(runs(0.0, 1e-6), runs(1.0, 1.0))
    assert found["log10_ratio"] == -4.0
    assert found["log10_ratio_interval"] is None


def test_quartiles_know_runs_that_never_got_there() -> None:
    reached = enumerate((5.0, math.inf))
    found = summarise([Run("p", seed, (math.inf, 0.2, 0.1), epochs, 8 * epochs) for seed, epochs in reached])
    assert found["regret_0.25"] == [None, None, None]
    assert found["regret_1"] == [0.1, 0.1, 0.1]
    assert found["epochs_to_5_percent"] == [5.0, 5.0, None]
    assert found["seconds_to_5_percent"] == [40.0, 40.0, None]


def test_runs_are_kept_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Planted):
        def __init__(self, seed: int) -> None:
            made.append(seed)
            super().__init__(seed)

    made: list[int] = []
    one: dict[str, Any] = {"planted": lambda seed: [Short(seed)]}
    monkeypatch.setattr(search_quality, "KINDS", one)
    monkeypatch.setattr(search_quality, "BUDGETS", {"planted": 8})
    out = tmp_path / "runs.jsonl"
    search_quality.measure(("planted", "random", 3, out, frozenset()))
    search_quality.measure(("planted", "random", 3, out, frozenset({"random planted 3"})))
    found = search_quality.read(out, range(3, 4))
    assert [(run.seed, len(run.regrets)) for run in found["planted", "random"]] == [(3, 3)]
    assert search_quality.read(out, range(4, 9)) == {}


def test_a_bad_prior_is_among_the_worst_that_train() -> None:
    problem = Planted(5)
    bad = search_quality.bad_setting(problem)
    assert problem.curve(bad, 0).failed is None
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    random = [problem.final(problem.space(study.ask())) for _ in range(50)]
    assert problem.final(bad) > sorted(random)[45]
