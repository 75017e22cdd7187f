"""What is trained is float32, whatever the language model's type: in bfloat16 small steps are rounded away."""

from pathlib import Path

import pytest
import torch

from deepmlf.config.model import ModelConfig
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import Family, tiny_random
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.checkpoints.save import load_checkpoint
from deepmlf.training.optim import trained_parameters
from deepmlf.training.trainer import Trainer
from tests.sealed import edit
from tests.training.small_trial import config_of, run

SETTINGS = {
    "model__ffn": "full", "training__precision": "bfloat16", "curriculum__name": "joint", "training__lr_fusion": 1e-4,
}  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("ffn", ["full", "lora"])
def test_every_trained_weight_is_float32(family: Family, ffn: str) -> None:
    lm = tiny_random(family)
    lm.decoder.module.bfloat16()
    model = DeepMLF(lm, 5, 7, ModelConfig.model_validate({"ffn": ffn, "lora_rank": 2, "fusion_layers": (1, 3)}))
    assert {parameter.dtype for parameter in trained_parameters(model).values()} == {torch.float32}
    frozen = {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad}
    assert frozen == ({torch.bfloat16} if ffn == "lora" else set())  # those share the language model's memory


def test_an_ffn_trained_in_bfloat16_moves(tmp_path: Path, small_data: Path) -> None:
    trial = Trainer(config_of(small_data, **SETTINGS), tmp_path)
    before = {name: p.detach().clone() for name, p in trial.parameters.items() if ".ffn." in name}
    trial.run(lambda metrics, checkpoint: None, None)
    for name, old in before.items():
        moved = (trial.parameters[name].detach() != old).double().mean()
        assert moved > 0.99, name


def test_moments_of_an_earlier_release_are_taken_over(tmp_path: Path, small_data: Path) -> None:
    """Those of an FFN in bfloat16 were bfloat16."""
    from safetensors.torch import load_file, save_file

    run(tmp_path, small_data, stop_after=1, **SETTINGS)
    folder = latest_checkpoint(tmp_path)
    assert folder is not None
    for part in ("model", "optimizer"):
        tensors = load_file(folder / f"{part}.safetensors")
        old = {k: t.bfloat16() if ".ffn." in k and not k.endswith(".step") else t for k, t in tensors.items()}
        save_file(old, folder / f"{part}.safetensors")
    edit(folder / "state.json", sums={})  # of those releases, none is known
    trial = Trainer(config_of(small_data, **SETTINGS), tmp_path)
    load_checkpoint(folder, trial.model, trial.parameters, trial.optimizer)
    states = [value for state in trial.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in states} == {torch.float32}
    assert [report["epoch"] for report in run(tmp_path, small_data, resume_from=folder, **SETTINGS)] == [1, 2, 3]
