"""Import of checkpoints that the authors' code wrote."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from deepmlf.config.model import ModelConfig
from deepmlf.config.trial import first_fault
from deepmlf.errors import CheckpointError
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.loading import quietly
from deepmlf.model.pretrained import new_model_folder, write_parts
from deepmlf.model.weights import trained_state

_MODALITIES = (("audio", "a"), ("vision", "v"))
_FFN_NAMES = {
    "gpt2": {"up": "c_fc.weight", "up_bias": "c_fc.bias", "down": "c_proj.weight", "down_bias": "c_proj.bias"},
    "llama": {"gate": "gate_proj.weight", "up": "up_proj.weight", "down": "down_proj.weight"},
}


def model_config_of(reference: Mapping[str, Any]) -> ModelConfig:
    """Translate the authors' configuration into ours.

    Raises:
        CheckpointError: If a setting that is needed is missing.
    """
    try:
        if reference["n_bn_fusion"] == 0:  # ours would be another model than theirs
            raise CheckpointError("reference config: num_fusion_tokens=0: Input should be greater than or equal to 1")
        fusion, encoder = reference["mmgpt"], reference["av_enc"]
        lora = fusion.get("lora", {}) if fusion.get("use_lora") else {}
        norms = _normalised(encoder)
        if encoder.get("d_enc_out", encoder["d_enc"]) != encoder["d_enc"]:
            raise CheckpointError(
                f"reference config: d_enc_out={encoder['d_enc_out']} must equal d_enc={encoder['d_enc']}"
            )
        return ModelConfig.model_validate(
            {
                "max_text_len": reference["max_token_len"],
                "num_fusion_tokens": reference["n_bn_fusion"],
                "fusion_layers": tuple(fusion["mm_layer"]),
                "fusion_depth": len(fusion["mm_layer"]),
                "cross_attention_heads": fusion["n_head"],
                "dropout": fusion.get("dropout", 0.0),
                "ffn": "lora" if lora else "full",
                "lora_rank": lora.get("r", 1),
                "lora_alpha": lora.get("lora_alpha", 1),
                "lora_dropout": lora.get("lora_dropout", 0.0),
                # The authors' Llama LoRA branch adds where SwiGLU multiplies.
                "swiglu": "sum" if lora else "multiply",
                "head_width": fusion["d_out"],
                "av_width": encoder["d_enc"],
                "av_layers": encoder["nlevels"],
                "av_heads": encoder["n_head"],
                "av_frames": encoder["maxlen"],
                "av_dropout": encoder.get("enc_dropout", 0.0),
                "av_pooling": "strided",
                "av_batch_norm": "both" if len(norms) == 2 else norms[0] if norms else "none",
                "av_batch_norm_on": "pooled",
                "softperm_av_features": encoder.get("p_perm", 0.0) if encoder.get("use_softperm") else 0.0,
            }
        )
    except KeyError as error:
        raise CheckpointError(f"reference config: {error} is missing") from None
    except ValidationError as error:
        raise CheckpointError(f"reference config: {first_fault(error)}") from None


def _normalised(encoder: Mapping[str, Any]) -> list[str]:
    """Modalities with batch norm: by ``use_bn`` for both, by switches beside it, or by switches in its place."""
    use = encoder.get("use_bn", False)
    switches, default = (use, False) if isinstance(use, Mapping) else (encoder, True)
    return [name for name, key in _MODALITIES if use and switches.get(f"use_bn_{key}", default)]


def parameter_names(model: DeepMLF) -> dict[str, str]:
    """The authors' name of each of our parameters and buffers; ``key`` and ``value`` share their ``W_kv``."""
    family = model.language_model.family
    if family is None:
        raise CheckpointError("reference checkpoint: its language model is neither of GPT-2's nor of Llama's family")
    prefix = "Model.lang_encoder.transformer" if family == "gpt2" else "Model.lang_encoder.model"
    layers, tokens = ("h", "wte") if family == "gpt2" else ("layers", "embed_tokens")
    names = {"fusion_tokens": f"{prefix}.{tokens}.0.bn_embedding.bn_embedding"}
    for layer in model.fusion_layers:
        ours, theirs = f"mm_blocks.{layer}", f"{prefix}.{layers}.{layer}.ca_layer"
        names |= {f"{ours}.attention_gate": f"{theirs}.alpha_1", f"{ours}.ffn_gate": f"{theirs}.alpha_2"}
        for part, norm in (("attention_norm", "ln_1"), ("ffn_norm", "ln_2")):
            names |= {f"{ours}.{part}.{leaf}": f"{theirs}.{norm}.{leaf}" for leaf in ("weight", "bias")}
        for part, linear in (("query", "W_q"), ("key", "W_kv"), ("value", "W_kv"), ("output", "W_o")):
            names[f"{ours}.attention.{part}.weight"] = f"{theirs}.attn.{linear}.weight"
        for part, leaf in _FFN_NAMES[family].items():
            names[f"{ours}.ffn.{part}"] = f"{theirs}.mlp.{leaf}"
            lora = f"{theirs}.mlp.lora_{leaf.removesuffix('.weight')}"
            names |= {f"{ours}.ffn.lora.{part}.a": f"{lora}.lora_A", f"{ours}.ffn.lora.{part}.b": f"{lora}.lora_B"}
    encoder = "Model.av_encoder"
    for name, key in _MODALITIES:
        ours = f"av_encoder.{name}"
        names[f"{ours}.projection.weight"] = f"{encoder}.proj_{key}.weight"
        for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            names[f"{ours}.batch_norm.{leaf}"] = f"{encoder}.BN_{key}.{leaf}"
        for full in model.state_dict():
            if full.startswith(f"{ours}.layers."):
                names[full] = full.replace(f"{ours}.layers.", f"{encoder}.enc_{key}.layers.")
    pairs: tuple[tuple[str, str], ...] = (
        ("av_encoder.join", f"{encoder}.fusion"),
        ("av_encoder.norm", "Model.LN"),
        ("text_head", "Model.W_text"),
    )
    pairs += (("av_head", "Model.W_av"), ("fusion_head", "Model.W_bn"), ("task_head", "Model.W_task"))
    for ours, theirs in pairs:
        names |= {f: f.replace(ours, theirs, 1) for f in model.state_dict() if f.startswith(f"{ours}.")}
    return {ours: theirs for ours, theirs in names.items() if ours in model.state_dict()}


