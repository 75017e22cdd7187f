"""The authors' recipe: one source for what is published, and what `deepmlf train` makes of it."""

import shutil
from pathlib import Path

import pytest

from deepmlf.config.recipe import CODE, DATASETS, PUBLISHED, SHARED, published, recipe_settings
from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError
from deepmlf.inference.predictor import read_trial_config
from deepmlf.tune.space.load import load_space
from tests.command import deepmlf
from tests.sealed import edit

OF_LANGUAGE_MODEL = {
    "model.fusion_depth", "model.fusion_start", "model.fusion_spacing", "model.ffn", "model.lora_rank",
    "model.lora_alpha", "training.precision",
}  # fmt: skip
TINY = (
    "--set", "model.language_model=tiny-random", "--set", "model.fusion_depth=1", "--set", "training.epochs=1",
    "--set", "curriculum.av_epochs=1", "--set", "model.dropout=0.2",
)  # fmt: skip


@pytest.mark.parametrize("configuration", PUBLISHED)
def test_a_published_space_fixes_the_recipe_and_what_its_language_model_asks_for(configuration: str) -> None:
    base, recipe = load_space(f"published/{configuration}").base, published(configuration)
    assert recipe["training.epochs"] == recipe["training.cosine_epochs"]  # a search is asked for its own
    expected = {name: value for name, value in recipe.items() if name != "training.epochs"}
    if base["model.ffn"] == "full":
        del expected["model.swiglu"]  # LoRA's alone
    assert {name: value for name, value in base.items() if name not in OF_LANGUAGE_MODEL} == expected


def test_a_recipe_depends_on_the_dataset_where_the_authors_code_does() -> None:
    recipes = [recipe_settings("authors", dataset) for dataset in DATASETS]
    changed = {name: {recipe.get(name) for recipe in recipes} for name in published("sims")}
    differ = {name for name, values in changed.items() if len(values) > 1}
    assert differ >= {"training.cosine_epochs", "training.patience", "model.max_text_len", "training.loss_lm"}
    assert differ.isdisjoint(CODE | SHARED)
    assert recipe_settings("authors", "holidays") == CODE | SHARED
    assert recipe_settings(None, "mosi") == {}
    TrialConfig.from_overrides(recipe_settings("authors", "sims"))


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as refused:
        recipe_settings("mine", "mosi")
    assert str(refused.value) == "--recipe mine: no such recipe; known recipes: authors"


def test_train_takes_the_recipe_below_what_is_set(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[training]\nbatch_size = 16\n")
    command = ["train", small_data, "--config", tmp_path / "mine.toml", *TINY, "--out", tmp_path / "one"]
    told = deepmlf(*command, "--recipe", "authors")
    assert told.returncode == 0, told.stderr
    assert (
        "deepmlf: --recipe authors: as published for mosi, but for what was chosen for its language model (fused "
        "layers, FFN, precision)\n"
    ) in told.stderr
    config = read_trial_config(tmp_path / "one").flat()
    asked = {"training.epochs": 1, "curriculum.av_epochs": 1, "model.dropout": 0.2, "training.batch_size": 16}
    expected = published("mosi") | asked
    assert {name: config[name] for name in expected} == expected
    again = deepmlf(*command, "--recipe", "authors")  # it has ended; its last epoch is reported again
    assert again.returncode == 0, again.stderr
    without = deepmlf(*command)
    assert without.returncode == 2
    assert "holds a trial begun with data.standardize=False, " in without.stderr


def test_train_tells_that_nothing_is_published_for_a_dataset(small_data: Path, tmp_path: Path) -> None:
    shutil.copytree(small_data, tmp_path / "set")
    edit(tmp_path / "set" / "info.json", name="holidays")
    told = deepmlf("train", tmp_path / "set", *TINY, "--recipe", "authors", "--out", tmp_path / "one")
    assert told.returncode == 0, told.stderr
    assert (
        "deepmlf: --recipe authors: nothing is published for holidays; takes what mosi, mosei, sims have in common, "
        "and the defaults for the rest\n"
    ) in told.stderr
    config = read_trial_config(tmp_path / "one").flat()
    defaults = TrialConfig().flat()
    assert config["training.accumulation"] == "sum"
    for name in ("training.cosine_epochs", "training.patience", "training.weight_decay"):
        assert config[name] == defaults[name]


def test_train_refuses_a_recipe_that_is_none(small_data: Path, tmp_path: Path) -> None:
    refused = deepmlf("train", small_data, "--recipe", "mine", "--out", tmp_path / "one")
    assert refused.returncode == 2
    assert "Invalid value for '--recipe': 'mine' is not" in refused.stderr
