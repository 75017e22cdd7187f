"""Every space in search_spaces/: legal on shallow and deep language models, priors in range, grids that enumerate."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
import pytest

from deepmlf.config.model import ModelConfig
from deepmlf.config.recipe import CODE
from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError, SearchError
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import Family, LanguageModel, tiny_random
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.names import known_spaces
from deepmlf.tune.plan import plan_search
from deepmlf.tune.space.bound import check_ranges, check_space
from deepmlf.tune.space.load import SearchSpace, load_space
from tests.tune.experiments import settings
from tests.tune.parts import bound

ROOT = Path(__file__).resolve().parents[3]
SPACES = known_spaces()
EMPTY = "def space(trial):\n    return {}\n"
SMOLLM2 = LanguageModelFacts(num_layers=30, width=576)
TINY = LanguageModelFacts(num_layers=4, width=64)
SIZES = [TINY, LanguageModelFacts(8, 576), LanguageModelFacts(12, 768), SMOLLM2, LanguageModelFacts(36, 1280)]


def draw(space: SearchSpace, lm: LanguageModelFacts, count: int = 200) -> Iterator[tuple[optuna.Trial, dict[str, Any]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    base = TrialConfig.from_overrides(space.base).flat()
    for prior in space.priors:
        study.enqueue_trial(prior)
    for _ in range(count):
        trial = study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns of a prior outside its range
            overrides = space.sample(trial, lm, base)
        yield trial, overrides
        study.tell(trial, 1.0)


def test_the_known_spaces_are_those_of_the_readme() -> None:
    assert SPACES == [
        "ablations/curriculum", "ablations/data_size", "ablations/depth", "ablations/groups", "ablations/model",
        "ablations/regularisation", "ablations/tokens", "demo", "mosei", "mosi", "published/mosei",
        "published/mosei_large", "published/mosi", "published/sims", "sims",
    ]  # fmt: skip


@pytest.mark.parametrize("lm", SIZES, ids=lambda lm: f"{lm.num_layers}x{lm.width}")
@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_legal_by_construction_and_so_are_its_priors(name: str, lm: LanguageModelFacts) -> None:
    space = load_space(name)
    on_lm = bound(space, lm, space.base)
    for _, overrides in draw(space, lm, count=40):
        on_lm.config_of(overrides)


@lru_cache
def tiny(family: Family) -> LanguageModel:
    return tiny_random(family)


@pytest.mark.parametrize("name", SPACES)
def test_every_drawn_model_can_be_built(name: str) -> None:
    space = load_space(name)
    models: dict[ModelConfig, int] = {}  # a grid draws the same model many times
    for trial, overrides in draw(space, TINY):
        models.setdefault(TrialConfig.from_overrides(space.base, overrides).model, trial.number)
    for config, number in models.items():
        DeepMLF(tiny("llama" if number % 2 else "gpt2"), 5, 8, config)


@pytest.mark.parametrize("name", SPACES)
def test_a_prior_names_only_what_the_space_searches(name: str) -> None:
    space = load_space(name)
    drawn = list(draw(space, SMOLLM2, count=len(space.priors)))
    for prior, (trial, _) in zip(space.priors, drawn, strict=True):
        assert prior == {setting: trial.params[setting] for setting in prior}


@pytest.mark.parametrize(
    ("name", "lm", "fused"),
    [
        ("mosi", LanguageModelFacts(24, 2048), [(11, 14, 17, 20, 23)]),
        ("mosei", LanguageModelFacts(36, 1280), [None, (7, 14, 21, 28, 35)]),
        ("mosei", LanguageModelFacts(12, 768), [(3, 4, 6, 7, 8, 10, 11)]),
        ("sims", LanguageModelFacts(12, 768), [(5, 6, 7, 8, 9, 10, 11)]),
        ("published/mosi", LanguageModelFacts(24, 2048), [(11, 14, 17, 20, 23)]),
        ("published/mosei", LanguageModelFacts(12, 768), [(3, 5, 7, 8, 9, 10, 11)]),
        ("published/mosei_large", LanguageModelFacts(36, 1280), [(7, 14, 21, 28, 35)]),
        ("published/sims", LanguageModelFacts(12, 768), [(5, 6, 7, 8, 9, 10, 11)]),
        ("ablations/curriculum", LanguageModelFacts(24, 2048), [(11, 14, 17, 20, 23)]),
    ],
)
def test_priors_fuse_the_published_layers(name: str, lm: LanguageModelFacts, fused: list[tuple[int, ...]]) -> None:
    space = load_space(name)
    for expected, (_, overrides) in zip(fused, draw(space, lm, count=len(fused)), strict=True):
        model = TrialConfig.from_overrides(space.base, overrides).model
        assert expected in (None, model.resolve_fusion_layers(lm.num_layers))


AUTHORS = {
    "data.standardize": False, "model.gate_init": 0.0, "model.cross_attention_heads": 16, "model.dropout": 0.1,
    "model.av_width": 30, "model.av_heads": 6, "model.av_layers": 3, "model.av_dropout": 0.1,
    "model.av_pooling": "strided", "curriculum.name": "av_first", "curriculum.av_share": None,
    "curriculum.av_schedule": "plateau", "curriculum.av_patience": 8, "curriculum.av_weights": "best",
    "curriculum.av_readout": "last", "training.lr_fusion": 1e-4, "training.batch_size": 32,
    "training.accumulation_steps": 8, "training.accumulation": "sum", "training.clip_value": 5.0,
    "training.clip_av": False, "training.decayed": "all_but_biases", "training.min_lr": 1e-7,
    "training.warmup_epochs": 1.0,
}  # fmt: skip
"""What the authors' code does for all datasets."""
OF_DATASET = (
    "model.num_fusion_tokens", "training.loss_lm", "training.loss_fusion", "training.loss_av", "training.loss_text",
    "training.weight_decay", "model.softperm_text_apply", "training.cosine_epochs", "training.patience",
    "model.max_text_len", "model.av_frames", "model.ffn", "curriculum.av_lr", "model.softperm_av_features",
    "model.av_batch_norm",
)  # fmt: skip
PUBLISHED = {
    ("mosi", 0): (8, 0.0, 0.4, 0.8, 0.8, 1e-3, 0.0, 150, 30, 50, 50, "lora", 1e-3, 0.3, "audio"),
    ("mosei", 0): (12, 1.1, 1.0, 1.0, 1.0, 5e-3, 0.3, 15, 10, 50, 50, "full", 5e-3, 0.2, "none"),
    ("mosei", 1): (12, 1.0, 1.0, 1.0, 1.0, 0.1, 0.25, 20, 10, 50, 50, "full", 5e-3, 0.2, "none"),
    ("sims", 0): (20, 1.0, 1.0, 1.0, 1.0, 0.1, 0.25, 100, 10, 39, 55, "full", 5e-4, 0.2, "both"),
}
"""What was published for each, by space and prior."""
FIXED_IN = {
    ("mosi", 0): [
        "published/mosi",
        "ablations/curriculum",
        "ablations/data_size",
        "ablations/depth",
        "ablations/groups",
        "ablations/tokens",
    ],  # fmt: skip
    ("mosei", 0): ["published/mosei"],
    ("mosei", 1): ["published/mosei_large"],
    ("sims", 0): ["published/sims"],
}
"""Spaces that fix it."""


