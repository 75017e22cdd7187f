"""TensorBoard events, read back by TensorBoard's own loader."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from deepmlf.events.dashboard import LEADING, Parameter, hparams_columns, write_dashboard
from deepmlf.events.writer import TrialWriter
from deepmlf.training.reports import EpochReport

EPOCH = {
    "epoch": 1, "fusion_epoch": 1, "stage": "fusion", "valid/MAE": 0.5, "train/loss": 1.0, "loss/task": 0.7,
    "gate/3/attention": 0.25, "gate/3/ffn": 0.5, "lr/fusion": 1e-4, "time/epoch_seconds": 2.0, "speed/tflops": 0.1,
    "curriculum/stage": 1, "language/loss": 3.0, "ulgm/text_shift": 0.1, "model/trained_parameters": 1000,
}  # fmt: skip


def load(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()


def hparams(events: EventAccumulator, tag: str) -> HParamsPluginData:
    return HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]


def test_hparams_are_there_from_the_start_under_dotted_names(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path)
    params = {"model.num_fusion_tokens": 8, "curriculum.name": "joint", "model.fusion_layers": [1, 3], "a.b": True}
    writer.start(params, "note")
    info = hparams(load(tmp_path), SESSION_START_INFO_TAG).session_start_info
    assert info.hparams["model.num_fusion_tokens"].number_value == 8
    assert info.hparams["curriculum.name"].string_value == "joint"
    assert info.hparams["model.fusion_layers"].string_value == "[1, 3]"
    assert info.hparams["a.b"].WhichOneof("kind") == "bool_value"
    assert load(tmp_path).Tensors("trial/text_summary")[0].tensor_proto.string_val == [b"note"]


def test_sections_and_best_metrics_where_they_change(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path)
    writer.start({}, "")
    writer.write(EpochReport(EPOCH), {"MAE": 0.5})
    writer.write(EpochReport(EPOCH | {"epoch": 2, "fusion_epoch": 2, "valid/MAE": 0.6}), {"MAE": 0.5})
    writer.write(EpochReport(EPOCH | {"epoch": 3, "fusion_epoch": 3, "valid/MAE": 0.4}), {"MAE": 0.4})
    writer.close("COMPLETE", EPOCH)
    events = load(tmp_path)
    tags = set(events.Tags()["scalars"])
    assert tags == EPOCH.keys() - {"epoch", "stage"} | {
        "best/MAE",
        "gate_over_depth/attention",
        "gate_over_depth/ffn",
        "trial/state",
    }
    assert points(events, "valid/MAE") == [(1, 0.5), (2, 0.6), (3, 0.4)]
    assert points(events, "best/MAE") == [(1, 0.5), (3, 0.4)]


def test_the_end_has_its_state_and_the_best_gates_at_their_layers(tmp_path: Path) -> None:
    for state, status in (("COMPLETE", "STATUS_SUCCESS"), ("PRUNED", "STATUS_SUCCESS"), ("FAIL", "STATUS_FAILURE")):
        writer = TrialWriter(tmp_path / state)
        writer.start({}, "")
        writer.close(state, EPOCH | {"gate/7/attention": 0.75})
        events = load(tmp_path / state)
        end = hparams(events, SESSION_END_INFO_TAG).session_end_info
        assert end.status == Status.Value(status)
        assert end.end_time_secs >= hparams(events, SESSION_START_INFO_TAG).session_start_info.start_time_secs > 0
        assert points(events, "gate_over_depth/attention") == [(3, 0.25), (7, 0.75)]


def test_attention_is_a_curve_over_frames_and_no_histogram(tmp_path: Path) -> None:
    """A histogram would be a card of its own for each trial, on the page that TensorBoard opens with."""
    writer = TrialWriter(tmp_path)
    writer.start({}, "")
    writer.close("COMPLETE", EPOCH | {"attention/3": [0.25, 0.75], "attention/7": [1.0, 0.0]})
    events = load(tmp_path)
    assert points(events, "over_frames/attention") == [(1, 0.625), (2, 0.375)]
    assert events.Tags()["histograms"] == []


def test_the_state_and_the_learning_rates_are_numbers_too(tmp_path: Path) -> None:
    for state, number in (("COMPLETE", 1), ("PRUNED", 2), ("FAIL", 3)):
        writer = TrialWriter(tmp_path / state)
        writer.start({"training.lr_av": 0.5, "model.fusion_depth": 3}, "")
        assert points(load(tmp_path / state), "trial/state") == [(0, 0)]
        assert points(load(tmp_path / state), "trial/training.lr_av") == [(0, 0.5)]
        writer.close(state, {})
        assert points(load(tmp_path / state), "trial/state")[-1] == (0, number)


def test_a_restart_leaves_one_clean_curve(tmp_path: Path) -> None:
    first = TrialWriter(tmp_path)
    first.start({}, "note")
    for epoch in (1, 2, 3):
        first.write(EpochReport(EPOCH | {"epoch": epoch, "fusion_epoch": epoch}), {"MAE": 0.5})
    second = TrialWriter(tmp_path, purge_step=3)
    second.start({}, "note")
    for epoch in (3, 4):
        second.write(EpochReport(EPOCH | {"epoch": epoch, "fusion_epoch": epoch}), {"MAE": 0.5})
    second.close("COMPLETE", EPOCH)
    third = TrialWriter(tmp_path, purge_step=5)
    third.close("COMPLETE", EPOCH)
    events = load(tmp_path)
    assert [step for step, _ in points(events, "valid/MAE")] == [1, 2, 3, 4]
    assert len(events.Tensors("trial/text_summary")) == 1
    assert points(events, "gate_over_depth/ffn") == [(3, 0.5)]


@pytest.mark.parametrize("step", [-3600, 0, 3600])
def test_a_restart_under_another_clock_leaves_one_clean_curve(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial goes on where the clock is an hour behind, say; TensorBoard looks on all the time."""
    follows, began = EventAccumulator(str(tmp_path)), time.time()
    for restart, epochs in enumerate(((1, 2, 3), (3, 4), (4, 5))):
        monkeypatch.setattr(time, "time", lambda now=began + restart * step: now)
        writer = TrialWriter(tmp_path, purge_step=epochs[0])
        writer.start({}, "note")
        for epoch in epochs:
            metrics = {"epoch": epoch, "fusion_epoch": epoch, "valid/MAE": restart}
            writer.write(EpochReport(EPOCH | metrics), {"MAE": 0.5})
        follows.Reload()
    expected = [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2)]
    assert points(follows, "valid/MAE") == points(load(tmp_path), "valid/MAE") == expected


