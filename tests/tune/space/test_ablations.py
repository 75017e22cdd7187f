"""The grids of the paper's analyses: each varies what it is called by, and nothing else."""

import optuna
import pytest

from deepmlf.config.trial import TrialConfig
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import LanguageModel, tiny_random
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.decide.samplers import grid_points
from deepmlf.tune.space.load import load_space
from tests.tune.parts import bound

SMOLLM2 = LanguageModelFacts(num_layers=30, width=576)


@pytest.fixture(scope="module")
def small_lm() -> LanguageModel:
    return tiny_random("gpt2")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    ("name", "varied", "size"),
    [
        ("ablations/depth", "model.fusion_depth", 6 * 3),
        ("ablations/tokens", "model.num_fusion_tokens", 7 * 3),
        ("ablations/curriculum", "curriculum.name", 5 * 3),
        ("ablations/data_size", "data.train_share", 5 * 3),
        ("ablations/groups", "model.fusion_groups", 2 * 3),
    ],
)
def test_a_grid_sampler_enumerates_an_ablation(name: str, varied: str, size: int) -> None:
    space = load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0))
    points = []

    def objective(trial: optuna.Trial) -> float:
        points.append(space.sample(trial, SMOLLM2, TrialConfig.from_overrides(space.base).flat()))
        return 0.0

    study.optimize(objective, n_trials=100)
    assert len(points) == len({tuple(sorted(point.items())) for point in points}) == size
    assert {point["training.seed"] for point in points} == {0, 1, 2}
    assert {setting for setting in points[0] if len({point[setting] for point in points}) > 1} == {
        "training.seed", varied
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("around", ["mosi", "mosei", "sims"])
@pytest.mark.parametrize(
    ("name", "word"), [("ablations/model", "variant"), ("ablations/regularisation", "regularisation")]
)
def test_each_word_of_an_ablation_stands_for_another_model(
    name: str, word: str, around: str, small_lm: LanguageModel
) -> None:
    space, base = load_space(name), load_space(f"published/{around}").base
    on_lm = bound(space, SMOLLM2, base)
    points, cut = grid_points(on_lm, None, seed=0)
    assert not cut
    assert len(points) == 6 * 3
    configs = [on_lm.config_of(on_lm.sample(optuna.trial.FixedTrial(point))) for point in points]
    assert len({on_lm.effective(config) for config in configs}) == len(points)
    [plain] = [config for config, point in zip(configs, points, strict=True)
               if point[word] in ("as it is", "nothing") and point["training.seed"] == 0]  # fmt: skip
    for config, point in zip(configs, points, strict=True):
        changed = {setting for setting, value in config.flat().items() if value != plain.flat()[setting]}
        assert changed - {"training.seed"} <= CHANGED[point[word]]
        assert changed - {"training.seed"} or config.model == plain.model
        DeepMLF(small_lm, 5, 8, config.model.model_copy(update={"fusion_layers": (1, 3), "gate_init": 0.0}))


CHANGED: dict[str, set[str]] = {
    "as it is": set(),
    "no fusion tokens": {"model.num_fusion_tokens"},
    "no gates": {"model.gate"},
    "tanh gates": {"model.gate"},
    "nearly closed gates": {"model.gate_init"},
    "FFN on fusion tokens alone": {"model.ffn_on"},
    "nothing": set(),
    "SoftPerm": {"model.softperm_text_apply", "model.softperm_text_features", "model.softperm_av_features"},
    "embedding dropout": {"model.embedding_dropout"},
    "embedding noise": {"model.embedding_noise"},
    "next-token loss": {"training.loss_lm"},
    "weight decay": {"training.weight_decay"},
}
"""Settings that a word may change, all others as published."""
