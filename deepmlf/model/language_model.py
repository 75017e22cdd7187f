"""The frozen decoder LM, wrapped so that MM blocks can run between its layers."""

import copy
import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig
from transformers.activations import NewGELUActivation

from deepmlf.errors import LanguageModelError
from deepmlf.model import lm_store
from deepmlf.model.attention import ATTENTION_NAME, Attend
from deepmlf.model.lm.check import SUPPORTED, Positions, positions_of
from deepmlf.model.lm.loading import load_causal_lm
from deepmlf.model.lm.tokenizer import ByteTokenizer, SpecialTokens, Tokenizer
from deepmlf.model.rms_norm import RMSNorm

Family = Literal["gpt2", "llama"]

_ALL_WEIGHTS = "all:"  # begins a fingerprint of all weights
_SAMPLED_WEIGHTS = 256  # of each tensor, by the fingerprints of releases up to 0.1
_PUBLISHED_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh")


class LanguageModel:
    """A Hugging Face decoder of the GPT-2 or the Llama family, frozen and in eval mode.

    Deliberately not an ``nn.Module``: a DeepMLF neither registers, copies nor saves these weights, so any
    number of DeepMLFs in a process share one language model.

    Args:
        model: A causal LM with ``transformer.h`` (GPT-2) or ``model.layers`` (Llama and its like).
        num_layers: Keep only the first so many layers; None keeps all.
        identity: What `lm_store.fingerprint` returns of it: differs between any two language models, so that what was
            computed by one can be kept; None keeps nothing.

    Raises:
        LanguageModelError: If the architecture is of neither family or has fewer layers.
    """

    def __init__(self, model: Any, num_layers: int | None = None, identity: str | None = None) -> None:
        if model.config.model_type not in SUPPORTED:
            raise LanguageModelError(
                f"model_type={model.config.model_type!r} is not supported; supported are {', '.join(SUPPORTED)}"
            )
        model.requires_grad_(False).eval()
        model.set_attn_implementation(ATTENTION_NAME)
        self.config: PretrainedConfig = model.config
        base = model.base_model
        if hasattr(base, "h") and hasattr(base, "wpe"):
            self.family: Family = "gpt2"
            layers, self.embedding, self._final_norm = base.h, base.wte, base.ln_f
            for layer in layers:
                if type(layer.mlp.act) is NewGELUActivation:  # the same function in one kernel instead of eight
                    layer.mlp.act = nn.GELU(approximate="tanh")
        elif hasattr(base, "layers") and hasattr(base, "rotary_emb"):
            self.family = "llama"
            layers, self.embedding, self._final_norm = base.layers, base.embed_tokens, _faster(base.norm)
            for layer in layers:
                layer.input_layernorm = _faster(layer.input_layernorm)
                layer.post_attention_layernorm = _faster(layer.post_attention_layernorm)
        else:
            raise LanguageModelError(
                f"{type(model).__name__} is neither of the GPT-2 nor of the Llama family; "
                "it needs `transformer.h` with learned positions, or `model.layers` with rotary ones"
            )
        if num_layers is not None and num_layers > len(layers):
            raise LanguageModelError(f"model.lm_layers={num_layers}: the language model has {len(layers)} layers")
        self._base = base
        self._lm_head = model.get_output_embeddings()
        self.layers: list[Any] = list(layers[:num_layers])
        self.num_layers = len(self.layers)
        self.width: int = self.embedding.weight.shape[1]
        self.vocab_size: int = self.embedding.weight.shape[0]
        self.positions: Positions | None = positions_of(self.config.to_dict())
        self.identity = identity
        heads: int = self.config.num_attention_heads
        self.kv_shape: tuple[int, int] = (
            getattr(self.config, "num_key_value_heads", None) or heads,
            getattr(self.config, "head_dim", None) or self.width // heads,
        )
        """(kv_heads, head_dim) of every layer."""

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def first_layers(self, num_layers: int | None) -> "LanguageModel":
        """The same weights, only the first `num_layers` layers; shares everything.

        Raises:
            LanguageModelError: If there are fewer layers.
        """
        if num_layers is None or num_layers == self.num_layers:
            return self
        if num_layers > self.num_layers:
            raise LanguageModelError(f"model.lm_layers={num_layers}: the language model has {self.num_layers} layers")
        part = copy.copy(self)
        part.layers = self.layers[:num_layers]
        part.num_layers = num_layers
        return part

    def fingerprint(self, like: str = _ALL_WEIGHTS) -> str:
        """Names the weights in use, the same on any machine and in any type: a hash of every tensor.

        Args:
            like: A fingerprint to compare with: one of a release up to 0.1 tells of a sample of every tensor.
        """
        modules = {"embedding": self.embedding, "final_norm": self._final_norm}
        if self.family == "gpt2":
            modules["positions"] = self._base.wpe
        modules |= {f"layers.{index}": layer for index, layer in enumerate(self.layers)}
        is_whole = like.startswith(_ALL_WEIGHTS)
        digest = hashlib.blake2b(digest_size=32) if is_whole else hashlib.sha256(self.family.encode())
        for module_name, module in modules.items():
            for name, tensor in module.state_dict().items():
                values = tensor.flatten()
                if not is_whole:
                    values = values[:: max(1, len(values) // _SAMPLED_WEIGHTS)]
                # bfloat16 is the coarsest type that weights are kept in: rounded to it, all copies are equal.
                rounded = values.bfloat16().view(torch.int16)
                digest.update(f"{module_name}.{name} {list(tensor.shape)}".encode() + rounded.cpu().numpy().tobytes())
        return (_ALL_WEIGHTS if is_whole else "") + digest.hexdigest()

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token embeddings without positions: [batch, seq] to [batch, seq, width]."""
        hidden: Tensor = self.embedding(input_ids)
        return hidden

    def add_positions(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Place [batch, seq, width] at `positions` [seq]: learned ones are added, rotary ones returned."""
        if self.family == "gpt2":
            hidden = hidden + self._base.wpe(positions)
        return hidden, self.rotary(hidden, positions)

    def rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines [1, seq, head_dim] of `positions` [seq] in the type of `hidden`; None for GPT-2."""
        if self.family == "gpt2":
            return None
        cosines_and_sines: tuple[Tensor, Tensor] = self._base.rotary_emb(hidden, position_ids=positions[None])
        return cosines_and_sines

    def layer(self, index: int, hidden: Tensor, attend: Attend, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """Run one decoder layer.

        Args:
            index: 0-based layer.
            hidden: [batch, rows, width].
            attend: How rows attend to each other; see `deepmlf.model.attention`.
            rotary: What `add_positions` returned.

        Returns:
            [batch, rows, width].
        """
        extra = {} if rotary is None else {"position_embeddings": rotary}
        output: Tensor = self.layers[index](hidden, attention_mask=None, attend=attend, **extra)
        return output

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The norm before the LM head, [..., width]."""
        output: Tensor = self._final_norm(hidden)
        return output

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight [vocab, width] of the LM head, and its bias [vocab] if it has one."""
        return self._lm_head.weight, getattr(self._lm_head, "bias", None)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits of normed states: [..., width] to [..., vocab]."""
        output: Tensor = self._lm_head(hidden.to(self.dtype))  # CUDA's autocast gives norms in float32
        return output

    def ffn_weights(self, index: int) -> dict[str, Tensor]:
        """One layer's FFN weights as [out, in] matrices and biases, sharing the language model's memory.

        GPT-2: ``up``, ``up_bias``, ``down``, ``down_bias``. Llama: ``gate``, ``up``, ``down``, each with a bias if the
        language model has one.
        """
        mlp = self.layers[index].mlp
        if self.family == "gpt2":
            return {
                "up": mlp.c_fc.weight.t(),  # GPT-2 stores [in, out]
                "up_bias": mlp.c_fc.bias,
                "down": mlp.c_proj.weight.t(),
                "down_bias": mlp.c_proj.bias,
            }
        linears = {"gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj}
        biases = {f"{name}_bias": linear.bias for name, linear in linears.items() if linear.bias is not None}
        return {name: linear.weight for name, linear in linears.items()} | biases

    def activation(self, index: int) -> Callable[[Tensor], Tensor]:
        """The activation of an MM block's FFN after one layer: that layer's own; for any GELU of GPT-2 the exact one.

        GPT-2's own is an approximation; DeepMLF's MM blocks were published with the exact function.
        """
        mlp = self.layers[index].mlp
        if self.family == "gpt2":
            return nn.GELU() if self.config.activation_function in _PUBLISHED_GELU else mlp.act
        return mlp.act_fn

    def new_norm(self) -> nn.Module:
        """A fresh norm of the family: LayerNorm with bias, or RMSNorm with ε=1e-6."""
        return nn.LayerNorm(self.width) if self.family == "gpt2" else RMSNorm(self.width, 1e-6)


def _faster(norm: Any) -> Any:
    """Llama's RMSNorm by a faster kernel, on the same weight; any other norm, also a replaced one, as it is."""
    eps = getattr(norm, "variance_epsilon", None)
    return norm if eps is None else RMSNorm(len(norm.weight), eps, norm.weight)


def dtype_of(precision: str) -> torch.dtype:
    """The type of the frozen weights under ``training.precision``."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def tiny_random(
    family: Family = "llama",
    num_layers: int = 4,
    seed: int = 0,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LanguageModel:
    """A seeded random language model over bytes, for tests; leaves the global random state as it was.

    Its weights are drawn on the CPU in float32, so that they are the same on any device and rounded in any other type.
    """
    common: dict[str, Any] = {"vocab_size": ByteTokenizer.vocab_size, "bos_token_id": 0, "eos_token_id": 0}
    config: PretrainedConfig
    if family == "gpt2":
        config = GPT2Config(
            n_positions=512,
            n_embd=64,
            n_layer=num_layers,
            n_head=4,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
            **common,
        )
    else:
        config = LlamaConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=num_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            **common,
        )
    with torch.random.fork_rng(devices=[]):  # a GPU's state is neither touched nor is the GPU opened
        torch.default_generator.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # not the rotary frequencies, which any language model keeps in float32
        parameter.data = parameter.data.to(dtype)
    return LanguageModel(model.to(device), identity=f"{lm_store.TINY_RANDOM} {family} {seed}")


@lru_cache(maxsize=2)
def load_language_model(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Load a language model once per process, device and type.

    Args:
        name: A name known to ``deepmlf lm get``, a local folder, or ``tiny-random``.
        device: A torch device.
        dtype: Type of the frozen weights.

    Raises:
        LanguageModelError: If it is not available offline or not of a supported family.
    """
    if name == lm_store.TINY_RANDOM:
        return tiny_random(device=device, dtype=dtype)
    folder = lm_store.resolve(name, tokenizer=False)
    identity = lm_store.fingerprint(name)
    model = load_causal_lm(folder, dtype)
    if lm_store.fingerprint(name) != identity:
        raise LanguageModelError(f"{folder}: was changed while it was read; try again")
    return LanguageModel(model.to(device), identity=identity)


@lru_cache(maxsize=4)
def load_tokenizer(name: str, special_tokens: SpecialTokens = "tokenizer") -> Tokenizer | ByteTokenizer:
    """Load a language model's tokenizer once per process.

    Args:
        name: As for `load_language_model`.
        special_tokens: ``model.special_tokens``

    Raises:
        LanguageModelError: If it is not available offline.
    """
    if name == lm_store.TINY_RANDOM:
        return ByteTokenizer()
    return Tokenizer(lm_store.resolve(name), special_tokens=special_tokens)
