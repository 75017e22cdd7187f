"""Settings as places between 0 and 1, and back."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from deepmlf.tune.decide.encoding import Encoding, Number, place_of, value_at


@pytest.mark.parametrize(
    ("distribution", "value", "place"),
    [
        (FloatDistribution(0.0, 4.0), 1.0, 0.25),
        (FloatDistribution(1e-4, 1e-2, log=True), 1e-3, 0.5),
        (IntDistribution(2, 10), 10, 1.0),
        (IntDistribution(1, 100, log=True), 10, 0.5),
        (FloatDistribution(3.0, 3.0), 3.0, 0.5),
    ],
)
def test_a_value_has_its_place_and_comes_back(distribution: Number, value: float, place: float) -> None:
    assert place_of(distribution, value) == pytest.approx(place)
    assert value_at(distribution, place) == pytest.approx(value)


@pytest.mark.parametrize(
    "distribution", [IntDistribution(2, 24, step=2), IntDistribution(1, 12), FloatDistribution(0.0, 1.1, step=0.1)]
)
def test_each_step_has_an_equal_share_of_the_places(distribution: Number) -> None:
    values = [value_at(distribution, (index + 0.5) / 1200) for index in range(1200)]
    counts = {value: values.count(value) for value in values}
    assert len(counts) == 12
    assert set(counts.values()) == {100}
    assert {value_at(distribution, 0.0), value_at(distribution, 1.0)} == {distribution.low, distribution.high}
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in counts)


def test_categories_are_as_far_apart_as_the_ends_of_a_range() -> None:
    encoding = Encoding([{"a": CategoricalDistribution(("x", "y", "z")), "b": FloatDistribution(0.0, 1.0)}])
    assert encoding.groups.tolist() == [0, 0, 0, 1]
    x, y, low, high = encoding.encode([{"a": "x"}, {"a": "y"}, {"a": "x", "b": 0.0}, {"a": "x", "b": 1.0}])
    assert ((x - y) ** 2).sum() == pytest.approx(1.0)
    assert ((low - high) ** 2).sum() == pytest.approx(1.0)


def test_what_a_setting_does_not_have_stands_in_the_middle_and_what_is_not_known_is_left_out() -> None:
    encoding = Encoding([{"a": IntDistribution(0, 4)}, {"b": CategoricalDistribution((1, 2))}])
    assert encoding.encode([{}, {"a": 4, "c": 7}]).tolist() == [[0.5, 0.0, 0.0], [1.0, 0.0, 0.0]]


def _choices(*choices: str) -> CategoricalDistribution:
    return CategoricalDistribution(choices)


def test_ranges_that_differ_between_trials_are_united() -> None:
    drawn = [
        {"depth": IntDistribution(1, 4), "rate": FloatDistribution(1e-4, 1e-2, log=True), "name": _choices("x")},
        {"depth": IntDistribution(2, 9), "rate": FloatDistribution(1e-6, 1e-3, log=True), "name": _choices("y")},
    ]
    encoding = Encoding(drawn)
    assert encoding.groups.tolist() == [0, 1, 2, 2]
    (place,) = encoding.encode([{"depth": 9, "rate": 1e-4, "name": "y"}])
    assert place[:3] == pytest.approx([1.0, 0.5, 0.0])
