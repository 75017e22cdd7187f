"""Seconds of one training step, beside the rate of a matrix product measured in the same run; one JSON line.

The workload is that on which the authors' code was measured: 32 utterances of 21 tokens on average, 12 fusion tokens,
audio 500x74, vision 375x35, all losses with the language model's, AdamW; weights are random. Needs torch and
transformers alone. "step seconds x GEMM TFLOP/s" compares machines: the float32 product of two 2048x2048 matrices.
"""

import argparse
import json
import resource
import statistics
import time
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from deepmlf.config.model import ModelConfig
from deepmlf.config.trial import TrainingConfig
from deepmlf.data.batch import Batch
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import LanguageModel, dtype_of
from deepmlf.training.forward import run_model
from deepmlf.training.losses import LossWeights, compute_losses
from deepmlf.training.machine.memory import keep_freed_memory
from deepmlf.training.machine.speed import gemm_rate
from deepmlf.training.optim import make_optimizer, trained_parameters

AUDIO, VISION = (500, 74), (375, 35)
MEAN_TOKENS = 21
WEIGHTS = LossWeights(fusion=1.0, av=1.0, text=1.0, lm=1.0)
Precision = Literal["float32", "bfloat16"]
GEMM = {"size": 2048, "products": 7}
SMOLLM2 = {"vocab_size": 49152, "rope_theta": 100000.0, "tie_word_embeddings": True}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2-base": {"lm": GPT2Config(), "layers": (3, 5, 7, 8, 9, 10, 11), "ffn": "full"},
    "gpt2-large": {
        "lm": GPT2Config(n_layer=36, n_embd=1280, n_head=20),
        "layers": (7, 14, 21, 28, 35),
        "ffn": "full",
    },
    "smollm2-135m": {
        "lm": LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            **SMOLLM2,
        ),
        "layers": (11, 14, 17, 20, 23),
        "ffn": "lora",
    },
    "smollm2-1.7b": {
        "lm": LlamaConfig(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            num_key_value_heads=32,
            **SMOLLM2,
        ),
        "layers": (11, 14, 17, 20, 23),
        "ffn": "lora",
    },
}


def seconds(work: Any, device: torch.device) -> float:
    """Wall-clock seconds of one call, the device's queue included."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def make_batch(batch_size: int, vocabulary: int, device: torch.device) -> Batch:
    """Random inputs of the workload's shape."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(batch_size, generator=generator) + torch.rand(batch_size, generator=generator)
    lengths = (drawn * MEAN_TOKENS / drawn.mean()).round().long().clamp(1, 50)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return Batch(
        input_ids=torch.randint(0, vocabulary, mask.shape, generator=generator) * mask,
        attention_mask=mask.long(),
        audio=torch.randn(batch_size, *AUDIO, generator=generator),
        audio_lengths=torch.full((batch_size,), AUDIO[0]),
        vision=torch.randn(batch_size, *VISION, generator=generator),
        vision_lengths=torch.full((batch_size,), VISION[0]),
        targets=torch.randn(batch_size, 1, generator=generator),
        index=torch.arange(batch_size),
        text_lengths=lengths,
    ).to(device)


class Workload:
    """A model of random weights, its optimiser and one batch.

    Args:
        size: One of `SIZES`.
        precision: As ``training.precision``.
        device: Where it trains.
        batch_size: Utterances.
        drawn_on: Where the language model's weights are drawn, if not there.
        settings: Of the model, in place of those of the workload.
    """

    def __init__(
        self,
        size: str,
        precision: Precision,
        device: torch.device,
        batch_size: int,
        drawn_on: torch.device | None = None,
        **settings: Any,
    ) -> None:
        parts = SIZES[size]
        torch.manual_seed(0)
        with drawn_on or device:
            frozen = AutoModelForCausalLM.from_config(parts["lm"])
        frozen = frozen.to(device, dtype_of(precision))
        lm = LanguageModel(frozen)
        known: dict[str, Any] = {"fusion_layers": parts["layers"], "ffn": parts["ffn"], "num_fusion_tokens": 12}
        config = ModelConfig(**known | {"lora_rank": 64, "lora_alpha": 128.0} | settings)
        self.precision = precision
        self.model = DeepMLF(lm, AUDIO[1], VISION[1], config).to(device).train()
        self.parameters = trained_parameters(self.model)
        self.optimizer = make_optimizer(self.parameters, TrainingConfig())
        self.batch = make_batch(batch_size, lm.vocab_size, device)

    def backward(self) -> dict[str, Tensor]:
        """One forward and backward pass; its losses."""
        output = run_model(self.model, self.batch, self.precision)
        ids, labels = self.batch.input_ids, self.batch.targets
        losses = compute_losses(self.model, output, ids, labels, WEIGHTS, pad_token_id=0)
        losses["total"].backward()
        return losses

    def step(self) -> None:
        """One training step."""
        self.backward()
        self.update()

    def update(self) -> None:
        """The optimiser's part of a step."""
        torch.nn.utils.clip_grad_value_(self.parameters.values(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a step, and what else one wants to know of it."""
    device = torch.device(options.device)
    keep_freed_memory()
    step = Workload(options.size, options.dtype, device, options.batch_size).step
    for _ in range(options.warmup):
        step()
    rates, times = [gemm_rate(device, torch.float32, **GEMM)], []
    for _ in range(options.steps):
        times.append(seconds(step, device))
        rates.append(gemm_rate(device, torch.float32, **GEMM))
    median, rate = statistics.median(times), statistics.median(rates)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _peak_resident()
    return {
        "benchmark": "train_step",
        "size": options.size,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        "dtype": options.dtype,
        "step_seconds": round(median, 4),
        "step_seconds_best": round(min(times), 4),
        "utterances_per_second": round(options.batch_size / median, 2),
        "gemm_tflops_float32": round(rate, 3),
        "gemm_tflops_bfloat16": round(gemm_rate(device, torch.bfloat16, **GEMM), 3),
        "step_seconds_x_gemm_tflops": round(median * rate, 3),
        "peak_memory_gb": round(peak / 1e9, 2),
    }


def _peak_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="smollm2-135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
