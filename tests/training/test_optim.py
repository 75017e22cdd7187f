"""What is decayed, what learns how fast, and how the learning rate goes up and down."""

from pathlib import Path

import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.training.forward import build_model
from deepmlf.training.optim import learning_rate, make_optimizer, trained_parameters
from tests.training.small_trial import config_of


def test_the_rate_climbs_to_its_peak_and_falls_to_its_floor() -> None:
    rates = [learning_rate(1.0, step, 14, 4, 0.1) for step in range(15)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[9] == pytest.approx((1.0 + 0.1) / 2)  # half-way down the cosine
    assert rates[14] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in zip(rates[4:], rates[5:], strict=False))
    assert learning_rate(1.0, 99, 14, 4, 0.1) == pytest.approx(0.1)
    assert learning_rate(0.01, 14, 14, 0, 0.1) == pytest.approx(0.01)  # a floor above the peak lifts nothing


def test_matrices_decay_and_the_audiovisual_part_has_its_own_rate(small_data: Path) -> None:
    config = config_of(small_data, training__weight_decay=0.3, training__lr_av=0.02, training__lr_fusion=0.005)
    model, _, _ = build_model(config, Dataset.open(small_data))
    parameters = trained_parameters(model)
    groups = make_optimizer(parameters, config.training).param_groups
    of = {id(member): group for group in groups for member in group["params"]}
    assert set(of) == {id(parameter) for parameter in parameters.values()}
    for name, parameter in parameters.items():
        group = of[id(parameter)]
        assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0), name
        assert group["lr"] == (0.02 if name.startswith(("av_encoder.", "av_head.")) else 0.005), name
    undecayed = {name for name, parameter in parameters.items() if of[id(parameter)]["weight_decay"] == 0}
    assert {"task_head.0.bias", "mm_blocks.3.attention_gate"} <= undecayed
