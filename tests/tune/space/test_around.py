"""A search around a published setting or around the best of an earlier experiment."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from benchmarks.parts.synthetic_experiment import LM, make_experiment
from deepmlf.errors import SearchError
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import OVERRIDES
from deepmlf.tune.plan import plan_search
from deepmlf.tune.space.around import settings_around
from deepmlf.tune.space.load import load_space
from tests.tune.experiments import settings
from tests.tune.parts import bound


def drawn(space: str, base: dict[str, Any]) -> dict[str, Any]:
    """One point of a space on a base, as a trial would train it."""
    on_base = bound(load_space(space), LM, base)
    return on_base.config_of(on_base.sample(optuna.create_study().ask())).flat()


@pytest.mark.parametrize("name", ["mosi", "mosei", "mosei_large", "sims"])
def test_a_published_setting_is_that_of_its_space(name: str) -> None:
    settings, line = settings_around(name)
    assert settings == load_space(f"published/{name}").base
    assert line == f"--around {name}: all that is not drawn is as published for {name}"


def test_it_takes_the_place_of_the_base_and_the_command_line_wins(small_data: Path, tmp_path: Path) -> None:
    asked = settings(
        small_data, tmp_path, space="ablations/curriculum", around="sims", overrides={"training.loss_av": 0.5}
    )
    base = plan_search(asked).space.base.config
    assert (base.model.max_text_len, base.model.av_frames, base.model.num_fusion_tokens) == (39, 55, 20)
    assert base.model.ffn == "full"  # MOSI's, the grid's own, is lora
    assert (base.training.loss_lm, base.training.loss_av) == (1.0, 0.5)


def test_a_grid_varies_its_own_setting_around_the_best_trial_of_an_experiment(tmp_path: Path) -> None:
    earlier = make_experiment(tmp_path, 12)
    opened = open_experiment(earlier)
    best = min((trial for trial in opened.trials() if trial.values), key=lambda trial: trial.values[0])
    around, line = settings_around(str(earlier))
    assert line == (
        f"--around {earlier}: all that is not drawn is as in trial {best.number} (valid/MAE {best.values[0]:.4f} on "
        " with smollm2-135m, 15 fusion epochs)"
    )
    assert not {"data.path", "model.language_model", "training.epochs", "training.seed", "training.device"} & set(
        around
    )
    expected = json.loads(best.user_attrs[OVERRIDES])
    assert len(expected) > 20
    assert {name: around[name] for name in expected if name != "training.seed"} == expected
    point = drawn("ablations/tokens", around)
    changed = {name for name, value in around.items() if point[name] != value}
    assert changed <= {"model.num_fusion_tokens"}


def test_layers_that_were_named_one_by_one_are_counted_where_depth_is_varied() -> None:
    base = load_space("published/mosi").base | {"model.fusion_layers": [3, 9]}
    assert drawn("ablations/depth", base)["model.fusion_layers"] is None
    assert drawn("ablations/tokens", base)["model.fusion_layers"] == [3, 9]


def test_a_depth_that_does_not_fit_is_cut_and_one_that_does_may_be_set(small_data: Path, tmp_path: Path) -> None:
    assert drawn("ablations/tokens", load_space("published/mosei").base)["model.fusion_depth"] == 7
    deep = load_space("published/mosei").base | {"model.fusion_depth": 28}
    assert drawn("ablations/tokens", deep)["model.fusion_depth"] == 23  # of 30 layers above a quarter
    asked = settings(small_data, tmp_path, space="ablations/tokens", overrides={"model.fusion_depth": 2})
    assert plan_search(asked).space.base.config.model.fusion_depth == 2


def test_what_is_neither_is_refused_with_what_there_is(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError) as refused:
        plan_search(settings(small_data, tmp_path, space="ablations/depth", around=str(tmp_path / "mosy")))
    assert str(refused.value) == (
        f"--around {tmp_path}/mosy: not an experiment (no search.json there); "
        "published settings: mosei, mosei_large, mosi, sims"
    )
    hopeless = make_experiment(tmp_path, 2, failed=(0, 1))
    with pytest.raises(SearchError, match="none of its trials has come to anything yet$"):
        settings_around(str(hopeless))
