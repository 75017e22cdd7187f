"""SoftPerm reorders some features in time, among valid frames; noise and dropout act on text; in training only."""

import math

import pytest
import torch

from deepmlf.config.model import ModelConfig
from deepmlf.model.augmentation import SoftPerm, TextAugmentation


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two utterances of 12 and 5 valid frames whose every value is its place in time; padding is -1."""
    values = torch.arange(12.0)[None, :, None].expand(2, 12, 400).clone()
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 5:] = False
    values[~mask] = -1
    return values, mask


def test_drawn_features_take_one_permutation_of_the_valid_frames() -> None:
    torch.manual_seed(0)
    values, mask = batch()
    changed = SoftPerm(0.25)(values, mask)
    assert torch.equal(changed[~mask], values[~mask])
    for row, frames in ((0, 12), (1, 5)):
        moved = (changed[row, :frames] != values[row, :frames]).any(0)
        assert 0.15 < moved.double().mean() < 0.35
        assert torch.equal(changed[row, :, ~moved], values[row, :, ~moved])
        columns = changed[row, :frames][:, moved]
        assert torch.equal(columns, columns[:, :1].expand_as(columns))  # the same permutation for every feature
        assert torch.equal(columns[:, 0].sort().values, values[row, :frames, 0])


def test_without_a_mask_padding_is_permuted_too_and_with_p_1_every_feature() -> None:
    torch.manual_seed(0)
    values, _ = batch()
    changed = SoftPerm(1.0)(values)
    assert (changed[1] != values[1]).any(0).all()
    assert torch.equal(changed.sort(1).values, values.sort(1).values)


def test_batches_are_augmented_as_often_as_asked_and_never_in_evaluation() -> None:
    torch.manual_seed(0)
    values, mask = batch()
    layer = SoftPerm(1.0, p_apply=0.3)
    share = sum(not torch.equal(layer(values, mask), values) for _ in range(200)) / 200
    assert 0.2 < share < 0.4
    assert torch.equal(layer.eval()(values, mask), values)
    assert not layer.is_active


def noisy(alpha: float = 5.0, dropout: float = 0.0) -> TextAugmentation:
    return TextAugmentation(ModelConfig(embedding_noise=alpha, embedding_dropout=dropout)).train()


def test_noise_is_uniform_within_alpha_over_the_root_of_a_texts_size() -> None:
    torch.manual_seed(0)
    values, mask = batch()
    moved = noisy()(values, mask) - values
    for row, length in enumerate((12, 5)):
        bound = 5.0 / math.sqrt(length * 400)
        found = moved[row, :length].flatten()
        assert found.abs().max() <= bound + 1e-6
        assert found.abs().max() > 0.99 * bound
        assert abs(found.mean()) < 0.1 * bound
        assert found.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_noise_does_not_depend_on_how_far_a_batch_is_padded() -> None:
    values, mask = torch.zeros(1, 4, 50), torch.ones(1, 4, dtype=torch.bool)
    wide, wide_mask = torch.zeros(1, 40, 50), torch.zeros(1, 40, dtype=torch.bool)
    wide_mask[:, :4] = True
    torch.manual_seed(0)
    bound = float(noisy()(values, mask).abs().max())
    torch.manual_seed(0)
    assert float(noisy()(wide, wide_mask)[:, :4].abs().max()) == pytest.approx(bound, rel=0.05)


def test_dropout_comes_last_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    values, mask = torch.ones(2, 12, 400), torch.ones(2, 12, dtype=torch.bool)
    augmented = noisy(alpha=5.0, dropout=0.25)(values, mask)
    assert float((augmented == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(augmented.mean()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("settings", [{"embedding_noise": 5.0}, {"embedding_dropout": 0.1}])
def test_augmentation_is_for_training_alone(settings: dict[str, float]) -> None:
    values, mask = batch()
    augmentation = TextAugmentation(ModelConfig.model_validate(settings)).train()
    assert augmentation.is_active
    assert not torch.equal(augmentation(values, mask), values)
    augmentation.eval()
    assert not augmentation.is_active
    assert augmentation(values, mask) is values
    nothing = TextAugmentation(ModelConfig()).train()
    state = torch.get_rng_state()
    assert not nothing.is_active
    assert nothing(values, mask) is values
    assert torch.equal(torch.get_rng_state(), state)  # what was drawn before these settings, is drawn now
