"""What all trials have in common, and what is refused in it."""

from typing import Any

import pytest

from deepmlf.errors import ConfigError, SearchError
from deepmlf.tune.space.base import check_given, make_base

OWN = {
    "data.path": "/data/mosi",
    "model.language_model": "smollm2-135m",
    "training.epochs": 15,
    "training.select_by": "MAE",
}


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("training.epochs", 3, "--epochs"),
        ("training.select_by", "Corr", "--objective"),
        ("model.language_model", "gpt2", "--lm"),
        ("data.path", "/data/sims", "DATA"),
    ],
)
def test_what_an_option_sets_is_refused_elsewhere(name: str, value: Any, option: str) -> None:
    told = f"{name}: is one for all trials of a search; use {option}"
    with pytest.raises(ConfigError) as by_set:
        check_given({"model.dropout": 0.1, name: value})
    assert str(by_set.value) == f"--set {told}"
    with pytest.raises(SearchError) as by_base:
        make_base("mine.py", {"model.dropout": 0.1, name: value}, OWN, {}, 0)
    assert str(by_base.value) == f"--space mine.py: BASE: {name}={value!r}{told.removeprefix(name)}"


def test_the_base_of_another_search_may_be_that_of_this_one() -> None:
    base = make_base("demo", {"model.dropout": 0.2}, OWN, {"model.lm_layers": 4}, 7)
    assert base.overrides == OWN | {"model.dropout": 0.2, "model.lm_layers": 4, "training.seed": 7}
    assert make_base("confirm.py", base.overrides, OWN, {"model.lm_layers": 4}, 8) == base


def test_a_seed_is_that_of_the_command_line_or_of_the_space_or_of_the_search() -> None:
    seeds = [
        make_base("mine", base, OWN, given, 7).config.training.seed
        for base, given in (({}, {}), ({"training.seed": 5}, {}), ({"training.seed": 5}, {"training.seed": 3}))
    ]
    assert seeds == [7, 5, 3]


def test_a_base_that_cannot_be_is_told_with_its_space() -> None:
    with pytest.raises(SearchError, match=r"^--space mine.py: BASE: model.lm_layers='x': Input should be a valid int"):
        make_base("mine.py", {"model.lm_layers": "x"}, OWN, {}, 0)
    with pytest.raises(SearchError, match=r"^--space mine.py: BASE: model.depth: no such setting"):
        make_base("mine.py", {"model.depth": 3}, OWN, {}, 0)
