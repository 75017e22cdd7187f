"""What TensorBoard shows of an experiment beside its trials: HParams columns and the Custom Scalars layout."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.struct_pb2 import ListValue
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.api_pb2 import DataType, Experiment, HParamInfo, Interval, MetricInfo, MetricName
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, PLUGIN_DATA_VERSION
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import custom_scalars

from deepmlf.events.writer import GATE_OVER_DEPTH, hparams_summary
from deepmlf.files import new_file
from deepmlf.training.machine.speed import PHASES

EVENTS_FILE = "events.out.tfevents.0000000000.experiment"
"""Comes before the events of any trial; one name, so that it is written once."""
_GATES, _LANGUAGE = "Gates by layer", "Language"
_PARTS_OF_AN_EPOCH = tuple(phase for phase in PHASES if phase != "train")  # that has some of the others inside


@dataclass(frozen=True)
class Parameter:
    """A setting that trials of an experiment differ in: a column of the HParams tab."""

    name: str
    """Dotted."""
    low: float | None = None
    """Of a number; as is `high`."""
    high: float | None = None
    choices: tuple[str | bool, ...] = ()
    """Of text or a switch; empty for text of any kind."""

    def info(self) -> HParamInfo:
        """The column's type and domain."""
        if self.low is not None and self.high is not None:
            interval = Interval(min_value=self.low, max_value=self.high)
            return self._info("DATA_TYPE_FLOAT64", self.low < self.high, domain_interval=interval)
        values = ListValue()
        values.extend(self.choices)
        if self.choices and all(isinstance(choice, bool) for choice in self.choices):
            return self._info("DATA_TYPE_BOOL", len(self.choices) > 1, domain_discrete=values)
        if self.choices:
            return self._info("DATA_TYPE_STRING", len(self.choices) > 1, domain_discrete=values)
        return self._info("DATA_TYPE_STRING", True)

    def _info(self, kind: str, differs: bool, **domain: Interval | ListValue) -> HParamInfo:
        return HParamInfo(name=self.name, type=DataType.Value(kind), differs=differs, **domain)


def write_dashboard(
    folder: Path,
    objectives: Sequence[str],
    others: Callable[[], Iterable[Summary]] = tuple,
    *,
    has_gates: bool = True,
    has_language: bool = False,
) -> None:
    """Write the Custom Scalars layout, and what else concerns no single trial, whole and once.

    Args:
        folder: The one that TensorBoard is started on.
        objectives: Names without their section, e.g. ``MAE``.
        others: Makes what else is written: `hparams_columns`.
        has_gates: Whether any trial has gates, which the layout is to plot.
        has_language: Whether any trial reports next-token losses.
    """
    path = folder / EVENTS_FILE
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    with new_file(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for summary in (_layout(objectives, has_gates=has_gates, has_language=has_language), *others()):
            writer.write(Event(wall_time=now, summary=summary).SerializeToString())


def hparams_columns(parameters: Iterable[Parameter], metrics: Sequence[str]) -> Summary:
    """The HParams tab's columns, the same whatever trials there are.

    TensorBoard would take them from a trial: one that lacks a conditional parameter would hide it of all.

    Args:
        parameters: What trials differ in.
        metrics: Validation metrics without their section, the objective first. Each has its best and its last value.
    """
    first, others = metrics[0], metrics[1:]  # TensorBoard shows the first five metrics unasked
    columns = {f"best/{first}": f"best {first}", f"valid/{first}": f"last {first}"}
    columns |= {"fusion_epoch": "fusion epochs", "model/trained_parameters": "trained parameters"}
    columns |= {f"best/{name}": f"best {name}" for name in others} | {
        f"valid/{name}": f"last {name}" for name in others
    }
    experiment = Experiment(
        hparam_infos=[parameter.info() for parameter in parameters],
        metric_infos=[MetricInfo(name=MetricName(tag=tag), display_name=title) for tag, title in columns.items()],
        time_created_secs=time.time(),
    )
    return hparams_summary(EXPERIMENT_TAG, HParamsPluginData(experiment=experiment, version=PLUGIN_DATA_VERSION))


def _layout(objectives: Sequence[str], *, has_gates: bool, has_language: bool) -> Summary:
    # The loss of the task head is its MAE, so that it is the train curve of the validation MAE.
    charts = {
        "Objective": {f"Validation {name}: each epoch, best": [f"valid/{name}", f"best/{name}"] for name in objectives},
        "Train against valid": {
            "MAE of the task head": ["loss/task", "valid/MAE"],
            "Before fusion, validation error of one modality": ["unimodal/.*"],
        },
        "Loss": {"Terms": ["loss/.*"], "Weighted sum": ["train/loss"]},
        _LANGUAGE: {"Next-token loss on validation texts, beside the language model's own": ["language/.*"]},
        _GATES: {
            "Cross-attention": [r"gate/\d+/attention"],
            "FFN": [r"gate/\d+/ffn"],
            "Best epoch's over depth (step: fused layer)": [f"{GATE_OVER_DEPTH}.*"],
        },
        "Learning rates": {"Fusion and audiovisual encoder": ["lr/.*"]},
        "Seconds": {
            "Phases of an epoch": [f"time/({'|'.join(_PARTS_OF_AN_EPOCH)})_seconds"],
            "Epoch": ["time/epoch_seconds"],
        },
        "Curriculum": {
            "Stage": ["curriculum/stage"],
            "MM blocks in use": ["curriculum/active_blocks"],
            "Fusion epochs": ["fusion_epoch"],
        },
    }
    for title, is_there in ((_GATES, has_gates), (_LANGUAGE, has_language)):
        if not is_there:
            del charts[title]
    return custom_scalars(
        {
            title: {chart: ["Multiline", [f"{tag}$" for tag in tags]] for chart, tags in of_category.items()}
            for title, of_category in charts.items()
        }
    )
