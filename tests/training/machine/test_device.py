"""Which device is picked, what is said of one that cannot be used, and that a trial on the CPU opens no GPU.

A GPU's driver is a fake: what torch would raise is raised where torch computes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deepmlf.errors import ConfigError
from deepmlf.model.language_model import load_language_model, tiny_random
from deepmlf.training.machine import device
from deepmlf.training.machine.device import device_line, fault_of, pick_device, slow_precision
from tests.training.small_trial import run

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."


def fake_driver(monkeypatch: pytest.MonkeyPatch, fault: str | None) -> None:
    """A driver that refuses CUDA with its reason, or, without one, lets torch compute."""
    zeros: Callable[..., torch.Tensor] = torch.zeros

    def fake(*size: Any, device: Any = None, **options: Any) -> torch.Tensor:
        if not str(device).startswith("cuda"):
            return zeros(*size, device=device, **options)
        if fault is not None:
            raise RuntimeError(f"{fault}\nMore of it on lines of its own.")
        return zeros(*size, **options)

    monkeypatch.setattr(torch, "zeros", fake)


def test_auto_takes_a_gpu_that_torch_can_use_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_driver(monkeypatch, None)
    assert pick_device("auto") == torch.device("cuda")
    fake_driver(monkeypatch, TOO_OLD)
    assert pick_device("auto") == torch.device("cpu")


def test_a_device_that_cannot_be_used_is_refused_with_the_drivers_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_driver(monkeypatch, TOO_OLD)
    with pytest.raises(ConfigError) as refused:
        pick_device("cuda")
    assert str(refused.value) == f"training.device=cuda: cannot be used here ({TOO_OLD})"
    with pytest.raises(ConfigError, match=r"^--device cuda:1: cannot be used here \(The NVIDIA driver"):
        pick_device("cuda:1", "--device cuda:1")
    with pytest.raises(ConfigError, match=r"--device gpu: cannot be used here \(.+\)"):
        pick_device("gpu", "--device gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test is without")
def test_a_torch_or_machine_without_cuda_says_why() -> None:
    assert "CUDA" in str(fault_of("cuda")) or "NVIDIA" in str(fault_of("cuda"))
    assert fault_of("cpu") is None


def test_a_card_that_auto_leaves_unused_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_driver(monkeypatch, TOO_OLD)
    monkeypatch.setattr(device, "_DEVICES", tmp_path)
    cpu = torch.device("cpu")
    assert device_line(cpu, "auto") == "cpu"
    (tmp_path / "nvidia0").write_text("")
    assert device_line(cpu, "auto") == f"cpu, as torch cannot use this machine's GPU ({TOO_OLD})"
    assert device_line(cpu, "cpu") == "cpu"


def test_a_trial_on_the_cpu_does_not_open_a_gpu_that_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_data: Path
) -> None:
    """A fake GPU, whose first use raises."""

    def opened(*args: Any, **options: Any) -> None:
        raise AssertionError("the GPU was opened")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", opened)
    monkeypatch.setattr(torch.cuda, "get_rng_state", opened)
    monkeypatch.setattr(torch.cuda, "set_rng_state", opened)
    load_language_model.cache_clear()
    settings = {"training__device": "cpu", "training__epochs": 1, "curriculum__name": "joint"}
    reports = run(tmp_path / "trial", small_data, **settings)
    assert reports[-1]["finished"] == "full"
    checkpoint = tmp_path / "trial" / "checkpoints" / "epoch_000001"
    assert run(tmp_path / "trial", small_data, resume_from=checkpoint, **settings)[0]["epoch"] == 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_tiny_random_language_model_has_the_type_and_the_device_asked_for(family: Any) -> None:
    whole, half = tiny_random(family), tiny_random(family, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.embedding.weight, whole.embedding.weight.bfloat16())
    for layer, rounded in zip(whole.layers, half.layers, strict=True):
        for name, parameter in layer.named_parameters():
            assert torch.equal(rounded.get_parameter(name), parameter.bfloat16()), name
    if family == "llama":
        assert torch.equal(*(lm.decoder.module.rotary_emb.inv_freq for lm in (whole, half)))
    assert tiny_random(family, device="meta").device == torch.device("meta")
    assert load_language_model("tiny-random", "meta", torch.bfloat16).device == torch.device("meta")


def test_a_trial_in_bfloat16_trains_on_the_tiny_random_language_model(tmp_path: Path, small_data: Path) -> None:
    settings = {"training__precision": "bfloat16", "training__epochs": 1, "curriculum__name": "joint"}
    assert run(tmp_path / "trial", small_data, **settings)[-1]["finished"] == "full"


def test_bfloat16_on_a_cpu_without_its_instructions_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "_CPU_INFO", facts)
    assert slow_precision("bfloat16", "cpu") is None  # nobody can tell
    facts.write_text("model name\t: AMD EPYC\nflags\t\t: fpu sse avx2 fma\n")
    told = slow_precision("bfloat16", "cpu")
    assert told is not None
    assert told.startswith("this CPU has no instructions for bfloat16")
    assert told.endswith("--set training.precision=float32")
    assert slow_precision("float32", "cpu") is None
    assert slow_precision("bfloat16", "cuda") is None
    facts.write_text("flags\t\t: fpu avx512f avx512_bf16\n")
    assert slow_precision("bfloat16", "cpu") is None
    facts.write_text("Features\t: fp asimd bf16\n")
    assert slow_precision("bfloat16", "cpu") is None