def from_reference_layout(name: str, tensor: Tensor, heads: int) -> Tensor:
    """Bring one of the authors' tensors into our layout: split ``W_kv``, fold their 1/√d scale into the query."""
    if name.endswith("attention.key.weight"):
        return tensor.chunk(2)[0]
    if name.endswith("attention.value.weight"):
        return tensor.chunk(2)[1]
    if name.endswith("attention.query.weight"):
        return tensor * math.sqrt(1 / heads)
    return tensor


def load_reference(
    state_dict: Mapping[str, Tensor], reference_config: Mapping[str, Any], lm_config: Mapping[str, Any]
) -> DeepMLF:
    """Build a DeepMLF with the weights of a checkpoint of the authors' code, its language model's included.

    Args:
        state_dict: Their parameters under their names (``Model.…``; a leading ``state.`` is dropped).
        reference_config: Their configuration.
        lm_config: The Hugging Face configuration of their language model.

    Returns:
        The model in eval mode.

    Raises:
        CheckpointError: If a weight or setting is missing, has another shape, or has no place in the model.
    """
    return _load(state_dict, reference_config, lm_config)[0]


def _load(
    state_dict: Mapping[str, Tensor], reference_config: Mapping[str, Any], lm_config: Mapping[str, Any]
) -> tuple[DeepMLF, Any]:
    """The model, and its language model as Hugging Face's."""
    state = {name.removeprefix("state."): tensor for name, tensor in state_dict.items()}
    causal_lm = _language_model(state, lm_config)
    dims = reference_config.get("feature_dims")
    if not isinstance(dims, list) or len(dims) != 3:
        raise CheckpointError(f"reference config: feature_dims must be [text, audio, vision], but got {dims}")
    model = DeepMLF(LanguageModel(causal_lm), dims[1], dims[2], model_config_of(reference_config))
    if not reference_config.get("use_lnorm", True):
        model.av_encoder.norm = nn.Identity()  # type: ignore[assignment]
    names = parameter_names(model)
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    heads = model.config.cross_attention_heads
    for ours, tensor in own.items():
        theirs = names.get(ours)
        if theirs is None or theirs not in state:
            raise CheckpointError(f"reference checkpoint: {theirs or ours} is missing")
        value = from_reference_layout(ours, state[theirs], heads)
        if value.shape != tensor.shape:
            raise CheckpointError(
                f"reference checkpoint: {theirs} must have shape {list(tensor.shape)}, but got {list(value.shape)}"
            )
        # A frozen FFN weight shares the language model's memory: replace it, do not write through.
        tensor.data = value.to(tensor.dtype).clone()
    # Position buffers carry no weights; `clf` is the head of their AV pretraining, unused in the fused model.
    ignored = ("._float_tensor", "Model.av_encoder.clf.weight", "Model.av_encoder.clf.bias")
    known = set(names.values())
    foreign = [
        name for name in state if name not in known and not name.endswith(ignored) and not _is_of_language_model(name)
    ]
    if foreign:
        raise CheckpointError(f"reference checkpoint: no place for {foreign[0]} in the model that its config describes")
    return model.eval(), causal_lm