@pytest.mark.parametrize("published", PUBLISHED, ids=str)
def test_what_is_called_published_is_the_authors_throughout(published: tuple[str, int]) -> None:
    name, prior = published
    expected = AUTHORS | dict(zip(OF_DATASET, PUBLISHED[published], strict=True))
    if expected["model.softperm_text_apply"]:
        expected["model.softperm_text_features"] = 0.2 if published == ("mosei", 0) else 0.3
    if expected["model.av_batch_norm"] != "none":
        expected["model.av_batch_norm_on"] = "pooled"
    if expected["model.ffn"] == "lora":
        expected |= {"model.lora_rank": 512, "model.lora_alpha": 8192.0, "model.lora_dropout": 0.05,
                     "model.swiglu": "sum"}  # fmt: skip
    for space_name, index in ((name, prior), *((fixed, 0) for fixed in FIXED_IN[published])):
        space = load_space(space_name)
        overrides = [drawn for _, drawn in draw(space, LanguageModelFacts(36, 2048), count=index + 1)][index]
        settings = TrialConfig.from_overrides(space.base, overrides).flat()
        varied = {"ablations/tokens": "model.num_fusion_tokens", "ablations/curriculum": "curriculum.name"}
        wanted = {setting: value for setting, value in expected.items() if setting != varied.get(space_name)}
        assert {setting: settings[setting] for setting in wanted} == wanted, space_name
        assert settings["curriculum.av_epochs"] >= 100


