"""One search over several language models: each trial draws one, and everything after knows which."""

import json
import re
from pathlib import Path

import optuna
import pytest

import deepmlf
from deepmlf.errors import SearchError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.model import lm_store
from deepmlf.model.language_model import tiny_random
from deepmlf.tune.experiment.manifest import write_manifest
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.plan import plan_resume, plan_search
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings
from tests.model.small_lm import make_folder
from tests.tune.experiments import settings

BASE = {
    "model.cross_attention_heads": 2, "model.max_text_len": 16, "model.num_fusion_tokens": 4, "model.av_width": 6,
    "curriculum.name": "joint", "model.fusion_depth": 1,
}  # fmt: skip
AV = "audio and vision"
SEEDS = f"BASE = {BASE}\ndef space(trial):\n    return {{'training.seed': trial.suggest_int('training.seed', 0, 2)}}\n"


@pytest.fixture
def lms(tmp_path: Path) -> list[str]:
    """Three of different widths."""
    narrow, wide = make_folder(tmp_path / "lm" / "narrow"), make_folder(tmp_path / "lm" / "wider", width=16)
    return ["tiny-random", str(narrow), str(wide)]


def asked(data: Path, folder: Path, lms: list[str], **changes: object) -> SearchSettings:
    (folder / "seeds.py").write_text(SEEDS)
    defaults = {"space": str(folder / "seeds.py"), "lm": lms[0], "more_lms": lms[1:], "sampler": "grid",
                "scheduler": "none", "epochs": 1}  # fmt: skip
    return settings(data, folder, **(defaults | changes))


@pytest.mark.ray
def test_a_grid_over_three_models_is_trained_reported_and_confirmed(
    ray_cluster: None, tmp_path: Path, small_data: Path, lms: list[str]
) -> None:
    search = asked(small_data, tmp_path, lms).model_dump(
        exclude={"data", "space", "lm", "train_function"}, exclude_unset=True
    )
    search.pop("trials")  # all points
    experiment = deepmlf.search(small_data, space=str(tmp_path / "seeds.py"), lm=lms[0], **search)
    opened = open_experiment(experiment.place)
    drawn = sorted((trial.params["model.language_model"], trial.params["training.seed"]) for trial in opened.trials())
    assert drawn == sorted((lm, seed) for lm in lms for seed in range(3))
    assert all(trial.values for trial in opened.trials())
    for trial in opened.trials():
        folder = opened.place_of_trial(trial.number).folder
        config = json.loads((folder / "config.json").read_text())
        assert config["model"]["language_model"] == trial.params["model.language_model"]
        assert evaluate_trial(folder, split="valid")["MAE"] == pytest.approx(trial.values[0], abs=1e-5)
    beside = experiment.standing.baselines
    names = [of for lm in map(Path, lms) for of in (f"language model {lm.name}", f"language model {lm.name}, {AV}")]
    assert set(beside) - {"constant", "words", AV, "text head"} == set(names)
    assert "text head" in beside
    page = Path(experiment.report()).read_text()
    assert "<h3>Which language model?</h3>" in page
    asked_of = page[page.index("<h3>Which language model?</h3>") :]
    rows = re.findall(r'<th scope="row">(narrow|wider|tiny-random) \(', asked_of)
    assert rows[:3] == ["narrow", "wider", "tiny-random"]  # by size
    assert "valid/MAE against parameters of the language model" in page
    assert f" with {', '.join(lms)}" in page
    assert "valid/MAE against seconds of a fusion epoch" in page
    confirmed = experiment.confirm(top=2, seeds=2)
    assert len(confirmed["settings"]) == 2
    assert all(setting["seeds"] for setting in confirmed["settings"])
    compared = {opened.config_of(opened.trials()[one["trial"]]).model.language_model for one in confirmed["settings"]}
    on_test = {name: metrics["MAE"] for name, metrics in confirmed["baselines"].items()}
    expected = {f"language model {Path(lm).name}" for lm in compared}
    assert {name for name in on_test if "language model" in name and AV not in name} == expected
    assert on_test["text head"] > 0
    assert {name: on_test[name] for name in expected} != {name: beside[name] for name in expected}


