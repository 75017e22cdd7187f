"""DeepMLF, assembled: frozen LM, fusion tokens, MM blocks, audiovisual encoder, heads."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from deepmlf.config.model import ModelConfig
from deepmlf.errors import ConfigError
from deepmlf.model.augmentation import TextAugmentation
from deepmlf.model.av_encoder import AudioVisualEncoder, AudioVisualStates
from deepmlf.model.decode import Blocks, TextPrefix, decode_packed, decode_padded, decode_sequences, text_prefix
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.attention import fusion_mask_of, with_a_token
from deepmlf.model.lm.packing import Packing
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
        self._fusion_mask = fusion_mask_of(config.group_sizes)
        if self._fusion_mask is not None and not language_model.packs:
            raise ConfigError(
                "model.fusion_groups='separate': this language model attends by its own code, in which each token sees "
                "all before it; leave it at 'shared'"
            )
        self.fusion_layers = config.resolve_fusion_layers(language_model.num_layers)
        self.active_layers = self.fusion_layers
        # First, so that with the same seed its initial weights do not depend on the fusion that is built after it.
        self.av_encoder = AudioVisualEncoder(audio_dim, vision_dim, config)
        self.av_head = nn.Linear(config.av_width, outputs)
        self.fusion_tokens = nn.Parameter(torch.randn(n, width) * 0.02, requires_grad=n > 0)
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
        lm, blocks, tokens = self.language_model, self._blocks(), self.fusion_tokens
        packing = None if plain or lm_logits else self._packing(text_mask, text_lengths)
        if packing is not None and prefix is not None:
            text, fusion = decode_packed(lm, blocks, tokens, prefix, packing, av)
            return self._heads(text, fusion, text[packing.last_rows], av, text_mask, packing.text_rows)
        embedded = self.text_augmentation(lm.embed(input_ids), text_mask)
        if packing is None:
            text, fusion = self._decode_padded(embedded, text_mask, av)
            logits = lm.logits(torch.cat([text, fusion], dim=1)) if lm_logits else None
            last = text[torch.arange(len(text), device=text.device), text_mask.sum(1) - 1]
            rows = text_mask.flatten().nonzero()[:, 0]
            return self._heads(text.flatten(0, 1)[rows], fusion, last, av, text_mask, rows, logits)
        if lm.packs:
            prefix = text_prefix(lm, self.active_layers[0], embedded, packing)
            text, fusion = decode_packed(lm, blocks, tokens, prefix, packing, av)
        else:
            text, fusion = decode_sequences(lm, blocks, tokens, embedded, packing, av)
        return self._heads(text, fusion, text[packing.last_rows], av, text_mask, packing.text_rows)

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
        """Embedded text [batch, seq, d] to normed last states of text, padded, and fusion tokens [batch, n, d]."""
        lm, blocks, tokens = self.language_model, self._blocks(), self.fusion_tokens
        if not lm.packs:
            packing = self._packing(text_mask, None)
            rows, fusion = decode_sequences(lm, blocks, tokens, text, packing, av)
            return torch.zeros_like(text).flatten(0, 1).index_copy(0, packing.text_rows, rows).view_as(text), fusion
        start = self.config.max_text_len
        return decode_padded(lm, blocks, tokens, text, text_mask, av, fusion_start=start, fusion_mask=self._fusion_mask)

    def text_prefix(self, input_ids: Tensor, attention_mask: Tensor, text_lengths: Tensor | None = None) -> TextPrefix:
        """The text [batch, seq] up to the first MM block, not augmented: it never changes in training.

        Of a language model that packs (`LanguageModel.packs`).
        """
        packing = self._packing(with_a_token(attention_mask), text_lengths)
        return text_prefix(self.language_model, self.active_layers[0], self.language_model.embed(input_ids), packing)

    def _packing(self, text_mask: Tensor, text_lengths: Tensor | None) -> Packing:
        if text_lengths is None:
            text_lengths = text_mask.sum(1).cpu()
        return Packing(
            text_lengths.clamp(min=1),
            text_mask.shape[1],
            self.config.num_fusion_tokens,
            text_mask.device,
            fusion_start=self.config.max_text_len,
            fusion_mask=self._fusion_mask,
        )

    def _blocks(self) -> Blocks:
        return {layer: self._block(layer) for layer in self.active_layers}

    def _block(self, layer: int) -> MMBlock:
        block: MMBlock = self.mm_blocks[str(layer)]  # type: ignore[assignment]
        return block

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
        model.load_state_dict(read_weights(folder, trained_state(model), config.weights_sum), strict=False)
        model.active_layers = config.active_layers
        return model.to(device).eval()