def test_the_differences_that_the_docs_list_are_those_that_a_published_space_takes() -> None:
    page = (ROOT / "docs" / "reproducing-the-paper.md").read_text()
    rows = [row.split("|")[3] for row in page.splitlines() if row.startswith("| ")]
    listed = {name for row in rows for name in re.findall(r"`((?:data|model|training|curriculum)\.\w+)", row)}
    defaults = TrialConfig().flat()
    changed = set()
    for name in ("published/mosi", "published/sims"):
        changed |= {name for name, value in load_space(name).base.items() if value != defaults[name]}
    assert listed <= changed
    assert {name for name in CODE if CODE[name] != defaults[name]} | {
        "training.cosine_epochs",
        "training.patience",
    } == (listed)


def test_a_space_that_draws_the_seed_wins_over_that_of_the_search() -> None:
    base = {"training.seed": 11} | load_space("ablations/tokens").base
    for _, overrides in draw(load_space("ablations/tokens"), TINY, count=5):
        assert TrialConfig.from_overrides(base, overrides).training.seed == overrides["training.seed"] <= 2


def test_settings_that_make_no_sense_without_another_are_drawn_with_it_alone() -> None:
    with_it = {
        "model.lora_rank": lambda drawn: drawn["model.ffn"] == "lora",
        "model.swiglu": lambda drawn: drawn["model.ffn"] == "lora",
        "model.fusion_start": lambda drawn: drawn.get("model.fusion_spacing") == "even",
        "model.softperm_text_features": lambda drawn: drawn["model.softperm_text_apply"] > 0,
        "model.av_batch_norm_on": lambda drawn: drawn["model.av_batch_norm"] != "none",
        "curriculum.av_schedule": lambda drawn: drawn["curriculum.name"] in ("av_first", "av_frozen", "unimodal_first"),
        "curriculum.av_share": lambda drawn: drawn.get("curriculum.av_schedule") == "cosine",
        "training.accumulation": lambda drawn: drawn["training.accumulation_steps"] > 1,
        "curriculum.text_share": lambda drawn: drawn["curriculum.name"] == "unimodal_first",
        "curriculum.grow_share": lambda drawn: drawn["curriculum.name"] == "grow_depth",
        "training.lr_av": lambda drawn: drawn["curriculum.name"] != "av_frozen",
    }
    counts = dict.fromkeys(with_it, 0)
    for trial, _ in draw(load_space("mosi"), SMOLLM2):
        for setting, makes_sense in with_it.items():
            assert (setting in trial.params) == makes_sense(trial.params), (setting, trial.params)
            counts[setting] += setting in trial.params
    assert all(0 < count < 200 for count in counts.values())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("BASE = {}\n", r"mine.py: defines no function `space\(trial\)`"),
        ("import nonsuch\n", r"mine.py: ModuleNotFoundError: No module named 'nonsuch'"),
        ("def space(:\n", r"mine.py: SyntaxError"),
        ("BASE = 3\n" + EMPTY, r"mine.py: BASE must be a dict of settings, but got 3$"),
        ("BASE = {1: 2}\n" + EMPTY, r"mine.py: BASE must be a dict of settings, but got {1: 2}$"),
        ("PRIORS = {'model.dropout': 0.1}\n" + EMPTY,
         r"mine.py: PRIORS must be a list of dicts of settings, but got dict$"),
        ("PRIORS = [{}, 'model.dropout']\n" + EMPTY,
         r"mine.py: PRIORS\[1\] must be a dict of settings, but got 'model.dropout'$"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_named_with_its_fault(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(SearchError, match=message):
        load_space(str(tmp_path / "mine.py"))


@pytest.mark.parametrize(
    ("body", "priors", "message"),
    [
        ("{'model.fusion_depth': trial.suggest_int('model.fusion_depth', 1, 9)}", [],
         "--space mine: model.fusion_depth=5: at most 3 of the language model's 4 layers lie at or above "
         "model.fusion_start=0.45"),
        ("{'model.fusion_layers': [2, 7]}", [],
         "--space mine: model.fusion_layers=[2, 7]: the language model has layers 0 to 3"),
        ("{'model.fusion_depth': 1, 'model.cross_attention_heads': 12}", [],
         "--space mine: model.cross_attention_heads=12: must divide the language model's width 64"),
        ("{'model.tokens': 3}", [], "--space mine: model.tokens: no such setting (did you mean model.special_tokens?)"),
        ("{'depth': 3}", [], "--space mine: depth: no such setting; sections are data, model, training, curriculum"),
        ("{'model.dropout': 1.5}", [], "--space mine: model.dropout=1.5: Input should be less than 1"),
        ("{}['depth']", [], "--space mine: KeyError: 'depth'"),
        ("None", [], "--space mine: TypeError: `space` must return a dict of settings, but got NoneType"),
        ("{'training.seed': trial.suggest_int('training.seed', 0, 2)}", [{"training.seed": 1}, {"training.seed": 5}],
         "--space mine: PRIORS[1]: training.seed=5: the space draws 0 to 2"),
        ("{'model.dropout': trial.suggest_float('model.dropout', 0, 0.5, step=0.1)}", [{"model.dropout": 0.25}],
         "--space mine: PRIORS[0]: model.dropout=0.25: the space draws 0.0 to 0.5 in steps of 0.1"),
        ("{'model.ffn': trial.suggest_categorical('model.ffn', ['lora', 'full'])}", [{"model.ffn": "none"}],
         "--space mine: PRIORS[0]: ValueError: 'none' not in ('lora', 'full')."),
        ("{}", [{"model.dropout": 0.1}],
         "--space mine: PRIORS[0]: model.dropout: the space does not draw this beside the prior's other settings"),
        ("{'training.patience': trial.suggest_int('training.patience', 1, 2)}", [],
         "--set training.patience: the space mine searches this setting; fix it in the space instead"),
        ("{'training.epochs': trial.suggest_int('training.epochs', 1, 2)}", [],
         "--space mine: training.epochs: is one for all trials of a search; use --epochs"),
        ("{'model.lm_layers': 5}", [], "--space mine: model.lm_layers=5: the language model has 4 layers"),
        ("{'model.lm_layers': 2, 'model.fusion_depth': 3}", [],
         "--space mine: model.fusion_depth=3: at most 2 of the language model's 2 layers lie at or above"),
    ],
)  # fmt: skip
def test_a_fault_of_a_space_is_told_in_one_line(
    tmp_path: Path, body: str, priors: list[dict[str, Any]], message: str
) -> None:
    base = {"model.fusion_depth": 1, "model.cross_attention_heads": 8}
    (tmp_path / "mine.py").write_text(f"PRIORS = {priors}\ndef space(trial):\n    return {body}\n")
    space = load_space(str(tmp_path / "mine.py"))
    with pytest.raises(SearchError) as caught:
        check_space(bound(space, TINY, base), "mine", {"training.patience"}, seed=0)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_trial_may_keep_more_or_fewer_layers_than_the_others() -> None:
    base = {"model.lm_layers": 4, "model.fusion_start": 0.0, "model.cross_attention_heads": 8}
    space = bound(load_space("demo"), SMOLLM2, base)
    assert space.lm == LanguageModelFacts(4, 576)
    space.config_of({"model.lm_layers": 8, "model.fusion_depth": 5})
    with pytest.raises(ConfigError, match="model.fusion_depth=5: at most 4 of the language model's 4 layers"):
        bound(load_space("demo"), SMOLLM2, {}).config_of(
            {"model.fusion_start": 0.0, "model.lm_layers": 4, "model.fusion_depth": 5}
        )
    with pytest.raises(ConfigError, match=r"^model.lm_layers=31: the language model has 30 layers$"):
        _ = bound(load_space("demo"), SMOLLM2, {"model.lm_layers": 31}).lm


def test_the_second_argument_of_a_space_is_the_language_model(tmp_path: Path) -> None:
    source = "def space(trial, lm):\n    return {'model.fusion_layers': [lm.num_layers - 1]}\n"
    (tmp_path / "mine.py").write_text(source)
    space = load_space(str(tmp_path / "mine.py"))
    assert [overrides for _, overrides in draw(space, TINY, count=1)] == [{"model.fusion_layers": [3]}]


def test_an_unknown_space_lists_the_known_ones() -> None:
    with pytest.raises(SearchError, match=r"--space nonsuch: no such file or space; known spaces: .*demo.*mosi"):
        load_space("nonsuch")


def test_groups_of_fusion_tokens_are_refused_before_a_search_on_data_that_lack_a_modality() -> None:
    def space(trial: Any) -> dict[str, Any]:
        return {"model.fusion_groups": trial.suggest_categorical("model.fusion_groups", ["shared", "separate"])}

    on_both = bound(space)
    assert {config.model.fusion_groups for config in check_space(on_both, "mine", {}, 0)} == {"shared", "separate"}
    with pytest.raises(SearchError) as caught:
        check_space(replace(on_both, missing=("audio",)), "mine", {}, 0)
    assert str(caught.value) == "--space mine: model.fusion_groups=separate: the dataset has no audio; take shared"


def by_depth(draw: Callable[[Any, bool], Any]) -> Callable[[Any], dict[str, Any]]:
    """A space whose second parameter is drawn in one way or the other, by the first."""

    def space(trial: Any) -> dict[str, Any]:
        depth = trial.suggest_int("model.fusion_depth", 1, 2)
        return {"model.fusion_depth": depth, "model.num_fusion_tokens": draw(trial, depth == 1)}

    return space


TOKENS = "model.num_fusion_tokens"


@pytest.mark.parametrize(
    ("draw", "ways"),
    [
        (lambda t, a: t.suggest_categorical(TOKENS, [2, 4] if a else [4, 8, 12]), ("[2, 4]", "[4, 8, 12]")),
        (lambda t, a: t.suggest_categorical(TOKENS, [2, 4] if a else [4, 2]), ("[2, 4]", "[4, 2]")),
        (lambda t, a: t.suggest_categorical(TOKENS, [2, 4]) if a else t.suggest_int(TOKENS, 2, 8),
         ("[2, 4]", "2 to 8")),
        (lambda t, a: t.suggest_int(TOKENS, 2, 8, log=a), ("2 to 8 on a log scale", "2 to 8")),
        (lambda t, a: t.suggest_int(TOKENS, 2, 8) if a else t.suggest_float(TOKENS, 2, 8), ("2 to 8", "2.0 to 8.0")),
        (lambda t, a: t.suggest_categorical(TOKENS, [2, 4] if t.number % 2 else [4, 8]), ("[2, 4]", "[4, 8]")),
    ],
)  # fmt: skip
def test_a_parameter_that_is_drawn_in_two_ways_is_told_before_half_the_trials_fail(
    draw: Callable[[Any, bool], Any], ways: tuple[str, str]
) -> None:
    with pytest.raises(SearchError) as refused:
        check_ranges(bound(by_depth(draw)), "mine.py", seed=0)
    assert str(refused.value) in {
        f"--space mine.py: {TOKENS}: is drawn from {one} and from {other}, but Optuna has one kind and one set of "
        "choices for a name; give each its own"
        for one, other in (ways, ways[::-1])
    }


def test_a_branch_that_one_draw_in_fifty_takes_is_found() -> None:
    def space(trial: Any) -> dict[str, Any]:
        is_rare = trial.suggest_int("x", 1, 50) == 1
        return {TOKENS: trial.suggest_categorical(TOKENS, [2, 4] if is_rare else [4, 8])}

    with pytest.raises(SearchError, match="is drawn from"):
        check_ranges(bound(space), "mine.py", seed=0)


def test_a_numerical_range_may_move_and_is_named(small_data: Path, tmp_path: Path, capsys: Any) -> None:
    """Optuna draws from it, each trial from its own; but samplers have no common range to learn in."""
    moving = by_depth(lambda trial, is_shallow: trial.suggest_int(TOKENS, 2, 4 if is_shallow else 8))
    assert check_ranges(bound(moving), "mine.py", seed=0) == [TOKENS]
    path = tmp_path / "mine.py"
    path.write_text(
        "def space(trial):\n"
        "    depth = trial.suggest_int('model.fusion_depth', 1, 2)\n"
        f"    tokens = trial.suggest_int({TOKENS!r}, 2, 4 * depth)\n"
        f"    return {{'model.fusion_depth': depth, {TOKENS!r}: tokens}}\n"
    )
    plan_search(settings(small_data, tmp_path, space=str(path), quiet=False))
    assert capsys.readouterr().err == (
        f"deepmlf: {TOKENS}: its range depends on another draw, so samplers learn little of it\n"
    )


@pytest.mark.parametrize("name", SPACES)
def test_no_parameter_of_a_known_space_moves(name: str) -> None:
    space = load_space(name)
    assert check_ranges(bound(space, SMOLLM2, space.base), name, seed=0) == []