def test_an_epoch_is_small(tmp_path: Path) -> None:
    """One event per epoch: a tag, a value and 4 bytes around them for each scalar."""
    writer = TrialWriter(tmp_path)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_size
    writer.write(EpochReport(EPOCH), {})
    scalars = [name for name in EPOCH if name not in ("epoch", "stage")]
    frame = 40  # length, two checksums, time, step
    assert path.stat().st_size - before < frame + sum(len(name) + 4 + 7 for name in scalars)


def test_columns_are_typed_and_written_once(tmp_path: Path) -> None:
    parameters = [
        Parameter("a.number", low=1, high=8),
        Parameter("a.text", choices=("x", "y")),
        Parameter("a.switch", choices=(False, True)),
        Parameter("a.list"),
    ]
    for name in ("valid/Corr", "valid/another"):
        columns = hparams_columns(parameters, [name, "model/trained_parameters"], ["MAE", "Corr"])
        write_dashboard(tmp_path, ["Corr"], lambda columns=columns: [columns])
    (path,) = tmp_path.iterdir()
    experiment = hparams(load(path), EXPERIMENT_TAG).experiment
    number, text, switch, any_text = experiment.hparam_infos
    assert (number.domain_interval.min_value, number.domain_interval.max_value) == (1, 8)
    assert (list(text.domain_discrete), list(switch.domain_discrete)) == (["x", "y"], [False, True])
    assert not any_text.WhichOneof("domain")
    assert len({number.type, text.type, switch.type}) == 3
    assert text.type == any_text.type
    assert [metric.name.tag for metric in experiment.metric_infos] == [
        "best/Corr", "model/trained_parameters", "trial/state", "fusion_epoch", "valid/Corr", "best/MAE", "valid/MAE",
    ]  # fmt: skip


ALL_THAT_LEAD = [*LEADING, "a.number"]


@pytest.mark.parametrize(
    ("differing", "fixed", "first", "as_metrics"),
    [
        (ALL_THAT_LEAD, [], LEADING[:5], LEADING[5:]),
        (["b.late", "a.early", "training.lr_av"], [], ["b.late", "a.early", "training.lr_av"], []),
        (["z", "y", "x", "w", "v", "model.fusion_depth"], [], ["model.fusion_depth", "z", "y", "x", "w"], []),
        (["z"], ["model.fusion_depth", "a.fixed"], ["z", "model.fusion_depth"], []),
        ([], ["a.fixed", "training.lr_fusion"], ["training.lr_fusion"], []),
    ],
)
def test_what_matters_comes_first(
    differing: list[str], fixed: list[str], first: Sequence[str], as_metrics: Sequence[str]
) -> None:
    """TensorBoard shows five settings that it is told differ, and five metrics."""
    parameters = [Parameter(name, low=1, high=2) for name in differing] + [Parameter.fixed(name, 1) for name in fixed]
    summary = hparams_columns(parameters, ["valid/MAE"], ["MAE"])
    experiment = HParamsPluginData.FromString(summary.value[0].metadata.plugin_data.content).experiment
    assert {info.name for info in experiment.hparam_infos if info.differs} == set(first)
    tags = [metric.name.tag for metric in experiment.metric_infos]
    assert tags[:3] == ["best/MAE", "trial/state", "fusion_epoch"]
    assert [tag.removeprefix("trial/") for tag in tags[3:] if tag.startswith("trial/")] == list(as_metrics)


@pytest.mark.parametrize("has_gates", [True, False])
def test_the_layout_plots_gates_where_there_are_any(tmp_path: Path, has_gates: bool) -> None:
    write_dashboard(tmp_path, ["MAE"], has_gates=has_gates)
    [layout] = load(tmp_path).Tensors("custom_scalars__config__")
    shown = layout.tensor_proto.string_val[0]
    assert (b"Gates of cross-attention" in shown) == has_gates
    assert b"Learning rates" in shown
