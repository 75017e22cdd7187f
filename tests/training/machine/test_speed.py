"""What a trial says of its speed, against what is counted or measured another way."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from deepmlf.training import trainer
from deepmlf.training.machine import speed
from deepmlf.training.machine.speed import FlopCount, SpeedMeter, gemm_rate, without_measurements
from deepmlf.training.stores import text_prefixes
from deepmlf.training.trainer import Trainer
from tests.training.small_trial import config_of, run

CPU = torch.device("cpu")


def test_products_and_their_gradients_are_counted() -> None:
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    with FlopCount() as forward:
        product = a @ b
    with FlopCount() as backward:
        product.sum().backward()
    assert forward.total == 2 * 3 * 5 * 7
    assert backward.total == 2 * forward.total


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_counts_as_its_products_do_where_no_kernel_fuses_them(kv_heads: int) -> None:
    totals = {}
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        query = torch.randn(2, 4, 6, 8, requires_grad=True)
        key, value = (torch.randn(2, kv_heads, 9, 8, requires_grad=True) for _ in range(2))
        with sdpa_kernel(backend), FlopCount() as forward:
            output = scaled_dot_product_attention(query, key, value, enable_gqa=kv_heads != 4)
        with sdpa_kernel(backend), FlopCount() as backward:
            output.sum().backward()
        totals[backend] = forward.total, backward.total
    forward_math, backward_math = totals[SDPBackend.MATH]
    # The fused kernel makes the scores once more in its backward pass instead of keeping them.
    assert totals[SDPBackend.FLASH_ATTENTION] == (forward_math, backward_math + forward_math // 2)


@pytest.mark.parametrize("curriculum", ["joint", "unimodal_first", "grow_depth"])
def test_the_estimate_is_near_what_is_counted_over_whole_epochs(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch, curriculum: str
) -> None:
    counted = []
    train_epoch = Trainer._train_epoch

    def count(self: Trainer, stage: trainer.Stage) -> object:
        with FlopCount() as flops:
            outcome = train_epoch(self, stage)
        counted.append(flops.total)
        return outcome

    monkeypatch.setattr(Trainer, "_train_epoch", count)
    settings = {"curriculum__name": curriculum, "training__loss_lm": 0.5, "training__batch_size": 8}
    reports = run(tmp_path, small_data, **settings)
    estimated = [report["speed/tflops"] * report["time/train_seconds"] * 1e12 for report in reports]
    assert estimated == pytest.approx(counted, rel=0.03)


class Clock:
    """Seconds that this process has computed, whatever else the machine does, and those that it was told to wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, computed: Callable[[], float]) -> None:
        self._computed, self._waited = computed, 0.0
        monkeypatch.setattr(speed, "time", self)

    def perf_counter(self) -> float:
        return self._computed() + self._waited

    def sleep(self, seconds: float) -> None:
        self._waited += seconds


def test_phases_add_up_and_name_what_took_the_time(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, time.process_time)
    trainer = Trainer(config_of(small_data, curriculum__name="joint"), tmp_path)
    step, losses, chunk = trainer.optimizer.step, trainer._losses, trainer.train_loader.batch

    def slowly(seconds: float, work):  # type: ignore[no-untyped-def]
        def slow(*parts):  # type: ignore[no-untyped-def]
            clock.sleep(seconds)
            return work(*parts)

        return slow

    trainer.optimizer.step = slowly(0.05, step)  # type: ignore[method-assign]
    trainer._losses = slowly(0.1, losses)  # type: ignore[method-assign]
    trainer.train_loader.batch = slowly(0.2, chunk)  # type: ignore[method-assign]
    reports: list[dict] = []
    for _ in range(2):
        trainer._run_epoch(trainer.stages[0], lambda metrics, checkpoint: reports.append(metrics))
    batches = 3  # 49 utterances in batches of 16, the last of one joined to the one before
    for report in reports:
        assert report["time/optimizer_seconds"] >= batches * 0.05
        assert report["time/forward_seconds"] >= batches * 0.1
        assert report["time/data_seconds"] >= batches * 0.2
        assert report["time/backward_seconds"] < report["time/forward_seconds"]
        steps = ("data", "forward", "backward", "optimizer")
        assert sum(report[f"time/{name}_seconds"] for name in steps) == pytest.approx(
            report["time/train_seconds"], rel=0.05
        )
        whole = sum(report[f"time/{name}_seconds"] for name in ("train", "validation", "checkpoint"))
        assert whole == pytest.approx(report["time/epoch_seconds"], rel=0.05)


