"""DeepMLF, assembled: frozen LM, fusion tokens, MM blocks, audiovisual encoder, heads."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from deepmlf.config.model import ModelConfig
from deepmlf.data.batch import to_device
from deepmlf.model.attention import (
    KeysAndValues,
    MaskedAttention,
    Packing,
    attention_mask_of,
    fusion_mask_of,
    with_a_token,
)
from deepmlf.model.augmentation import TextAugmentation
from deepmlf.model.av_encoder import AudioVisualEncoder, AudioVisualStates
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.mm_block import MMBlock
from deepmlf.model.pretrained import (
    LanguageModelRecord,
    PretrainedConfig,
    TrainedOn,
    language_model_of,
    read_config,
    read_weights,
    write_pretrained,
)
from deepmlf.model.weights import trained_state


@dataclass(frozen=True)
class DeepMLFOutput:
    """Predictions of one batch."""

    task: Tensor
    """[batch, outputs]"""
    text: Tensor
    """[batch, outputs], from the last valid text token. Without fusion tokens it has seen audio and vision."""
    av: Tensor
    """[batch, outputs], from the mean audiovisual frame."""
    fusion: Tensor | None
    """[batch, n, outputs], from every fusion token; None without any."""
    text_states: Tensor
    """[tokens, d], the LM's normed last states of all valid text tokens, utterance after utterance."""
    text_mask: Tensor
    """[batch, seq], boolean: where those tokens are."""
    text_rows: Tensor
    """[tokens], the same as positions in [batch · seq]."""
    states: dict[str, Tensor]
    """[batch, width] by head, what it reads: last text token, mean frame, mean fusion token if there are any; of
    ``task`` the hidden layer."""
    lm_logits: Tensor | None = None
    """[batch, seq + n, vocab], on request."""


@dataclass(frozen=True)
class TextPrefix:
    """The packed text of a batch after the first fused LM layer, and what that layer and those below left behind."""

    states: Tensor
    """[rows, d]"""
    keys_and_values: list[KeysAndValues]
    """One pair for each layer up to the first fused one."""

    def to(self, device: torch.device) -> "TextPrefix":
        """The same prefix on a device."""
        pairs = [(to_device(keys, device), to_device(values, device)) for keys, values in self.keys_and_values]
        return TextPrefix(to_device(self.states, device), pairs)


