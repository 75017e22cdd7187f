"""A Hugging Face decoder run by its own forward pass, any range of its layers at a time.

Everything between the layers stays the model's: scaled embeddings, learned, rotary and absent positions, multipliers,
norms before and after, parallel residuals. Two things are ours, told to the pass through a context variable, as many a
model drops arguments that it does not know: how its layers attend, and what runs after each of them.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from deepmlf.errors import LanguageModelError
from deepmlf.model.lm.attention import Attend, Scores

ATTENTION_NAME = "deepmlf"

After = Callable[[int, Tensor], Tensor]
"""Maps a layer's 0-based number and its states to the states that the next layer gets."""

_IS_HOOKED = "is_hooked_by_deepmlf"
_HONOURED = {"scaling", "sliding_window", "softcap", "s_aux"}
_HARMLESS = {"dropout", "is_causal", "use_cache", "position_ids", "cache_position"}
"""Options of a layer's attention that make no difference to a frozen model, which drops nothing and keeps no cache."""


@dataclass
class _Pass:
    """One run through some layers."""

    entering: Tensor | None
    """What the first of them gets; None: what the model makes of the embeddings."""
    attend: Attend | None
    after: After | None
    left: Tensor | None = None
    """States after the newest layer."""
    gives_tuples: bool = False
    """Whether layers return their states with something behind."""
    casting: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Makes the autocast of whoever runs the layers, for what runs after each."""
    calls: int = 0
    """Times that a layer has asked for attention."""


_running: ContextVar[_Pass | None] = ContextVar("running", default=None)


@contextmanager
def _run_as(running: _Pass) -> Iterator[None]:
    token = _running.set(running)
    try:
        yield
    finally:
        _running.reset(token)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    running = _running.get()
    unknown = sorted(name for name in options.keys() - _HONOURED - _HARMLESS if options[name] is not None)
    if unknown or options.get("is_causal") is False:
        asked = unknown[0] if unknown else "attention to what comes later"
        raise LanguageModelError(f"{type(module).__name__}: its attention asks for {asked}, which is not supported")
    if running is None or running.attend is None or attention_mask is not None:
        raise LanguageModelError(f"{type(module).__name__}: is wrapped for DeepMLF; call it through `LanguageModel`")
    running.calls += 1
    scale = options.get("scaling")
    scores = Scores(
        query.shape[-1] ** -0.5 if scale is None else scale,
        options.get("sliding_window"),
        options.get("softcap"),
        options.get("s_aux"),
    )
    return running.attend(query, key, value, scores).transpose(1, 2), None


AttentionInterface.register(ATTENTION_NAME, _attention)


def _enter(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    running = _running.get()
    if running is None or running.entering is None:
        return None
    entering, running.entering = running.entering, None
    return ((entering, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": entering})


def _leave(index: int, layer: Any, args: tuple[Any, ...], output: Any) -> Any:
    running = _running.get()
    if running is None:
        return None
    hidden: Tensor = output if isinstance(output, Tensor) else output[0]
    if running.after is None:
        running.left = hidden
    else:
        with running.casting():
            running.left = running.after(index, hidden)
    running.gives_tuples = not isinstance(output, Tensor)
    return (running.left, *output[1:]) if running.gives_tuples else running.left


class _Nothing(nn.Module):
    """Stands where a decoder's last layer was: hands states on in its manner."""

    def __init__(self, layer: nn.Module, gives_tuples: bool) -> None:
        super().__init__()
        self.__dict__["_layer"] = layer  # not registered: it lends what a forward pass asks of a layer, no weights
        self.gives_tuples = gives_tuples

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_layer"], name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The states as they came."""
        return (hidden_states,) if self.gives_tuples else hidden_states


def _is_cast_to(dtype: torch.dtype, device: str) -> bool:
    """Whether autocast is on, to that type."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return False
    return torch.get_autocast_dtype(device) == dtype


def layers_of(decoder: Any) -> tuple[str, nn.ModuleList]:
    """The layers of a decoder, and the name under which it holds them.

    Raises:
        LanguageModelError: If it holds none such, or several.
    """
    count = decoder.config.num_hidden_layers
    lists = [
        (name, child)
        for name, child in decoder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if len(lists) != 1:
        raise LanguageModelError(
            f"{type(decoder).__name__} must hold its {count} layers in one list, but has {len(lists)} lists of so many"
        )
    return lists[0]


def _config_of(config: Any, count: int, layers: range) -> Any:
    """A decoder's configuration as if it had some of its layers alone: what it lists by layer is cut to them."""
    part = copy.copy(config)
    for name, value in vars(config).items():
        if isinstance(value, (list, tuple)) and len(value) == count:
            part.__dict__[name] = value[layers.start : layers.stop]
    part.__dict__["num_hidden_layers"] = len(layers)
    return part


