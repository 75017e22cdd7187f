"""Generated unimodal labels: the formulas by hand, a run of epochs against numpy, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepmlf.config.trial import TrainingConfig
from deepmlf.data.task import KNOWN, Task
from deepmlf.errors import ConfigError
from deepmlf.training.losses import prediction_loss
from deepmlf.training.ulgm.checks import check_ulgm
from deepmlf.training.ulgm.labels import HEADS, UnimodalLabels, relative_distance, shifted_labels, with_momentum
from deepmlf.tune.plan import plan_search
from tests.training.ulgm.planted import make_planted
from tests.tune.experiments import settings

CPU = torch.device("cpu")
ON = TrainingConfig(ulgm=True)
NAMES = ("task", *HEADS)


def test_a_label_moves_as_worked_out_by_hand() -> None:
    positive, negative = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    near = relative_distance(torch.tensor([[0.0, 0.0]]), positive, negative)
    torch.testing.assert_close(near, torch.tensor([1 / 3]))  # (4 - 3) / 3
    torch.testing.assert_close(relative_distance(positive[None], positive, negative), torch.tensor([5 / 1e-8]))
    # Label 2 where the modality is at -1/2 and the whole at 1: 2 · -1/2 / 2 + (2 - 1/2 - 1) / 2.
    moved = shifted_labels(torch.tensor([2.0]), torch.tensor([-0.5]), torch.tensor([1.0]), 3.0)
    torch.testing.assert_close(moved, torch.tensor([-0.25]))
    assert shifted_labels(torch.tensor([2.0]), torch.tensor([9.0]), torch.tensor([1.0]), 3.0) == 3.0
    assert with_momentum(torch.tensor(3.0), torch.tensor(0.0), 2) == 1.0  # a third of it
    # Epoch by epoch, the k-th label weighs k: (1·6 + 2·0 + 3·12) / 6.
    assert with_momentum(with_momentum(torch.tensor(6.0), torch.tensor(0.0), 2), torch.tensor(12.0), 3) == 7.0


@pytest.mark.parametrize("of_task", [0.0, -1e-8, 1e-8])
def test_a_whole_between_the_centres_makes_no_label_infinite(of_task: float) -> None:
    for task in (0.0, 2.0):
        for distance in (0.0, -1.0):
            label = shifted_labels(torch.tensor([task]), torch.tensor([distance]), torch.tensor([of_task]), 3.0)
            assert label.isfinite().all()
            assert label.abs() <= 3


def numpy_labels(
    labels: np.ndarray, epochs: list[list[tuple[np.ndarray, dict[str, np.ndarray]]]], limit: float, from_epoch: int
) -> dict[str, np.ndarray]:
    """The generated labels after batches of (positions, states), one utterance at a time."""
    made = {name: labels.astype(float).copy() for name in NAMES}
    memory: dict[str, dict[int, np.ndarray]] = {name: {} for name in NAMES}
    centres: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for epoch, batches in enumerate(epochs, 1):
        for positions, states in batches:
            for row, position in enumerate(positions if epoch >= from_epoch else []):
                alpha = {}
                for name in NAMES:
                    to_positive, to_negative = (np.linalg.norm(states[name][row] - centre) for centre in centres[name])
                    alpha[name] = (to_negative - to_positive) / (to_positive + 1e-8)
                for name in HEADS:
                    y, own, whole = labels[position], alpha[name], alpha["task"]
                    new = np.clip(0.5 * y * own / whole + 0.5 * (y + own - whole), -limit, limit)
                    made[name][position] = (epoch - 1) / (epoch + 1) * made[name][position] + 2 / (epoch + 1) * new
            for name in NAMES:
                for row, position in enumerate(positions):
                    memory[name][position] = states[name][row]
                known = memory[name]
                sides = [[at for at in known if sign * made[name][at] > 0] for sign in (1, -1)]
                if all(sides):
                    centres[name] = tuple(np.mean([known[at] for at in side], 0) for side in sides)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("from_epoch", [2, 3])
def test_epochs_of_batches_are_as_in_numpy(from_epoch: int) -> None:
    generator = np.random.default_rng(from_epoch)
    labels = generator.uniform(-3, 3, 20).astype(np.float32)
    rows = np.sort(generator.permutation(20)[:15])  # a share of the train split
    training = TrainingConfig(ulgm=True, ulgm_from_epoch=from_epoch, ulgm_limit=2.5)
    ours = UnimodalLabels(training, KNOWN["mosi"], labels, rows, CPU)
    epochs = []
    for epoch in range(1, 6):
        batches = []
        for at in np.split(generator.permutation(15), 3):
            states = {name: generator.normal(labels[rows][at, None] / 3, 1.0, (5, 2 + len(name))) for name in NAMES}
            before = {head: ours.labels_of(head)[at] for head in HEADS}
            tensors = {name: torch.from_numpy(of).float() for name, of in states.items()}
            trained_on = ours.step(tensors, torch.from_numpy(rows[at]), epoch)
            assert (trained_on is None) == (epoch <= from_epoch)
            for head, own in (trained_on or {}).items():
                assert own.weights is not None
                np.testing.assert_array_equal(own.labels[:, 0].numpy(), before[head])
                expected = np.tanh(np.abs(before[head] - labels[rows][at]))
                np.testing.assert_allclose(own.weights[:, 0].numpy(), expected, rtol=1e-5)
            batches.append((at, states))
        epochs.append(batches)
        moved = ours.metrics(epoch)
        assert (moved == {}) == (epoch < from_epoch)
    expected = numpy_labels(labels[rows], epochs, 2.5, from_epoch)
    for head in HEADS:
        np.testing.assert_allclose(ours.labels_of(head), expected[head], atol=2e-3)
        assert np.abs(ours.labels_of(head) - labels[rows]).mean() == pytest.approx(moved[f"ulgm/{head}"], rel=1e-5)
        assert moved[f"ulgm/{head}"] > 0.1
    np.testing.assert_array_equal(ours.labels_of("task"), labels[rows])


@pytest.mark.parametrize(
    ("task", "given", "limit"),
    [(KNOWN["mosi"], None, 3.0), (KNOWN["sims"], None, 1.0), (Task.number(1, 5), None, 3.0), (KNOWN["mosi"], 0.5, 0.5)],
)
def test_labels_stay_within_the_reach_of_the_tasks_or_the_limit(task: Task, given: float | None, limit: float) -> None:
    labels = np.array([task.middle - 0.1, task.middle + 0.1] * 4, np.float32)
    training = TrainingConfig(ulgm=True, ulgm_limit=given)
    ours = UnimodalLabels(training, task, labels, np.arange(8), CPU)
    generator = torch.Generator().manual_seed(0)
    sign = torch.tensor([-1.0, 1.0] * 4)[:, None]
    for epoch in range(1, 40):
        noise = {name: torch.randn(8, 2, generator=generator) for name in NAMES}
        ours.step({name: sign * 20 + of * (9 if name == "task" else 0.1) for name, of in noise.items()},
                  torch.arange(8), epoch)  # fmt: skip
    # What says by far more than the whole goes to the limit; the epochs before weigh little by now.
    assert ours.labels_of("text").max() == pytest.approx(limit, rel=0.02)


def test_a_side_that_no_label_is_on_any_more_keeps_its_centre() -> None:
    labels = np.array([1.0, -1.0], np.float32)
    ours = UnimodalLabels(ON, KNOWN["mosi"], labels, np.arange(2), CPU)
    states = {name: torch.tensor([[1.0], [-1.0]]) for name in NAMES}
    ours.step(states, torch.arange(2), 1)
    ours.step(states, torch.arange(2), 2)
    ours._labels["av"].fill_(2.0)
    ours.step(states | {"av": torch.tensor([[5.0], [7.0]])}, torch.arange(2), 3)
    ours._labels["av"].fill_(2.0)
    ours.step(states, torch.arange(2), 4)
    assert ours.parts["ulgm"]["centres.av"].tolist() == [[6.0], [-1.0]]


def test_a_step_needs_no_value_of_the_device() -> None:
    meta = torch.device("meta")
    ours = UnimodalLabels(ON, KNOWN["mosi"], np.array([1.0, -1.0, 2.0], np.float32), np.arange(3), meta)
    for epoch in (1, 2, 3):
        generated = ours.step({name: torch.empty(2, 4, device=meta) for name in NAMES}, torch.tensor([2, 0]), epoch)
    assert generated is not None
    assert generated["av"].labels.shape == (2, 1)


def test_a_weight_is_what_an_utterances_error_counts() -> None:
    targets, weights = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [0.0]])
    assert prediction_loss(torch.tensor([[3.0], [9.0]]), targets, weights) == 0.5  # (0.5 · 2 + 0 · 7) / 2
    of_tokens = torch.tensor([[[3.0], [1.0], [2.0]], [[9.0], [9.0], [9.0]]])
    torch.testing.assert_close(prediction_loss(of_tokens, targets, weights), torch.tensor(0.5 * 3 / 6))


def test_classes_and_labels_of_one_side_are_refused() -> None:
    with pytest.raises(ConfigError) as classes:
        check_ulgm(ON, Task.choice(("calm", "cross")), np.array([0.0, 1.0]))
    assert str(classes.value) == (
        "training.ulgm=True: generates numbers, but the dataset's labels are classes; leave it off"
    )
    with pytest.raises(ConfigError) as one_sided:
        UnimodalLabels(ON, Task.number(1, 5), np.array([3.0, 4.0, 5.0, 1.0]), np.arange(3), CPU)
    assert str(one_sided.value) == (
        "training.ulgm=True: needs train labels on both sides of 3, but 2 are above and 0 below; leave it off"
    )
    check_ulgm(TrainingConfig(), Task.choice(("calm", "cross")), np.array([0.0, 1.0]))


def test_a_search_refuses_it_before_it_starts(tmp_path: Path) -> None:
    make_planted(tmp_path / "glad", 0, 16, is_glad=True)
    (tmp_path / "mine.py").write_text(
        "def space(trial):\n    return {'training.ulgm': trial.suggest_categorical('training.ulgm', [False, True])}\n"
    )
    asked = {"space": str(tmp_path / "mine.py"), "overrides": {"model.fusion_depth": 1}}
    with pytest.raises(ConfigError, match=r"^training.ulgm=True: needs train labels on both sides of 0, but 16 are ab"):
        plan_search(settings(tmp_path / "glad", tmp_path, **asked))
