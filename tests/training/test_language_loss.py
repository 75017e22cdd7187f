"""What fusion leaves of the language model's own distribution: the next-token loss on validation texts."""

from pathlib import Path

import pytest
import torch

from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.training.effective import effective_setting
from deepmlf.training.forward import build_model, language_loss
from tests.training.small_trial import config_of, run, without_times


def test_it_is_that_of_all_tokens_and_without_blocks_that_of_the_language_model(small_data: Path) -> None:
    config = config_of(small_data)
    dataset = Dataset.open(small_data)
    model, tokens_of, pad = build_model(config, dataset)
    for block in model.mm_blocks.values():
        for parameter in block.parameters():
            parameter.data.mul_(4.0)  # at first they change next to nothing
    loader = Loader(dataset, "valid", tokens_of, pad, 7, standardize=True)
    found = language_loss(model, loader, "float32", pad)
    frozen = language_loss(model, loader, "float32", pad, frozen=True)
    assert model.training
    assert model.active_layers == model.fusion_layers

    total, count = 0.0, 0
    alone = 0.0
    lm, most = model.language_model, config.model.max_text_len
    model.eval()
    for tokens in loader.tokens:  # one text at a time, and every logit
        ids = torch.tensor(tokens)[None]
        targets = torch.cat([ids[0, 1:], torch.tensor([0 if ids.shape[1] == most else pad])])
        output = model(ids, torch.ones_like(ids), torch.zeros(1, 1, 5), torch.zeros(1, 1, 8), lm_logits=True)
        assert output.lm_logits is not None
        total += torch.nn.functional.cross_entropy(output.lm_logits[0, : ids.shape[1]], targets, reduction="sum").item()
        model.active_layers = ()
        output = model(ids, torch.ones_like(ids), torch.zeros(1, 1, 5), torch.zeros(1, 1, 8), lm_logits=True)
        assert output.lm_logits is not None
        alone += torch.nn.functional.cross_entropy(output.lm_logits[0, : ids.shape[1]], targets, reduction="sum").item()
        model.active_layers = model.fusion_layers
        count += ids.shape[1]
    assert found == pytest.approx(total / count, rel=1e-5)  # text sees no audio and no vision
    assert frozen == pytest.approx(alone / count, rel=1e-5)
    assert abs(found - frozen) > 1e-3
    for block in model.mm_blocks.values():
        block.ffn_gate.data.fill_(-torch.inf)
    assert language_loss(model, loader, "float32", pad) == pytest.approx(frozen, rel=1e-6)
    assert lm.num_layers == 4


def test_a_trial_reports_both_and_trains_the_same(small_data: Path, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", small_data)
    asked = run(tmp_path / "asked", small_data, training__language_loss=True)
    names = {"language/loss", "language/frozen_loss"}
    assert not names & set(plain[-1])
    fusion = [report for report in asked if "fusion_epoch" in report]
    assert all(names <= set(report) for report in fusion)
    assert len({report["language/frozen_loss"] for report in fusion}) == 1
    assert len({report["language/loss"] for report in fusion}) == len(fusion)
    bare = [{name: value for name, value in report.items() if name not in names} for report in without_times(asked)]
    assert bare == without_times(plain)
    one, other = config_of(small_data), config_of(small_data, training__language_loss=True)
    assert effective_setting(one, 4) == effective_setting(other, 4)


def test_training_on_it_lowers_it(small_data: Path, tmp_path: Path) -> None:
    without, with_it = (
        run(tmp_path / str(weight), small_data, training__language_loss=True, training__loss_lm=weight)
        for weight in (0.0, 1.0)
    )
    assert with_it[-1]["language/loss"] < without[-1]["language/loss"]