def test_each_model_has_its_own_size_and_its_own_setting(small_data: Path, tmp_path: Path, lms: list[str]) -> None:
    deep = "def space(trial, lm):\n    return {'model.fusion_depth': lm.num_layers, 'model.fusion_start': 0.0}\n"
    (tmp_path / "deep.py").write_text(deep)
    plan = plan_search(asked(small_data, tmp_path, lms, space=str(tmp_path / "deep.py"),
                             overrides={name: BASE[name] for name in BASE if "depth" not in name}))  # fmt: skip
    assert plan.settings.trials == 3
    configs = [plan.space.config_of(plan.space.sample(_fixed(point))) for point in plan.queue]
    depths = {config.model.language_model: config.model.fusion_depth for config in configs}
    assert depths == {lms[0]: 4, lms[1]: 1, lms[2]: 1}
    assert len({plan.space.effective(config) for config in configs}) == 3


def _fixed(point: dict[str, object]) -> object:
    return optuna.trial.FixedTrial(point)


def test_a_space_that_names_the_model_draws_it_itself(small_data: Path, tmp_path: Path, lms: list[str]) -> None:
    own = f"BASE = {BASE}\ndef space(trial):\n    return {{'model.language_model': {lms[1]!r}}}\n"
    (tmp_path / "own.py").write_text(own)
    plan = plan_search(asked(small_data, tmp_path, lms, space=str(tmp_path / "own.py")))
    assert plan.space.config_of(plan.space.sample(_fixed({}))).model.language_model == lms[1]
    (tmp_path / "own.py").write_text(own.replace("narrow", "gone"))
    with pytest.raises(SearchError, match="is none of those that --lm names: tiny-random, /"):
        plan_search(asked(small_data, tmp_path, lms, space=str(tmp_path / "own.py")))


def test_one_model_under_two_names_is_refused(small_data: Path, tmp_path: Path, lms: list[str]) -> None:
    (tmp_path / "link").symlink_to(lms[1])
    with pytest.raises(SearchError) as refused:
        plan_search(asked(small_data, tmp_path, [*lms, str(tmp_path / "link")]))
    assert str(refused.value) == (
        f"--lm {tmp_path}/link: is the same language model as --lm {lms[1]}; name each one once"
    )


def test_a_resume_wants_the_same_models(small_data: Path, tmp_path: Path, lms: list[str]) -> None:
    plan = plan_search(asked(small_data, tmp_path, lms))
    folder = plan.experiment.folder
    folder.mkdir()
    write_manifest(folder, plan.experiment.manifest)
    again = plan_resume(open_experiment(folder))
    assert list(again.space.whole_lms) == lms
    make_folder(Path(lms[2]), width=24)
    with pytest.raises(SearchError, match=f"^{lms[2]}: is not the language model that search began with; start a new"):
        plan_resume(open_experiment(folder))


def test_parameters_are_counted_by_headers(lms: list[str]) -> None:
    model = tiny_random("llama")
    layers = [tensor for layer in model.layers for tensor in layer.parameters()]
    tensors = {id(tensor): tensor for tensor in (*layers, model.embedding.weight, model.head.weight)}
    norm = 64  # the final one's
    assert lm_store.known("tiny-random").parameters == sum(t.numel() for t in tensors.values()) + norm
    width, words, positions = 8, 3, 32
    layer = 12 * width**2 + 13 * width
    assert lm_store.known(lms[1]).parameters == layer + (words + positions) * width + 2 * width


@pytest.mark.ray
def test_a_guided_search_learns_over_all_models(
    ray_cluster: None, tmp_path: Path, small_data: Path, lms: list[str]
) -> None:
    tokens = "trial.suggest_int('model.num_fusion_tokens', 2, 12)"
    (tmp_path / "tokens.py").write_text(
        f"BASE = {BASE}\ndef space(trial):\n    return {{'model.num_fusion_tokens': {tokens}}}\n"
    )
    search = asked(
        small_data, tmp_path, lms, space=str(tmp_path / "tokens.py"), sampler="auto", scheduler="asha", epochs=9
    )
    summary = run_search(search.model_copy(update={"trials": 14}))
    assert summary.states["FAIL"] == 0
    drawn = [trial.params for trial in open_experiment(tmp_path / "search").trials()]
    assert len(drawn) == 14
    assert {params["model.language_model"] for params in drawn} == set(lms)
    assert all("model.num_fusion_tokens" in params for params in drawn)
