"""A setting stands out only where it matters, and where there are trials enough to see it."""

from typing import Any

import numpy as np
import pytest

from deepmlf.analysis.statistics.standout import effects, standout

NAMES = [f"setting{index}" for index in range(12)]


def drawn(generator: np.random.Generator, trials: int) -> list[dict[str, Any]]:
    """Random settings: numbers, choices, and one that only some trials have."""
    rows = []
    for _ in range(trials):
        row: dict[str, Any] = {name: float(generator.random()) for name in NAMES[:8]}
        row |= {name: str(generator.integers(4)) for name in NAMES[8:]}
        if row[NAMES[8]] == "0":
            del row[NAMES[7]]
        rows.append(row)
    return rows


@pytest.mark.parametrize("trials", [10, 40])
def test_where_nothing_matters_nothing_stands_out(trials: int) -> None:
    generator = np.random.default_rng(trials)
    worlds = [(drawn(generator, trials), generator.normal(size=trials).tolist()) for _ in range(40)]
    assert sum(standout(*world, NAMES, seed) is not None for seed, world in enumerate(worlds)) <= 2


@pytest.mark.parametrize("kind", ["rising", "valley", "choice", "conditional"])
def test_of_forty_trials_the_one_that_matters_is_named(kind: str) -> None:
    name = {"rising": NAMES[0], "valley": NAMES[0], "choice": NAMES[9], "conditional": NAMES[7]}[kind]
    generator = np.random.default_rng(1)
    found = []
    for seed in range(10):
        rows = drawn(generator, 40)
        effects = [
            {"rising": lambda x: 3 * x, "valley": lambda x: 12 * (x - 0.5) ** 2, "choice": lambda x: 2.0 * (x == "1"),
             "conditional": lambda x: 3 * x}[kind](row.get(name, 0.5))
            for row in rows
        ]  # fmt: skip
        values = (np.array(effects) + 0.4 * generator.normal(size=40)).tolist()
        found.append(standout(rows, values, NAMES, seed))
    assert found.count(name) >= 8
    assert set(found) <= {name, None}


def test_ten_trials_name_one_only_where_it_is_right() -> None:
    """Importances of ten trials always named a setting, and hardly ever the one that mattered."""
    generator = np.random.default_rng(2)
    found = []
    for seed in range(40):
        rows = drawn(generator, 10)
        values = [3 * row[NAMES[0]] + 0.2 * generator.normal() for row in rows]
        found.append(standout(rows, values, NAMES, seed))
    named = [name for name in found if name is not None]
    assert named
    assert named.count(NAMES[0]) >= 0.8 * len(named)


def test_what_never_differs_stands_out_of_nothing() -> None:
    rows = [{"same": 1, "each": str(index)} for index in range(12)]
    assert standout(rows, [float(index) for index in range(12)], ["same", "each"], seed=0) is None
    assert effects(rows, [1.0] * 12, ["same", "each"], seed=0) == []


@pytest.mark.parametrize("trials", [6, 12, 40])
def test_where_nothing_matters_one_setting_of_twenty_lies_beyond_chance(trials: int) -> None:
    generator = np.random.default_rng(trials)
    found = []
    for seed in range(40):
        rows = drawn(generator, trials)
        found += effects(rows, generator.normal(size=trials).tolist(), NAMES, seed)
    beyond = sum(effect.share > effect.by_chance for effect in found) / len(found)
    assert beyond == pytest.approx(0.05, abs=0.03)


def test_of_twelve_trials_the_setting_that_matters_is_furthest_beyond_chance() -> None:
    generator = np.random.default_rng(3)
    found = []
    for seed in range(20):
        rows = drawn(generator, 12)
        values = [3 * row[NAMES[0]] + 0.4 * generator.normal() for row in rows]
        found.append(effects(rows, values, NAMES, seed)[0])
    assert sum(effect.name == NAMES[0] and effect.share > effect.by_chance for effect in found) >= 15
    assert all(0 <= effect.share <= 1 for effect in found)
