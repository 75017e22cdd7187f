"""The process over settings and fidelities: its gradient, and what it makes of curves that are known."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from deepmlf.tune.decide import curve_model
from deepmlf.tune.decide.curve_model import CurveModel, Points


def some(trials: int, columns: int, seed: int) -> Points:
    """Four points of each trial's curve: it falls towards what two columns decide; chance adds a little."""
    generator = np.random.default_rng(seed)
    settings = np.repeat(generator.random((trials, columns)), 4, axis=0)
    fidelity = np.tile([0.0, 0.4, 0.7, 1.0], trials)
    values = worth(settings) * (0.5 + 0.5 * fidelity) - fidelity + generator.normal(0.0, 0.05, len(fidelity))
    return Points(settings, fidelity, np.repeat(np.arange(trials), 4), (values - values.mean()) / values.std())


def worth(settings: np.ndarray) -> np.ndarray:
    return 4.0 * (settings[:, 0] - 0.3) ** 2 + 2.0 * np.abs(settings[:, 1] - 0.8)


def test_the_gradient_is_that_of_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def minimize(objective: Any, start: np.ndarray, **options: Any) -> Any:
        asked.update(objective=objective, start=start)
        return minimized(objective, start, **options)

    minimized = curve_model.minimize
    monkeypatch.setattr(curve_model, "minimize", minimize)
    CurveModel(np.array([0, 1, 2, 2])).fit(some(8, 4, seed=0))
    place = asked["start"] + 0.3
    numeric = approx_fprime(place, lambda logs: asked["objective"](logs)[0], 1e-6)
    assert asked["objective"](place)[1] == pytest.approx(numeric, abs=1e-3)


def test_what_a_setting_comes_to_is_learnt_from_all_fidelities_and_among_columns_that_do_nothing() -> None:
    points = some(40, 12, seed=1)
    early = points.take(points.fidelity < 0.5)
    new = np.random.default_rng(2).random((200, 12))
    ranks = []
    for known in (points, early):
        model = CurveModel(np.arange(12))
        model.fit(known)
        model.condition(known)
        mean, deviation = model.predict(new)
        assert (deviation > 0).all()
        ranks.append(np.corrcoef(mean, worth(new))[0, 1])
    assert ranks[0] > 0.9
    assert ranks[1] > 0.8


def test_a_trial_is_expected_to_go_on_as_it_began_whatever_its_setting_says() -> None:
    points = some(30, 3, seed=3)
    luck = np.where(points.trials % 2, 0.8, -0.8)
    lucky = Points(points.settings, points.fidelity, points.trials, points.values + luck)
    model = CurveModel(np.arange(3))
    model.fit(lucky)
    begun = lucky.take((lucky.fidelity < 1.0) | (lucky.trials > 1))
    model.condition(begun)
    (unlucky, its), (lucky_one, other) = (
        (model.predict(points.settings[row : row + 1], np.array([trial]))[0][0],
         model.predict(points.settings[row : row + 1])[0][0])
        for row, trial in ((0, 0), (4, 1))
    )  # fmt: skip
    assert unlucky < its - 0.4
    assert lucky_one > other + 0.4


def test_what_is_not_known_is_less_certain_than_what_is() -> None:
    points = some(20, 2, seed=4)
    model = CurveModel(np.arange(2))
    model.fit(points)
    model.condition(points.take(points.settings[:, 0] < 0.5))
    _, deviation = model.predict(np.array([[0.25, 0.5], [0.99, 0.5]]))
    assert deviation[1] > 1.5 * deviation[0]
    before = model.predict(np.array([[0.99, 0.5]]))[1]
    model.condition(points.take(points.settings[:, 0] < 0.5).with_more(np.array([[0.99, 0.5]]), np.array([0.0])))
    assert model.predict(np.array([[0.99, 0.5]]))[1] < before
