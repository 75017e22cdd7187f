"""Which settings of a trial take effect: those that do tell two trials apart, those that do not, do not."""

from typing import Any

import pytest

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError
from deepmlf.training.effective import EffectiveSetting, effective_setting

LAYERS = 30


def effective(**overrides: Any) -> EffectiveSetting:
    """Of overrides whose dots are spelled as two underscores."""
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return effective_setting(TrialConfig.from_overrides(dotted), LAYERS)


NO_HEAD_COUNTS = {"training__loss_av": 0.0, "training__loss_text": 0.0, "training__loss_fusion": 0.0}
SAME = [
    # One block always sits after the last layer, wherever and however fusion is said to start.
    ({"model__fusion_depth": 1, "model__fusion_start": 0.2}, {"model__fusion_depth": 1, "model__fusion_start": 0.7}),
    ({"model__fusion_depth": 1, "model__fusion_spacing": "top"}, {"model__fusion_depth": 1}),
    ({"model__fusion_depth": 3, "model__fusion_spacing": "top", "model__fusion_start": 0.3},
     {"model__fusion_depth": 3, "model__fusion_spacing": "top", "model__fusion_start": 0.5}),
    ({"model__fusion_depth": 3}, {"model__fusion_layers": [13, 21, 29], "model__fusion_depth": 9}),
    ({"model__fusion_start": 0.45}, {"model__fusion_start": 0.46}),  # both layer 13
    ({"model__lm_layers": LAYERS}, {}),
    ({"model__ffn": "full", "model__lora_rank": 8, "model__lora_alpha": 16.0, "model__lora_dropout": 0.3},
     {"model__ffn": "full"}),
    ({"model__softperm_text_apply": 0.5}, {"model__softperm_text_features": 0.3}),
    ({"model__av_layers": 0, "model__av_heads": 2}, {"model__av_layers": 0}),
    ({"model__dropout": 0.1 + 0.2}, {"model__dropout": 0.3}),
    ({"curriculum__name": "joint", "curriculum__av_epochs": 9, "curriculum__av_lr": 0.1, "curriculum__grow_share": 0.1},
     {"curriculum__name": "joint"}),
    ({"curriculum__name": "av_first", "curriculum__text_epochs": 9, "curriculum__text_lr": 0.1},
     {"curriculum__name": "av_first"}),
    ({"curriculum__av_share": 0.4, "training__epochs": 15}, {"curriculum__av_epochs": 6, "training__epochs": 15}),
    ({"curriculum__name": "av_frozen", "training__lr_av": 0.1}, {"curriculum__name": "av_frozen"}),
    ({"curriculum__name": "joint", "curriculum__av_readout": "last", "curriculum__av_patience": 3},
     {"curriculum__name": "joint"}),
    ({"curriculum__av_plateau": 9}, {}),
    ({"curriculum__av_batch_size": 32, "training__batch_size": 32}, {"training__batch_size": 32}),
    ({"curriculum__name": "joint", "curriculum__av_weight_decay": 9.0}, {"curriculum__name": "joint"}),
    ({"curriculum__name": "grow_depth", "model__fusion_depth": 1},
     {"curriculum__name": "joint", "model__fusion_depth": 1}),
    ({"model__gate": "none", "model__gate_init": -4.0}, {"model__gate": "none"}),
    ({"model__gate": "none", "model__fusion_depth": 2, "model__gate_init": [0.0, 1.0]},
     {"model__gate": "none", "model__fusion_depth": 2}),
    ({"model__fusion_depth": 2, "model__gate_init": [-4.0, -4.0]},
     {"model__fusion_depth": 2, "model__gate_init": -4.0}),
    ({"model__fusion_depth": 2, "model__gate_init": [0.1 + 0.2, 0.0]},
     {"model__fusion_depth": 2, "model__gate_init": [0.3, 0.0]}),
    ({"model__num_fusion_tokens": 0, "training__loss_fusion": 0.3}, {"model__num_fusion_tokens": 0}),
    ({"model__ffn_on": "fusion", "training__loss_lm": 0.3}, {"model__ffn_on": "fusion"}),
    ({"training__ulgm_from_epoch": 4, "training__ulgm_limit": 2.0}, {}),
    ({"training__ulgm": True, "training__ulgm_from_epoch": 3, "training__epochs": 3}, {"training__epochs": 3}),
    ({"training__ulgm": True, **NO_HEAD_COUNTS}, NO_HEAD_COUNTS),
    ({"training__ulgm": True, **NO_HEAD_COUNTS, "training__loss_fusion": 1.0, "model__num_fusion_tokens": 0},
     {**NO_HEAD_COUNTS, "model__num_fusion_tokens": 0}),
]  # fmt: skip
DIFFERENT = [
    ({"model__fusion_depth": 4}, {"model__fusion_depth": 5}),
    ({"model__fusion_start": 0.45}, {"model__fusion_start": 0.5}),
    ({"model__lm_layers": 28}, {}),
    ({"model__lora_rank": 8}, {"model__lora_rank": 16}),
    ({"model__softperm_text_apply": 0.5, "model__softperm_text_features": 0.1},
     {"model__softperm_text_apply": 0.5, "model__softperm_text_features": 0.2}),
    ({"curriculum__name": "av_frozen"}, {"curriculum__name": "av_first"}),
    ({"curriculum__name": "joint", "training__lr_av": 0.1}, {"curriculum__name": "joint"}),
    ({"curriculum__name": "grow_depth"}, {"curriculum__name": "joint"}),
    ({"curriculum__av_lr": 0.1}, {"curriculum__av_lr": 0.2}),
    ({"curriculum__av_readout": "last"}, {}),
    ({"curriculum__av_weight_decay": 0.5}, {}),
    ({"curriculum__av_batch_size": 7}, {}),
    ({"curriculum__av_accumulation_steps": 3}, {}),
    ({"curriculum__av_weights": "best"}, {}),
    ({"curriculum__av_schedule": "plateau"}, {}),
    ({"curriculum__av_schedule": "plateau", "curriculum__av_plateau": 9}, {"curriculum__av_schedule": "plateau"}),
    ({"curriculum__av_patience": 3}, {}),
    ({"training__cosine_epochs": 150}, {}),
    ({"training__ulgm": True}, {}),
    ({"training__ulgm": True, "training__loss_av": 0.0, "training__loss_text": 0.0},
     {"training__loss_av": 0.0, "training__loss_text": 0.0}),
    ({"training__ulgm": True, "training__ulgm_from_epoch": 3}, {"training__ulgm": True}),
    ({"training__ulgm": True, "training__ulgm_limit": 2.0}, {"training__ulgm": True}),
    ({"training__weight_decay": 1e-4}, {"training__weight_decay": 1.0001e-4}),
    ({"training__epochs": 4}, {"training__epochs": 5}),
    ({"model__gate": "tanh"}, {}),
    ({"model__fusion_depth": 2, "model__gate_init": [0.0, 1.0]},
     {"model__fusion_depth": 2, "model__gate_init": [1.0, 0.0]}),
    ({"model__fusion_groups": "separate"}, {}),
    ({"model__ffn_on": "fusion"}, {}),
    ({"model__num_fusion_tokens": 0, "training__loss_lm": 0.3}, {"model__num_fusion_tokens": 0}),
    ({"model__embedding_noise": 5.0}, {}),
    ({"model__embedding_dropout": 0.1}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_settings_without_effect_make_no_other_setting(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert effective(**one) == effective(**other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_settings_with_effect_make_another_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert effective(**one).key != effective(**other).key


def test_the_seed_tells_trainings_of_one_setting_apart() -> None:
    one, other = effective(training__seed=1), effective(training__seed=2)
    assert one.key == other.key
    assert one != other


def test_a_depth_beyond_the_language_model_has_no_effective_setting() -> None:
    with pytest.raises(ConfigError, match=r"model.fusion_depth=20: at most 17 of the language model's 30 layers"):
        effective(model__fusion_depth=20)
