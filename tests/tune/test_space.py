"""Every space in search_spaces/ is loaded, sampled and checked, on shallow and deep language models."""

import warnings
from pathlib import Path

import optuna
import pytest

import search_spaces
from deepmlf.config import TrialConfig
from deepmlf.errors import SearchError
from deepmlf.tune.space import load_space

ROOT = Path(search_spaces.__file__).parent
SPACES = sorted(str(p.relative_to(ROOT).with_suffix("")) for p in ROOT.rglob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("depth", [4, 8, 24, 30])
@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_legal_by_construction_and_so_are_its_priors(name: str, depth: int) -> None:
    space = load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for prior in space.priors:
        study.enqueue_trial(prior)
    for _ in range(60):
        trial = study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns of a prior outside its range
            overrides = space.sample(trial, depth)
        TrialConfig.from_overrides(space.base, overrides).model.resolve_fusion_layers(depth)
        study.tell(trial, 1.0)


@pytest.mark.parametrize("name", SPACES)
def test_a_prior_names_only_what_the_space_searches(name: str) -> None:
    space = load_space(name)
    for prior in space.priors:
        study = optuna.create_study()
        study.enqueue_trial(prior)
        asked = study.ask()
        space.sample(asked, 24)
        assert set(prior) <= set(asked.params)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("BASE = {}\n", r"mine.py: defines no function `space\(trial\)`"),
        ("import nonsuch\n", r"mine.py: ModuleNotFoundError: No module named 'nonsuch'"),
        ("def space(:\n", r"mine.py: SyntaxError"),
    ],
)
def test_an_unusable_file_is_named_with_its_fault(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(SearchError, match=message):
        load_space(str(tmp_path / "mine.py"))


def test_an_unknown_space_lists_the_known_ones() -> None:
    with pytest.raises(SearchError, match=r"--space nonsuch: no such file or space; known spaces: .*demo.*mosi"):
        load_space("nonsuch")