def test_a_checkpoint_is_in_the_time_of_the_epoch_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda: 0.0)
    monkeypatch.setattr(speed, "_device_rate", lambda *key: 1.0)
    meter = SpeedMeter(CPU, "float32")
    reports = []
    for _ in range(2):
        meter.start_epoch("fusion", 0.0)
        with meter.phase("train"), meter.step(1, 0):
            clock.sleep(0.5)
        reports.append(meter.metrics())
        with meter.phase("checkpoint"):
            clock.sleep(0.25)
        clock.sleep(0.125)  # the report
    assert [report["time/checkpoint_seconds"] for report in reports] == [0, 0.25]
    assert [report["time/epoch_seconds"] for report in reports] == [0.5, 0.75]


def test_rates_agree_with_the_epochs_seconds_and_the_datasets_tokens(tmp_path: Path, small_data: Path) -> None:
    trainer = Trainer(config_of(small_data), tmp_path)
    reports: list[dict] = []
    trainer.run(lambda metrics, checkpoint: reports.append(metrics), None)
    tokens = sum(len(ids) for ids in trainer.train_loader.tokens) + 49 * 3  # fusion tokens
    for report in reports:
        seconds = report["time/train_seconds"]
        assert report["speed/utterances_per_second"] * seconds == pytest.approx(49)
        expected = tokens if "fusion_epoch" in report else 0  # no language model runs in the audiovisual stage
        assert report["speed/tokens_per_second"] * seconds == pytest.approx(expected)
        assert 0 < report["speed/gemm_share"] < 1


def test_a_trial_of_another_precision_is_compared_with_products_in_it(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "_device_rate", lambda device, dtype, threads: 2.0 if dtype == torch.bfloat16 else 1.0)
    for precision, rate in (("float32", 1.0), ("bfloat16", 2.0)):
        (report,) = run(tmp_path / precision, small_data, stop_after=1, curriculum__name="joint",
                        training__precision=precision)  # fmt: skip
        assert report["speed/gemm_share"] * rate == pytest.approx(report["speed/tflops"])


def test_the_rate_is_measured_once_and_leaves_random_numbers_alone() -> None:
    speed._device_rate.cache_clear()
    before = torch.get_rng_state()
    rate = speed._device_rate(CPU, torch.float32, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert rate == speed._device_rate(CPU, torch.float32, 1) > 0
    assert speed._device_rate.cache_info().misses == 1
    assert gemm_rate(CPU, torch.bfloat16, size=64, products=2) > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is of the process's life here")
def test_peak_memory_is_of_the_epoch_alone() -> None:
    speed._reset_peak_memory(CPU)
    before = speed._peak_memory(CPU)
    block = np.ones(12_500_000)
    del block
    assert 90e6 < speed._peak_memory(CPU) - before < 150e6
    speed._reset_peak_memory(CPU)
    assert speed._peak_memory(CPU) - before < 50e6


@pytest.mark.parametrize(("read_seconds", "rate"), [(0.0, 1.0), (2.0, 0.0)])
def test_the_hit_rate_is_of_prefixes_read_rather_than_computed(
    own_home: Path,
    tmp_path: Path,
    small_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_seconds: float,
    rate: float,
) -> None:
    measured = {"read_seconds": read_seconds, "compute_seconds": 1.0}
    monkeypatch.setattr(text_prefixes, "_measure", lambda *parts: measured)
    reports: list[dict] = []
    trial = Trainer(config_of(small_data), tmp_path / "out", cache_gb=1.0)
    trial.run(lambda metrics, checkpoint: reports.append(metrics), None)
    assert [report["speed/prefix_hit_rate"] for report in reports] == [0.0, 0.0] + [rate] * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"model__softperm_text_features": 0.3, "model__softperm_text_apply": 0.5},
        {"model__embedding_noise": 5.0},
        {"model__embedding_dropout": 0.1},
    ],
)
def test_text_that_augmentation_changes_is_computed_and_validation_is_read(
    own_home: Path, tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float]
) -> None:
    monkeypatch.setattr(text_prefixes, "_measure", lambda *parts: {"read_seconds": 0.0, "compute_seconds": 1.0})
    config = config_of(small_data, curriculum__name="joint", **settings)
    trial = Trainer(config, tmp_path / "out", cache_gb=1.0)
    reports: list[dict] = []
    trial._run_epoch(trial.stages[0], lambda metrics, checkpoint: reports.append(metrics))
    assert reports[0]["speed/prefix_hit_rate"] == pytest.approx(24 / (49 + 24))


def test_counting_leaves_the_numbers_alone(tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = run(tmp_path / "counted", small_data, training__loss_lm=0.5)
    monkeypatch.setattr(speed, "_NEAR_ENOUGH", float("inf"))
    uncounted = run(tmp_path / "uncounted", small_data, training__loss_lm=0.5)
    assert [without_measurements(report) for report in counted] == [without_measurements(r) for r in uncounted]
