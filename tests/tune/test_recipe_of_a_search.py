"""A search with a recipe: below the space's ``BASE`` and draws and ``--set``, and known afterwards."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from deepmlf.analysis.report.page import analyze
from deepmlf.analysis.verdict import confirm
from deepmlf.config.recipe import published
from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError, SearchError
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.plan import SearchPlan, plan_resume, plan_search
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import DEFAULT_TRAIN
from deepmlf.tune.space.load import load_space
from tests.sealed import content_of
from tests.tune.experiments import settings

MINE = """
BASE = {"model.fusion_depth": 1, "training.patience": 7}
PRIORS = [{"training.decayed": "matrices", "training.lr_av": 3e-4}]


def space(trial):
    decayed = trial.suggest_categorical("training.decayed", ["matrices", "all_but_biases"])
    drawn = {"training.decayed": decayed}
    if decayed == "matrices":
        drawn["training.lr_av"] = trial.suggest_float("training.lr_av", 1e-4, 1e-2, log=True)
    return drawn
"""


def plan(data: Path, tmp_path: Path, **changes: Any) -> SearchPlan:
    (tmp_path / "mine.py").write_text(MINE)
    asked = {"space": str(tmp_path / "mine.py"), "recipe": "authors"} | changes
    return plan_search(settings(data, tmp_path / "runs", **asked))


def drawn(plan: SearchPlan, **params: Any) -> dict[str, Any]:
    """All settings of a trial of these parameters."""
    return plan.space.config_of(plan.space.sample(FixedTrial(params))).flat()


def test_what_the_space_fixes_or_draws_and_what_is_set_wins_over_the_recipe(small_data: Path, tmp_path: Path) -> None:
    made = plan(small_data, tmp_path, overrides={"training.cosine_epochs": 0})
    own = {"training.epochs": 9, "training.patience": 7, "training.cosine_epochs": 0}
    rest = published("mosi") | own
    there = drawn(made, **{"training.decayed": "all_but_biases"})
    assert {name: there[name] for name in rest} == rest
    prior = drawn(made, **made.queue[0])
    assert {name: prior[name] for name in rest} == rest | made.queue[0] | {"training.decayed": "matrices"}
    assert prior["training.lr_av"] == 3e-4


def test_set_wins_over_the_recipe_but_not_over_a_draw(small_data: Path, tmp_path: Path) -> None:
    assert drawn(plan(small_data, tmp_path, overrides={"training.lr_fusion": 2e-4}),
                 **{"training.decayed": "all_but_biases"})["training.lr_fusion"] == 2e-4  # fmt: skip
    with pytest.raises(SearchError, match="--set training.decayed: the space mine searches this setting"):
        plan(small_data, tmp_path, overrides={"training.decayed": "matrices"})


def test_a_published_space_is_its_recipe_already(small_data: Path, tmp_path: Path) -> None:
    asked = {"space": "published/mosi", "epochs": 150, "overrides": {"model.cross_attention_heads": 8}}
    bases = [
        plan_search(settings(small_data, tmp_path, recipe=recipe, **asked)).space.base for recipe in ("authors", None)
    ]
    assert bases[0] == bases[1]


def test_a_whole_ffn_multiplies_whatever_the_recipe_says_of_lora(small_data: Path, tmp_path: Path) -> None:
    made = plan_search(settings(small_data, tmp_path, space="mosi", recipe="authors"))
    sums = load_space("mosi").priors[0] | {"model.fusion_depth": 1}
    assert made.space.config_of({"model.fusion_depth": 1}).model.swiglu == "sum"
    whole = {name: value for name, value in sums.items() if name not in ("model.lora_rank", "model.swiglu")}
    assert drawn(made, **whole | {"model.ffn": "full"})["model.swiglu"] == "multiply"


def test_a_recipe_is_told_and_an_unknown_one_refused(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan(small_data, tmp_path, quiet=False)
    assert "deepmlf: --recipe authors: as published for mosi, but for what was chosen for " in capsys.readouterr().err
    assert made.experiment.manifest.settings.recipe == "authors"
    with pytest.raises(ConfigError, match="^--recipe mine: no such recipe; known recipes: authors$"):
        plan(small_data, tmp_path, recipe="mine")


@pytest.mark.ray
@pytest.mark.slow
def test_resume_confirm_and_the_report_know_the_recipe(
    ray_cluster: None, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        'BASE = {"model.fusion_depth": 1, "curriculum.name": "joint", "model.av_frames": 6}\n'
        "def space(trial):\n"
        '    return {"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 3)}\n'
    )
    asked = settings(
        small_data, tmp_path, space=str(tmp_path / "mine.py"), recipe="authors", trials=2, epochs=1, scheduler="none",
        train_function=DEFAULT_TRAIN, name="first",
    )  # fmt: skip
    run_search(asked)
    experiment = open_experiment(tmp_path / "first")
    resumed = plan_resume(experiment)
    expected = published("mosi") | {"training.epochs": 1, "curriculum.name": "joint", "model.av_frames": 6}
    base = resumed.space.base.config.flat()
    assert {name: base[name] for name in expected} == expected
    page = Path(analyze(tmp_path / "first")["report"]).read_text()
    assert "recipe: authors, where neither the space nor --set says otherwise" in capsys.readouterr().out
    assert "recipe authors where neither space nor --set says otherwise" in page
    confirm(tmp_path / "first", top=2, seeds=2, quiet=True)
    again = list(tmp_path.glob("first/confirm*/**/trials/*/config.json"))
    assert len(again) == 4
    for path in again:
        config = TrialConfig.from_dict(content_of(path)).flat()
        kept = expected.keys() - {"model.num_fusion_tokens"}
        assert {name: config[name] for name in kept} == {name: expected[name] for name in kept}
