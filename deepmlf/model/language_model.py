"""The frozen decoder LM, wrapped so that MM blocks can run between its layers."""

import copy
import hashlib
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig
from transformers.activations import NewGELUActivation

from deepmlf.errors import LanguageModelError
from deepmlf.model import lm_store
from deepmlf.model.lm.attention import Scores
from deepmlf.model.lm.check import COMPARED, Positions, positions_of
from deepmlf.model.lm.decoder import ATTENTION_NAME, Decoder
from deepmlf.model.lm.ffn import ffn_of
from deepmlf.model.lm.head import Head
from deepmlf.model.lm.loading import load_causal_lm
from deepmlf.model.lm.rms_norm import RMSNorm
from deepmlf.model.lm.tokenizer import ByteTokenizer, SpecialTokens, Tokenizer

Family = Literal["gpt2", "llama"]
"""Whose published choices an MM block's FFN has, and whose names checkpoints of the authors' code have."""

_ALL_WEIGHTS = "all:"  # begins a fingerprint of all weights
_SAMPLED_WEIGHTS = 256  # of each tensor, by the fingerprints of releases up to 0.1
_PUBLISHED_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh")
_SWIGLU = ("gate_proj", "up_proj", "down_proj")
_FIRST = (1, 2, 3, 4), (8, 7, 6, 5)  # tokens that another one must not depend on
_SAME = 1e-5
"""Two results of the same arithmetic in another order differ by less, relative to their size."""


