"""Models on the tiny random language models of both families, and batches for them."""

import torch

from deepmlf.config.model import ModelConfig
from deepmlf.model.deepmlf import DeepMLF, DeepMLFOutput
from deepmlf.model.language_model import Family, tiny_random

FAMILIES: list[Family] = ["gpt2", "llama"]


def make_model(family: Family = "llama", **settings: object) -> DeepMLF:
    """A model of four layers, two of which are fused, for features of 5 and 7."""
    torch.manual_seed(0)
    defaults: dict[str, object] = {"fusion_layers": (1, 3), "max_text_len": 20, "av_frames": 8, "lora_rank": 4}
    config = ModelConfig.model_validate(defaults | settings)
    return DeepMLF(tiny_random(family), 5, 7, config)


def make_batch(
    lengths: list[int], frames: list[int], pad_text: int = 0, pad_frames: int = 0
) -> dict[str, torch.Tensor]:
    """Random utterances of these many tokens and frames, padded by so many more."""
    generator = torch.Generator().manual_seed(1)
    seq, time = max(lengths) + pad_text, max(1, max(frames)) + pad_frames
    ids, mask = torch.zeros(len(lengths), seq, dtype=torch.long), torch.zeros(len(lengths), seq, dtype=torch.long)
    audio, vision = torch.zeros(len(lengths), time, 5), torch.zeros(len(lengths), time, 7)
    for row, (length, count) in enumerate(zip(lengths, frames, strict=True)):
        ids[row, :length] = torch.randint(0, 255, (length,), generator=generator)
        mask[row, :length] = 1
        audio[row, :count] = torch.randn(count, 5, generator=generator)
        vision[row, :count] = torch.randn(count, 7, generator=generator)
    counts = torch.tensor(frames)
    return {
        "input_ids": ids, "attention_mask": mask, "audio": audio, "vision": vision,
        "audio_lengths": counts, "vision_lengths": counts,
    }  # fmt: skip


def close_gates(model: DeepMLF) -> None:
    """Shut every MM block, so that the language model is left."""
    for name, parameter in model.named_parameters():
        if name.endswith(("attention_gate", "ffn_gate")):
            parameter.data.fill_(float("-inf"))


def assert_same(first: DeepMLFOutput, second: DeepMLFOutput, row: slice = slice(None)) -> None:
    """Hold every head's outputs, or those of some utterances, against another pass's."""
    for name in ("task", "text", "av", "fusion"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one[row], other, atol=2e-6, rtol=1e-5)
