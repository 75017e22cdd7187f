"""What of a trial's configuration takes effect: trials that differ in nothing of it train the same."""

import json
from dataclasses import dataclass
from typing import Any

from deepmlf.config.model import ModelConfig
from deepmlf.config.trial import Stage, TrainingConfig, TrialConfig
from deepmlf.training.curriculum import stages_of
from deepmlf.training.stores.av_key import OWN

_SEED = "training.seed"
_IN_STAGES = (
    "name", "av_epochs", "av_share", "av_lr", "av_batch_size", "av_accumulation_steps", "av_weight_decay",
    "text_epochs", "text_share", "text_lr", "grow_share",
)  # fmt: skip
"""What of a curriculum its stages stand for."""
_DIGITS = 12  # 0.1 + 0.2, which a step may draw, is the 0.3 that a prior says


@dataclass(frozen=True)
class EffectiveSetting:
    """What a trial trains: equal for two trials if they train the same with the same seed."""

    key: str
    """All that takes effect but the seed, in a canonical form: equal for two trials of one setting."""
    seed: int


def effective_setting(config: TrialConfig, num_layers: int) -> EffectiveSetting:
    """What of a configuration takes effect.

    Fused layers stand for the depth, start and spacing that they come from, stages for the curriculum that has them.
    What has no effect beside the other settings is left out: LoRA's of a full FFN, the probability of a SoftPerm that
    is off, the learning rate of an audiovisual encoder that fusion keeps frozen, the initial value of gates that there
    are not, ULGM's numbers where it generates nothing.

    >>> one, other = ({"model.ffn": "full", "model.lora_rank": rank, "training.seed": rank} for rank in (8, 64))
    >>> one = effective_setting(TrialConfig.from_overrides(one), 30)
    >>> other = effective_setting(TrialConfig.from_overrides(other), 30)
    >>> one.key == other.key, one == other
    (True, False)

    Args:
        config: The trial's.
        num_layers: Layers of the language model, if `config` keeps all of them.

    Raises:
        ConfigError: If its depth or an explicit layer does not fit the language model.
    """
    values, model = config.flat(), config.model
    layers = model.lm_layers or num_layers
    stages = stages_of(config)
    idle = {_SEED, "training.language_loss", "model.fusion_depth", "model.fusion_start", "model.fusion_spacing"}
    idle |= {f"curriculum.{name}" for name in _IN_STAGES}
    if not any(stage.is_av_alone for stage in stages):
        idle |= {name for name in values if name.startswith("curriculum.av_")}
    elif config.curriculum.av_schedule != "plateau":
        idle.add("curriculum.av_plateau")
    idle |= _idle_in_model(model)
    if not _uses_ulgm(config):
        idle |= {name for name in values if name.startswith("training.ulgm")}
    if not any("av_encoder" in stage.trains and stage.lr is None for stage in stages):
        idle.add("training.lr_av")
    used = {name: _plain(value) for name, value in values.items() if name not in idle}
    if isinstance(model.gate_init, tuple) and len(set(model.gate_init)) == 1 and "model.gate_init" in used:
        used["model.gate_init"] = _plain(model.gate_init[0])
    used["model.lm_layers"] = layers
    used["model.fusion_layers"] = model.resolve_fusion_layers(layers)
    used["stages"] = [_plain(_trained(stage, config.training)) for stage in stages]
    return EffectiveSetting(json.dumps(used, sort_keys=True), config.training.seed)


def _idle_in_model(model: ModelConfig) -> set[str]:
    """Settings that have no effect beside the model's others."""
    idle = set()
    if model.ffn == "full":
        idle |= {f"model.{name}" for name in ModelConfig.model_fields if name.startswith("lora_")}
    if model.av_layers == 0:
        idle.add("model.av_heads")
    if not (model.softperm_text_features and model.softperm_text_apply):
        idle |= {"model.softperm_text_features", "model.softperm_text_apply"}
    if model.gate == "none":
        idle.add("model.gate_init")
    if model.num_fusion_tokens == 0:
        idle.add("training.loss_fusion")
    if model.ffn_on == "fusion":  # the text's states are the language model's, whatever is trained
        idle.add("training.loss_lm")
    return idle


def _uses_ulgm(config: TrialConfig) -> bool:
    """Whether generated labels are trained on: there is an epoch left to do so, and a head whose loss counts."""
    training = config.training
    counts = training.loss_text + training.loss_av + training.loss_fusion * (config.model.num_fusion_tokens > 0) > 0
    return training.ulgm and counts and training.ulgm_from_epoch < training.epochs


def _trained(stage: Stage, training: TrainingConfig) -> dict[str, Any]:
    """What of a stage takes effect; what it may have of its own is the training's, if it has none."""
    values = stage.model_dump(mode="json", exclude={"name"})
    return values | {name: getattr(training, name) for name in OWN if values[name] is None}


def _plain(value: Any) -> Any:
    """The same value, its floats rounded to what a person may have written."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, dict) else value