class Decoder:
    """The layers of a Hugging Face decoder, by its own forward pass.

    Args:
        model: A causal LM.

    Raises:
        LanguageModelError: If its layers cannot be told.
    """

    def __init__(self, model: Any) -> None:
        self.module: Any = model.get_decoder()
        self.name, layers = layers_of(self.module)
        self.layers: list[Any] = list(layers)
        self._views: dict[tuple[int, int], Any] = {}
        self._gives_tuples = False
        self._takes = set(inspect.signature(self.module.forward).parameters)
        for index, layer in enumerate(layers):
            # No DeepMLF is known to them: what runs after a layer, the pass that is running tells. So once is enough.
            if not getattr(layer, _IS_HOOKED, False):
                layer.register_forward_pre_hook(_enter, with_kwargs=True)
                layer.register_forward_hook(partial(_leave, index))
                setattr(layer, _IS_HOOKED, True)

    def run(
        self,
        embedded: Tensor,
        positions: Tensor,
        layers: range,
        *,
        attend: Attend | None,
        entering: Tensor | None = None,
        after: After | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run some layers.

        Args:
            embedded: [batch, rows, d], as the model's embedding gives it; where `entering` is given it is only
                looked at.
            positions: [batch or 1, rows], of each row.
            layers: Which, in a row; none runs the final norm alone.
            attend: How rows attend; None: by the model's own code, causal.
            entering: States [batch, rows, d] that the first of them gets in place of the embedded.
            after: What makes of each layer's states those that go on.

        Returns:
            States after the last of them, and what the model's final norm makes of these.
        """
        has_own_type = _is_cast_to(embedded.dtype, embedded.device.type)
        autocast = partial(torch.autocast, embedded.device.type, embedded.dtype)
        running = _Pass(entering, attend, after, casting=autocast if has_own_type else nullcontext)
        options: dict[str, Any] = {"inputs_embeds": embedded, "use_cache": False}
        if "position_ids" in self._takes:
            options["position_ids"] = positions
        if attend is None:
            # Told that nothing is hidden, no model takes a jump of the positions for the begin of another text.
            options["attention_mask"] = torch.ones(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        # Where weights and states have autocast's own type, all that it does to them is casts there and back again.
        with _run_as(running), autocast(enabled=False) if has_own_type else nullcontext():
            normed: Tensor = self._view(layers)(**options).last_hidden_state
        self._gives_tuples = running.gives_tuples
        if running.left is None:
            raise LanguageModelError(f"{type(self.module).__name__}: its forward pass runs none of its layers")
        return running.left, normed

    def attention_calls(self, embedded: Tensor, positions: Tensor, layer: int, attend: Attend) -> int:
        """How often one layer asks for attention."""
        running = _Pass(None, attend, None)
        with _run_as(running):
            self._view(range(layer, layer + 1))(inputs_embeds=embedded, position_ids=positions, use_cache=False)
        return running.calls

    def _view(self, layers: range) -> Any:
        """The decoder with some of its layers alone; shares all weights."""
        key = layers.start, layers.stop
        if key not in self._views:
            view = copy.copy(self.module)
            kept = layers or range(len(self.layers) - 1, len(self.layers))
            run = [self.layers[index] for index in layers] or [self._nothing()]
            view.__dict__["_modules"] = self.module._modules | {self.name: nn.ModuleList(run)}
            view.__dict__["config"] = _config_of(self.module.config, len(self.layers), kept)
            self._views[key] = view
        return self._views[key]

    def _nothing(self) -> nn.Module:
        nothing = _Nothing(self.layers[-1], self._gives_tuples)
        nothing.register_forward_pre_hook(_enter, with_kwargs=True)
        nothing.register_forward_hook(partial(_leave, len(self.layers)))
        return nothing
