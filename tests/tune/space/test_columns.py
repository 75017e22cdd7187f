"""The HParams columns of a search, found by drawing from its space."""

from pathlib import Path
from typing import Any

import pytest

from deepmlf.config.trial import TrialConfig
from deepmlf.data.task import KNOWN
from deepmlf.events.dashboard import Parameter
from deepmlf.model import lm_store
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.space.columns import parameters_of, shown_settings, write_columns
from deepmlf.tune.space.load import load_space
from tests.tune.parts import bound

LM = lm_store.facts(lm_store.TINY_RANDOM)
SPACE = """
def space(trial):
    name = trial.suggest_categorical("curriculum.name", ["joint", "av_first"])
    settings = {
        "curriculum.name": name,
        "data.standardize": trial.suggest_categorical("data.standardize", [True, False]),
        "training.lr_av": trial.suggest_float("training.lr_av", 1e-5, 1e-3, log=True),
        "training.patience": trial.suggest_categorical("training.patience", [None, 3]),
        "model.fusion_layers": [trial.suggest_int("last", 1, 3)],
        "model.dropout": trial.suggest_int("tenths", 1, 3) / 10,
        "model.fusion_depth": trial.suggest_int("model.fusion_depth", -1, 2),
    }
    if name == "av_first":
        settings["curriculum.av_epochs"] = trial.suggest_int("curriculum.av_epochs", 1, 9)
    return settings
"""


def test_types_ranges_and_conditional_parameters(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    assert parameters_of(bound(load_space(str(tmp_path / "mine.py")), LM, {})) == [
        Parameter("curriculum.name", choices=("av_first", "joint")),
        Parameter("data.standardize", choices=(False, True)),
        Parameter("training.lr_av", low=1e-5, high=1e-3),
        Parameter("training.patience"),  # a number or none
        Parameter("model.fusion_layers"),  # text of any kind
        Parameter("model.dropout", low=0.1, high=0.3),  # derived: what was drawn
        Parameter("model.fusion_depth", low=-1, high=2),  # what cannot be trained is left out, its range is not
        Parameter("curriculum.av_epochs", low=1, high=9),
    ]


@pytest.mark.parametrize("name", ["mosi", "mosei", "sims", "demo"])
def test_every_setting_of_a_space_has_its_column(name: str) -> None:
    space = load_space(name)
    names = {parameter.name for parameter in parameters_of(bound(space, LM, space.base))}
    assert {setting for prior in space.priors for setting in prior} <= names


def test_a_whole_number_drawn_for_a_fraction_is_one() -> None:
    drawn = {"model.dropout": 0, "model.fusion_layers": [1]}
    shown = shown_settings(TrialConfig.from_overrides({"training.epochs": 3}, drawn), drawn)
    assert {name: (value, type(value)) for name, value in shown.items()} == {
        "model.dropout": (0.0, float),
        "model.fusion_layers": ([1], list),
    }


@pytest.mark.parametrize(
    ("base", "drawn", "has_gates"),
    [({}, "", True), ({"model.gate": "none"}, "", False), ({"model.gate": "none"}, "model.gate", True),
     ({"model.gate": "none"}, "model.gate_init", False)],
)  # fmt: skip
def test_a_search_in_which_no_trial_has_gates_plots_none(
    tmp_path: Path, base: dict[str, Any], drawn: str, has_gates: bool
) -> None:
    choices = {"": [], "model.gate": ["none", "tanh"], "model.gate_init": [0.0, 1.0]}[drawn]

    def space(trial: Any) -> dict[str, Any]:
        return {drawn: trial.suggest_categorical(drawn, choices)} if drawn else {}

    write_columns(tmp_path, bound(space, LM, base), make_objectives(["valid/MAE"]), KNOWN["mosi"])
    [file] = tmp_path.iterdir()
    assert (b"Gates of cross-attention" in file.read_bytes()) == has_gates