def _is_of_language_model(name: str) -> bool:
    return name.startswith("Model.lang_encoder.") and ".ca_layer." not in name and "bn_embedding" not in name


def _language_model(state: Mapping[str, Tensor], lm_config: Mapping[str, Any]) -> Any:
    """Their language model as Hugging Face's causal LM."""
    settings = dict(lm_config)
    try:
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"language model config: unusable ({error})") from None
    with torch.random.fork_rng(devices=[]):  # initial weights, all of which are replaced
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {}
    for name, tensor in state.items():
        if _is_of_language_model(name):
            ours = name.removeprefix("Model.lang_encoder.").replace(".decoder_layer.", ".")
            weights[ours.replace(".0.embedding.", ".").replace(".0.positional.", ".")] = tensor
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not (name == "lm_head.weight" and config.tie_word_embeddings)]
    if missing or unexpected:
        fault = f"{missing[0]} is missing" if missing else f"no place for {unexpected[0]}"
        raise CheckpointError(f"reference checkpoint, language model: {fault}")
    return model


def import_reference(checkpoint: Path, config: Path, out: Path, lm_config: Path | None = None) -> None:
    """Convert a checkpoint file (``.safetensors``, or ``.pt``/``.pth`` read with weights only) into a folder.

    ``DeepMLF.from_pretrained`` reads it. Its language model is in ``language_model``, in Hugging Face's manner, but
    without a tokenizer, which their checkpoints do not hold.

    Args:
        checkpoint: The authors' weights.
        config: Their configuration as JSON; may hold ``reference_config`` and ``lm_config`` under these keys.
        out: A folder that is empty or missing.
        lm_config: The language model's Hugging Face configuration as JSON.

    Raises:
        CheckpointError: If a file cannot be read or does not fit, or `out` holds something.
    """
    reference = _read_json(config)
    settings = reference.get("reference_config", reference)
    lm_settings = _read_json(lm_config) if lm_config is not None else reference.get("lm_config")
    if lm_settings is None:
        raise CheckpointError(f"{config}: names no language model; give its configuration with --lm-config LM.json")
    lm_settings = lm_settings.get("lm_config", lm_settings)
    model, causal_lm = _load(_read_weights(checkpoint), settings, lm_settings)
    if not settings.get("use_lnorm", True):
        raise CheckpointError("reference config: use_lnorm=false can be loaded by load_reference, but not be written")
    model.config = model.config.model_copy(update={"language_model": str(out.absolute() / "language_model")})
    with new_model_folder(out) as folder:
        with quietly():
            causal_lm.save_pretrained(folder / "language_model")
        write_parts(folder, model.pretrained_config(), trained_state(model))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, but got {type(content).__name__}")
    return content


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
            states = {n: t for n, t in weights.items() if n.startswith(("state.", "Model."))}
            return states or weights
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own exceptions, all of which mean the same to the user
        raise CheckpointError(f"{path}: not a checkpoint that can be read safely ({error})") from None
    return dict(loaded)
