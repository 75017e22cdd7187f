"""The benchmark of search quality measures what it says; what it measures is no test's business."""

import math

import pytest

from benchmarks import surrogate
from benchmarks.search_quality import ARMS, Outcome, simulate

BEST = {
    **surrogate.PUBLISHED, "model.fusion_depth": surrogate.DEPTH, "model.num_fusion_tokens": surrogate.TOKENS,
    "curriculum.name": surrogate.CURRICULUM, "training.batch_size": 32, "training.accumulation_steps": 1,
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
    world = surrogate.Surrogate(0)
    assert surrogate.BEST_MAE < world.final(BEST) < world.final(BEST | {name: worse})
    curve = world.curve(BEST, number=0)
    assert curve == world.curve(BEST, number=0)
    assert curve.true == sorted(curve.true, reverse=True)
    assert curve.true[-1] == pytest.approx(world.final(BEST))


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_spends_its_budget_and_comes_nearer(arm: str) -> None:
    outcome = simulate(arm, seed=1, budget=40)
    assert len(outcome.regrets) == 40
    assert outcome.regrets[-1] < outcome.regrets[0]
    assert outcome.regrets == simulate(arm, seed=1, budget=40).regrets


def test_epochs_to_a_regret_are_counted_from_one_to_the_first_that_is_as_low() -> None:
    outcome = Outcome(regrets=[0.5, 0.1, 0.3, 0.05])
    assert [outcome.first_below(regret) for regret in (0.6, 0.1, 0.09, 0.01)] == [1, 2, 4, math.inf]