class LanguageModel:
    """A Hugging Face decoder, run by its own forward pass, frozen and in eval mode.

    Deliberately not an ``nn.Module``: a DeepMLF neither registers, copies nor saves these weights, so any
    number of DeepMLFs in a process share one language model.

    Args:
        model: A causal LM; from now on it runs through this class alone.
        num_layers: Keep only the first so many layers; None keeps all.
        identity: What `lm_store.fingerprint` returns of it: differs between any two language models, so that what was
            computed by one can be kept; None keeps nothing.

    Raises:
        LanguageModelError: If its layers cannot be told, have no FFN of their own, or are fewer.
    """

    def __init__(self, model: Any, num_layers: int | None = None, identity: str | None = None) -> None:
        model.requires_grad_(False).eval()
        self.decoder = Decoder(model)
        self.config: PretrainedConfig = self.decoder.module.config
        kind = self.config.model_type
        self.family: Family | None = "gpt2" if kind == "gpt2" else "llama" if kind in COMPARED else None
        layers = self.decoder.layers
        for layer in layers:
            ffn_of(layer)
        _speed_up(self.decoder.module)
        if num_layers is not None and num_layers > len(layers):
            raise LanguageModelError(f"model.lm_layers={num_layers}: the language model has {len(layers)} layers")
        self.embedding = model.get_input_embeddings()
        self.layers: list[Any] = layers[:num_layers]
        self.num_layers = len(self.layers)
        self.width: int = self.config.hidden_size
        self.vocab_size, embedded = self.embedding.weight.shape
        if embedded != self.width:
            raise LanguageModelError(
                f"{type(model).__name__} is not supported: embeddings have {embedded} features, layers {self.width}"
            )
        self.positions: Positions | None = positions_of(self.config.to_dict())
        self.identity = identity
        self._head = Head(model, is_plain=kind in COMPARED)
        own = model.config._attn_implementation
        model.set_attn_implementation(ATTENTION_NAME)
        self.packs = kind in COMPARED or self._reads_rows_alone()
        """Whether packed rows are a text's own: layers let tokens see each other in attention alone, and leave that to
        us. If not, they run over padded rows by their own code."""
        if not self.packs:
            model.set_attn_implementation(own)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    @cached_property
    def kv_shape(self) -> tuple[int, int] | None:
        """(kv_heads, head_dim) of every layer's keys and values; None if layers differ, or keys from values."""
        if self.family is not None:
            heads: int = self.config.num_attention_heads
            head_dim = getattr(self.config, "head_dim", None) or self.width // heads
            return getattr(self.config, "num_key_value_heads", None) or heads, head_dim
        if not self.packs:
            return None
        shapes: set[tuple[int, int]] = set()

        def attend(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
            shapes.update((of.shape[1], of.shape[3]) for of in (key, value))
            return _each_to_itself(query, key, value, scores)

        with torch.no_grad():
            self.decoder.run(*self._rows(1), range(self.num_layers), attend=attend)
        return shapes.pop() if len(shapes) == 1 else None

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
        is_whole = like.startswith(_ALL_WEIGHTS)
        digest = hashlib.blake2b(digest_size=32) if is_whole else hashlib.sha256(str(self.family).encode())
        for module_name, module in self._weights().items():
            for name, tensor in module.state_dict().items():
                values = tensor.flatten()
                if not is_whole:
                    values = values[:: max(1, len(values) // _SAMPLED_WEIGHTS)]
                # bfloat16 is the coarsest type that weights are kept in: rounded to it, all copies are equal.
                rounded = values.bfloat16().view(torch.int16)
                digest.update(f"{module_name}.{name} {list(tensor.shape)}".encode() + rounded.cpu().numpy().tobytes())
        return (_ALL_WEIGHTS if is_whole else "") + digest.hexdigest()

    def _weights(self) -> dict[str, Any]:
        """Modules that hold the weights in use; their names and order are part of fingerprints."""
        base = self.decoder.module
        layers = {f"layers.{index}": layer for index, layer in enumerate(self.layers)}
        if self.family == "gpt2":
            return {"embedding": self.embedding, "final_norm": base.ln_f, "positions": base.wpe} | layers
        if self.family == "llama":
            return {"embedding": self.embedding, "final_norm": base.norm} | layers
        others = {name: module for name, module in base.named_children() if name != self.decoder.name}
        return {"embedding": self.embedding} | others | layers

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token embeddings without positions: [batch, seq] to [batch, seq, width]."""
        hidden: Tensor = self.embedding(input_ids)
        return hidden

    @property
    def head(self) -> Head:
        """Makes next-token logits of normed states."""
        return self._head

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits of normed states: [..., width] to [..., vocab]."""
        return self._head.logits(hidden.to(self.dtype))  # CUDA's autocast gives norms in float32

    def ffn(self, index: int) -> nn.Module:
        """One layer's FFN, sharing its weights: [..., width] to the same."""
        return ffn_of(self.layers[index])

    def ffn_weights(self, index: int) -> dict[str, Tensor] | None:
        """One layer's FFN weights as [out, in] matrices and biases, sharing the language model's memory.

        GPT-2: ``up``, ``up_bias``, ``down``, ``down_bias``. SwiGLU: ``gate``, ``up``, ``down``, each with a bias if the
        language model has one. None of any other form.
        """
        mlp: Any = self.ffn(index)
        if self.family == "gpt2":
            return {
                "up": mlp.c_fc.weight.t(),  # GPT-2 stores [in, out]
                "up_bias": mlp.c_fc.bias,
                "down": mlp.c_proj.weight.t(),
                "down_bias": mlp.c_proj.bias,
            }
        if self.family is None and not _is_swiglu(mlp):
            return None
        linears = {name.removesuffix("_proj"): getattr(mlp, name) for name in _SWIGLU}
        biases = {f"{name}_bias": linear.bias for name, linear in linears.items() if linear.bias is not None}
        return {name: linear.weight for name, linear in linears.items()} | biases

    def activation(self, index: int) -> Callable[[Tensor], Tensor]:
        """The activation of an MM block's FFN after one layer: that layer's own; for any GELU of GPT-2 the exact one.

        GPT-2's own is an approximation; DeepMLF's MM blocks were published with the exact function.
        """
        mlp: Any = self.ffn(index)
        if self.family == "gpt2":
            return nn.GELU() if self.config.activation_function in _PUBLISHED_GELU else mlp.act
        activation: Callable[[Tensor], Tensor] = mlp.act_fn
        return activation

    def new_norm(self) -> nn.Module:
        """A fresh norm of its kind: RMSNorm with ε=1e-6 if its layers have such, else LayerNorm with bias."""
        has_rms = any("RMSNorm" in type(module).__name__ for module in self.layers[0].modules())
        return RMSNorm(self.width, 1e-6) if has_rms else nn.LayerNorm(self.width)

    def _rows(self, *numbers: int) -> tuple[Tensor, Tensor]:
        """Embeddings of tokens [1, tokens, width] by their numbers, and their positions."""
        ids = torch.tensor([numbers], device=self.device) % self.vocab_size
        return self.embed(ids), torch.arange(len(numbers), device=self.device)[None]

    def _reads_rows_alone(self) -> bool:
        """Whether every layer asks us for attention, and tokens that do not attend to each other are alone.

        Whatever else lets tokens see each other, a convolution or a recurrent state, shows in the last of some rows
        whose others change: bit for bit, as the same kernels run on the same shapes.
        """
        every = range(self.num_layers)
        try:
            with torch.no_grad():
                rows, positions = self._rows(1, 2, 3, 4, 5)
                calls = {self.decoder.attention_calls(rows, positions, index, _each_to_itself) for index in every}
                runs = [self.decoder.run(*self._rows(*of, 9), every, attend=_each_to_itself) for of in _FIRST]
        except (LanguageModelError, RuntimeError, TypeError, ValueError):  # its attention cannot be ours
            return False
        return calls == {1} and torch.equal(*(states[:, -1] for states, _ in runs))


def _each_to_itself(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """Attention of rows that see themselves alone."""
    return value.repeat_interleave(query.shape[1] // key.shape[1], 1)


def _is_swiglu(mlp: Any) -> bool:
    """Whether an FFN is down(act(gate)·up), by its names and by what it computes."""
    if {name for name, _ in mlp.named_children()} != {*_SWIGLU, "act_fn"}:
        return False
    gate, up, down = (getattr(mlp, name) for name in _SWIGLU)
    if not all(type(linear) is nn.Linear for linear in (gate, up, down)):
        return False
    values = torch.linspace(-1, 1, gate.in_features).to(gate.weight)
    with torch.no_grad():
        return torch.equal(mlp(values), down(mlp.act_fn(gate(values)) * up(values)))


def _speed_up(decoder: nn.Module) -> None:
    """Put faster kernels in the place of modules that compute the same; weights stay theirs."""
    for module in list(decoder.modules()):
        for name, child in list(module.named_children()):
            if type(child) is NewGELUActivation:  # the same function in one kernel instead of eight
                setattr(module, name, nn.GELU(approximate="tanh"))
            elif type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, _faster(child))


def _faster(norm: Any) -> Any:
    """RMSNorm as Llama has it by a faster kernel, on the same weight; any other norm, also a replaced one, as it is."""
    eps, weight = getattr(norm, "variance_epsilon", None), getattr(norm, "weight", None)
    if eps is None or weight is None:
        return norm
    faster = RMSNorm(len(weight), eps, weight)
    values = torch.linspace(-1, 2, len(weight)).to(weight)
    if values.is_meta:
        return faster if type(norm).__name__ == "LlamaRMSNorm" else norm
    with torch.no_grad():
        expected, found = norm(values[None]).float(), faster(values[None]).float()
    tolerance = _SAME if weight.dtype == torch.float32 else 0.02
    return faster if (found - expected).abs().max() <= tolerance * expected.abs().max() else norm


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