class DeepMLF(nn.Module):
    """Deep multimodal fusion into a frozen decoder LM (arXiv:2504.11082).

    Holds trained weights only: the language model is shared, not registered, and is not part of the state dict.
    MM blocks outside ``active_layers`` (ascending, all ``fusion_layers`` at first) are skipped.

    >>> model = DeepMLF.from_pretrained("runs/model")
    >>> model.fusion_tokens.shape == (model.config.num_fusion_tokens, model.language_model.width)
    True
    >>> sorted(model.gates())[:2]  # open fractions, by layer
    ['gate/0/attention', 'gate/0/ffn']

    Args:
        language_model: The frozen decoder, already cut to the layers in use.
        audio_dim: Features per audio frame.
        vision_dim: Features per vision frame.
        config: Sizes of all parts.
        outputs: Of each head: 1 for a number, as the authors have it, or one for each class.

    Raises:
        ConfigError: If fused layers, heads or positions do not fit the language model.
    """

    def __init__(
        self, language_model: LanguageModel, audio_dim: int, vision_dim: int, config: ModelConfig, outputs: int = 1
    ) -> None:
        super().__init__()
        self.config, self.outputs = config, outputs
        self.language_model = language_model
        self.audio_dim, self.vision_dim = audio_dim, vision_dim
        width, n = language_model.width, config.num_fusion_tokens
        config.check_fits(language_model.num_layers, width)
        if language_model.positions is not None:
            config.check_positions(language_model.positions.count, language_model.positions.within)
        self.fusion_layers = config.resolve_fusion_layers(language_model.num_layers)
        self.active_layers = self.fusion_layers
        # First, so that with the same seed its initial weights do not depend on the fusion that is built after it.
        self.av_encoder = AudioVisualEncoder(audio_dim, vision_dim, config)
        self.av_head = nn.Linear(config.av_width, outputs)
        self.fusion_tokens = nn.Parameter(torch.randn(n, width) * 0.02, requires_grad=n > 0)
        self._fusion_mask = fusion_mask_of(config.group_sizes)
        modalities = ("audio", "vision") if config.fusion_groups == "separate" else ()
        # The encoder's own norm is of joint frames; these are no part of it, so that its stage is any trial's.
        self.modality_norms = nn.ModuleDict({name: nn.LayerNorm(config.av_width) for name in modalities})
        blocks = enumerate(self.fusion_layers)
        self.mm_blocks = nn.ModuleDict(
            {str(layer): MMBlock(language_model, layer, config, block) for block, layer in blocks}
        )
        self.text_augmentation = TextAugmentation(config)
        self.task_head = nn.Sequential(
            nn.Linear((2 if n else 1) * width + config.av_width, config.head_width),
            nn.BatchNorm1d(config.head_width),
            nn.ReLU(),
            nn.Linear(config.head_width, outputs),
        )
        self.text_head = nn.Linear(width, outputs)
        self.fusion_head = nn.Linear(width, outputs) if n else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        audio: Tensor,
        vision: Tensor,
        *,
        text_lengths: Tensor | None = None,
        audio_lengths: Tensor | None = None,
        vision_lengths: Tensor | None = None,
        lm_logits: bool = False,
        plain: bool = False,
        prefix: TextPrefix | None = None,
    ) -> DeepMLFOutput:
        """Predict a batch; the same utterance gives the same outputs in any batch and under any padding.

        Args:
            input_ids: [batch, seq], right-padded, seq ≤ ``max_text_len``. An utterance without any valid token is
                read as one pad token.
            attention_mask: [batch, seq], 1 on valid tokens.
            audio: [batch, time, audio_dim], zero beyond each length.
            vision: [batch, time, vision_dim].
            text_lengths: [batch], valid tokens, on the host; None counts them, for which the host waits.
            audio_lengths: [batch]; None takes all frames as real, as the authors' code does.
            vision_lengths: [batch].
            lm_logits: Also compute next-token logits at every position, pads included; implies `plain`.
            plain: Run every layer over the padded sequence, as the equations are written: slower, the same numbers
                within rounding.
            prefix: What `text_prefix` returned for this text, if it is known; not with `plain`.

        Raises:
            ValueError: If the text is longer than ``max_text_len``.
        """
        if input_ids.shape[1] > self.config.max_text_len:
            raise ValueError(
                f"input_ids: must have at most max_text_len={self.config.max_text_len} tokens, but got "
                f"{input_ids.shape[1]}"
            )
        text_mask = with_a_token(attention_mask)
        av = self._encode(audio, vision, audio_lengths, vision_lengths)
        if not (plain or lm_logits):
            packing = self._packing(text_mask, text_lengths)
            if prefix is None:
                embedded = self.text_augmentation(self.language_model.embed(input_ids), text_mask)
                prefix = self._prefix(embedded, packing)
            text, fusion = self._decode_packed(prefix, packing, av)
            return self._heads(text, fusion, text[packing.last_rows], av, text_mask, packing.text_rows)
        embedded = self.text_augmentation(self.language_model.embed(input_ids), text_mask)
        text, fusion = self._decode_padded(embedded, text_mask, av)
        logits = self.language_model.logits(torch.cat([text, fusion], dim=1)) if lm_logits else None
        last = text[torch.arange(len(text), device=text.device), text_mask.sum(1) - 1]
        rows = text_mask.flatten().nonzero()[:, 0]
        return self._heads(text.flatten(0, 1)[rows], fusion, last, av, text_mask, rows, logits)

    def _encode(
        self, audio: Tensor, vision: Tensor, audio_lengths: Tensor | None, vision_lengths: Tensor | None
    ) -> AudioVisualStates:
        """The joint frames, and with groups of fusion tokens those of each modality."""
        av: AudioVisualStates = self.av_encoder(audio, vision, audio_lengths, vision_lengths)
        if av.audio is None or av.vision is None or not self.modality_norms:
            return av
        norms = self.modality_norms
        return replace(av, audio=av.audio.normed(norms["audio"]), vision=av.vision.normed(norms["vision"]))

    def _decode_padded(self, text: Tensor, text_mask: Tensor, av: AudioVisualStates) -> tuple[Tensor, Tensor]:
        """Embedded text [batch, seq, d] to normed last states of text and fusion tokens [batch, n, d]."""
        lm, seq = self.language_model, text.shape[1]
        positions = torch.cat([torch.arange(seq, device=text.device), self._fusion_positions(text.device)])
        hidden = torch.cat([text, self._fusion_rows(text)], dim=1)
        hidden, rotary = lm.add_positions(hidden, positions)
        attend = MaskedAttention(attention_mask_of(text_mask, self.config.num_fusion_tokens, self._fusion_mask))
        for index in range(lm.num_layers):
            hidden = lm.layer(index, hidden, attend, rotary)
            if index in self.active_layers:
                block = self._block(index)
                if not self.config.num_fusion_tokens:
                    hidden = block.feed_forward(block.cross_attend(hidden, av))
                    continue
                text, fusion = block(hidden[:, :seq].flatten(0, 1), hidden[:, seq:], av)
                hidden = torch.cat([text.unflatten(0, (-1, seq)), fusion], dim=1)
        hidden = lm.final_norm(hidden)
        return hidden[:, :seq], hidden[:, seq:]

    def text_prefix(self, input_ids: Tensor, attention_mask: Tensor, text_lengths: Tensor | None = None) -> TextPrefix:
        """The text [batch, seq] up to the first MM block, not augmented: it never changes in training."""
        packing = self._packing(with_a_token(attention_mask), text_lengths)
        return self._prefix(self.language_model.embed(input_ids), packing)

    def _packing(self, text_mask: Tensor, text_lengths: Tensor | None) -> Packing:
        if text_lengths is None:
            text_lengths = text_mask.sum(1).cpu()
        seq, device = text_mask.shape[1], text_mask.device
        return Packing(
            text_lengths.clamp(min=1), seq, self.config.num_fusion_tokens, device, fusion_mask=self._fusion_mask
        )

    @torch.no_grad()
    def _prefix(self, embedded: Tensor, packing: Packing) -> TextPrefix:
        lm = self.language_model
        rows = embedded.flatten(0, 1).index_select(0, packing.text_rows)
        hidden, rotary = lm.add_positions(rows[None], packing.positions)
        kept: list[KeysAndValues] = []
        for index in range(self.active_layers[0] + 1):
            hidden = lm.layer(index, hidden, packing.attend_text(kept), rotary)
        return TextPrefix(hidden[0], kept)

    def _decode_packed(self, prefix: TextPrefix, packing: Packing, av: AudioVisualStates) -> tuple[Tensor, Tensor]:
        """Text from its prefix on to normed last states of text [rows, d] and fusion tokens [batch, n, d].

        Up to the first MM block text depends on nothing trained: it ran alone, without gradients, and the fusion
        tokens attend to the keys and values that it left behind.
        """
        lm, first, text = self.language_model, self.active_layers[0], prefix.states
        if not self.config.num_fusion_tokens:
            return self._decode_text(text, packing, av), self._fusion_rows(text, 0)
        positions = self._fusion_positions(text.device)
        fusion, rotary = lm.add_positions(self._fusion_rows(text, len(packing.last_rows)), positions)
        for index in range(first + 1):
            fusion = lm.layer(index, fusion, packing.attend_fusion(prefix.keys_and_values[index]), rotary)
        text, fusion = self._block(first)(text, fusion, av)
        rotary = lm.rotary(text, torch.cat([packing.positions, positions.repeat(len(fusion))]))
        for index in range(first + 1, lm.num_layers):
            hidden = lm.layer(index, torch.cat([text, fusion.flatten(0, 1)])[None], packing.attend_jointly, rotary)
            text, fusion = hidden[0, : len(text)], hidden[0, len(text) :].view_as(fusion)
            if index in self.active_layers:
                text, fusion = self._block(index)(text, fusion, av)
        return lm.final_norm(text), lm.final_norm(fusion)

    def _decode_text(self, text: Tensor, packing: Packing, av: AudioVisualStates) -> Tensor:
        """The same without fusion tokens: text from its prefix on to normed last states [rows, d]."""
        lm, first = self.language_model, self.active_layers[0]
        rotary = lm.rotary(text, packing.positions)
        for index in range(first, lm.num_layers):
            if index > first:
                text = lm.layer(index, text[None], packing.attend_jointly, rotary)[0]
            if index in self.active_layers:
                block = self._block(index)
                # What cross-attention makes of the padding is dropped before anything reads it.
                text = block.feed_forward(packing.fold_text(block.cross_attend(packing.unfold_text(text), av)))
        return lm.final_norm(text)

    def _block(self, layer: int) -> MMBlock:
        block: MMBlock = self.mm_blocks[str(layer)]  # type: ignore[assignment]
        return block

    def _fusion_rows(self, text: Tensor, batch: int | None = None) -> Tensor:
        return self.fusion_tokens.to(text.dtype).expand(len(text) if batch is None else batch, -1, -1)

    def _fusion_positions(self, device: torch.device) -> Tensor:
        start = self.config.max_text_len
        return torch.arange(start, start + self.config.num_fusion_tokens, device=device)

    def _heads(
        self,
        text: Tensor,
        fusion: Tensor,
        last: Tensor,
        av: AudioVisualStates,
        text_mask: Tensor,
        text_rows: Tensor,
        logits: Tensor | None = None,
    ) -> DeepMLFOutput:
        states = {"text": last, "av": av.mean()}
        if self.fusion_head is not None:
            states = {"fusion": fusion.mean(1)} | states
        read = [state.to(last.dtype) for state in states.values()]
        states["task"] = self.task_head[:-1](torch.cat(read, dim=1))
        return DeepMLFOutput(
            task=self.task_head[-1](states["task"]),
            text=self.text_head(last),
            av=self.av_head(states["av"]),
            fusion=None if self.fusion_head is None else self.fusion_head(fusion),
            text_states=text,
            text_mask=text_mask,
            text_rows=text_rows,
            states=states,
            lm_logits=logits,
        )

    def predict_av(
        self,
        audio: Tensor,
        vision: Tensor,
        audio_lengths: Tensor | None = None,
        vision_lengths: Tensor | None = None,
        *,
        last_frame: bool = False,
    ) -> Tensor:
        """The audiovisual head alone, [batch, outputs]; the language model does not run (first curriculum stage).

        It reads the mean over frames as in `forward`, or the last one.
        """
        states = self.av_encoder(audio, vision, audio_lengths, vision_lengths)
        prediction: Tensor = self.av_head(states.last() if last_frame else states.mean())
        return prediction

    def gates(self) -> dict[str, float]:
        """What each active MM block's gates multiply by, by fused layer: ``{"gate/9/attention": 0.5, ...}``.

        The open fraction of a sigmoid, -1 to 1 of a tanh; nothing under ``model.gate="none"``.
        """
        return {
            f"gate/{layer}/{name}": value
            for layer in self.active_layers
            for name, value in self._block(layer).gates().items()
        }

    def save_pretrained(self, out: str | Path, *, trained_on: TrainedOn | None = None, card: str | None = None) -> None:
        """Write what is trained into a folder that `from_pretrained` reads, without the language model.

        Args:
            out: A folder that is empty or missing.
            trained_on: Data of the training, so that the folder can be asked to predict a dataset.
            card: Text of ``README.md``; None writes none.

        Raises:
            CheckpointError: If `out` holds something or cannot be written.
            LanguageModelError: If ``model.language_model``, whose tokenizer is copied, is not on this machine.
        """
        write_pretrained(Path(out), self.pretrained_config(trained_on), trained_state(self), card)

    def pretrained_config(self, trained_on: TrainedOn | None = None) -> PretrainedConfig:
        """What ``config.json`` of a folder holds that `from_pretrained` reads."""
        return PretrainedConfig(
            audio_dim=self.audio_dim,
            vision_dim=self.vision_dim,
            outputs=self.outputs,
            active_layers=self.active_layers,
            language_model=LanguageModelRecord.of(self.language_model),
            model=self.config,
            trained_on=trained_on,
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        language_model: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "DeepMLF":
        """Load what `save_pretrained` or ``deepmlf export`` wrote; asks no network.

        Args:
            folder: The exported folder.
            language_model: Another copy of the language model: a name of ``deepmlf lm get`` or a folder.
            device: A torch device.
            dtype: Type of the frozen weights; with ``torch.bfloat16`` the model must be called under autocast.

        Returns:
            The model in eval mode.

        Raises:
            CheckpointError: If the folder is damaged, of another kind of model, or of a newer format.
            LanguageModelError: If the language model is not on this machine or not the one of the training.
        """
        folder = Path(folder)
        config = read_config(folder)
        if language_model is not None:
            model_config = config.model.model_copy(update={"language_model": language_model})
            config = config.model_copy(update={"model": model_config})
        frozen = language_model_of(config, str(device), dtype)
        with torch.random.fork_rng(devices=[]):  # initial weights, all of which are replaced
            model = cls(frozen, config.audio_dim, config.vision_dim, config.model, config.outputs)
        model.load_state_dict(read_weights(folder, trained_state(model)), strict=False)
        model.active_layers = config.active_layers
        return model.to(device).eval()
