"""What is decayed, what learns how fast, and how the learning rate goes up and down."""

from pathlib import Path

import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.training.curriculum import stages_of
from deepmlf.training.forward import build_model
from deepmlf.training.optim import (
    clipped_parameters,
    learning_rate,
    make_optimizer,
    schedule_of,
    trained_parameters,
)
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


def test_decay_may_reach_gates_and_norms_and_clipping_may_spare_the_audiovisual_encoder(small_data: Path) -> None:
    config = config_of(
        small_data, training__weight_decay=0.3, training__decayed="all_but_biases", training__clip_av=False,
        model__av_batch_norm="both", model__ffn="full",
    )  # fmt: skip
    model, _, _ = build_model(config, Dataset.open(small_data))
    parameters = trained_parameters(model)
    groups = make_optimizer(parameters, config.training).param_groups
    decayed = {id(member) for group in groups if group["weight_decay"] == 0.3 for member in group["params"]}
    spared = {name for name, parameter in parameters.items() if id(parameter) not in decayed}
    assert spared == {name for name in parameters if name.endswith("bias")}
    assert {"task_head.0.bias", "av_encoder.audio.layers.0.self_attn.in_proj_bias"} <= spared
    assert {"mm_blocks.3.attention_gate", "mm_blocks.3.ffn_gate", "av_encoder.norm.weight", "task_head.1.weight"} <= (
        parameters.keys() - spared
    )
    clipped = {id(parameter) for parameter in clipped_parameters(parameters, config.training)}
    unclipped = {name for name, parameter in parameters.items() if id(parameter) not in clipped}
    assert unclipped == {name for name in parameters if name.startswith("av_encoder.")}
    whole = config_of(small_data).training
    assert len(clipped_parameters(parameters, whole)) == len(parameters)


def test_the_cosine_may_span_other_epochs_than_the_trial_has(small_data: Path) -> None:
    settings = {"training__epochs": 4, "training__lr_fusion": 1.0, "training__warmup_epochs": 0.0}

    def rates(**more: object) -> list[float]:
        config = config_of(small_data, **settings, **more)
        schedule = schedule_of(config, stages_of(config)[-1], 10, [])
        return [schedule(step)["fusion"] for step in range(41)]

    bound, longer = rates(), rates(training__cosine_epochs=8)
    assert bound[20] == pytest.approx(0.5, abs=1e-6)
    assert bound[40] == pytest.approx(1e-7)
    assert longer[40] == pytest.approx(0.5, abs=1e-6)
    shorter = rates(training__cosine_epochs=2)
    assert shorter[10] == pytest.approx(0.5, abs=1e-6)
    assert shorter[20:] == pytest.approx([1e-7] * 21)
    # The stage of the audiovisual encoder has its own epochs.
    config = config_of(small_data, training__cosine_epochs=8, training__min_lr=0.0)
    av = stages_of(config)[0]
    assert schedule_of(config, av, 10, [])(av.epochs * 10)["av"] == pytest.approx(0.0)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (5, 10), (20, 20)])
def test_the_warm_up_is_at_most_a_fifth_of_a_stage(small_data: Path, epochs: int, steps: int) -> None:
    settings = {"curriculum__name": "joint", "training__warmup_epochs": 2.0, "training__epochs": epochs}
    config = config_of(small_data, **settings)
    schedule = schedule_of(config, stages_of(config)[-1], 10, [])
    rates = [schedule(step)["fusion"] / config.training.lr_fusion for step in range(10 * epochs)]
    assert rates[:steps] == pytest.approx([(step + 1) / steps for step in range(steps)])
    assert all(later <= earlier for earlier, later in zip(rates[steps - 1 :], rates[steps:], strict=False))
