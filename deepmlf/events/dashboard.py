"""What TensorBoard shows of an experiment beside its trials: HParams columns and the Custom Scalars layout."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from google.protobuf.struct_pb2 import ListValue
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.api_pb2 import DataType, Experiment, HParamInfo, Interval, MetricInfo, MetricName
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, PLUGIN_DATA_VERSION
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from deepmlf.config.trial import CurriculumConfig, TrialConfig
from deepmlf.events.file import EventsFile, custom_scalars
from deepmlf.events.writer import (
    GATE_OVER_DEPTH,
    OVER_FRAMES,
    PRE_FUSION,
    SCALAR_SETTINGS,
    SETTING,
    STATE,
    STATE_NUMBERS,
    hparams_summary,
)
from deepmlf.files import new_file
from deepmlf.training.machine.phases import PHASES
from deepmlf.training.reports import FIDELITY, TRAINED_PARAMETERS, VALID

EVENTS_FILE = "events.out.tfevents.0000000000.experiment"
"""Comes before the events of any trial; one name, so that it is written once."""
LEADING = (
    "model.fusion_depth", "model.num_fusion_tokens", "curriculum.name", "model.gate_init", "model.gate",
    "training.lr_fusion", "training.lr_av",
)  # fmt: skip
"""The settings that HParams shows unasked, as far as trials differ in them."""
_SHOWN_UNASKED = 5  # settings; TensorBoard's page has the number, and shows as many metrics
BEST_OVER = "best_over_"
"""A trial's best value with one of its settings as the step: ``best_over_depth/MAE``."""
_STATES = f"state ({', '.join(f'{number} {state}' for state, number in STATE_NUMBERS.items())})"
_CURRICULA: tuple[str, ...] = get_args(CurriculumConfig.model_fields["name"].annotation)
_LANGUAGE = "Language"
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

    @classmethod
    def fixed(cls, name: str, value: Any) -> "Parameter":
        """A setting that has one value."""
        if isinstance(value, bool | str):
            return cls(name, choices=(value,))
        return cls(name, low=value, high=value) if isinstance(value, int | float) else cls(name)

    @property
    def differs(self) -> bool:
        """Whether it has more than one value."""
        if self.low is not None and self.high is not None:
            return self.low < self.high
        return len(self.choices) != 1

    def info(self, *, comes_first: bool) -> HParamInfo:
        """The column's type and domain.

        Args:
            comes_first: Whether it comes before those that do not. TensorBoard sorts by whether a setting "differs",
                then by name, so that this is the one way to say it.
        """
        if self.low is not None and self.high is not None:
            interval = Interval(min_value=self.low, max_value=self.high)
            return self._info("DATA_TYPE_FLOAT64", comes_first, domain_interval=interval)
        values = ListValue()
        values.extend(self.choices)
        if not self.choices:
            return self._info("DATA_TYPE_STRING", comes_first)
        is_switch = all(isinstance(choice, bool) for choice in self.choices)
        return self._info("DATA_TYPE_BOOL" if is_switch else "DATA_TYPE_STRING", comes_first, domain_discrete=values)

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
    with new_file(path) as temporary:
        file = EventsFile(temporary)
        for summary in (_layout(objectives, has_gates=has_gates, has_language=has_language), *others()):
            file.add(summary)
        file.close()


def hparams_columns(parameters: Sequence[Parameter], objectives: Sequence[str], metrics: Iterable[str]) -> Summary:
    """The HParams tab's columns, the same whatever trials there are.

    TensorBoard would take them from a trial: one that lacks a conditional parameter would hide it of all.

    Args:
        parameters: What trials differ in.
        objectives: Whole names, e.g. ``valid/MAE``, the first one a validation metric.
        metrics: Validation metrics without their section. Each has its best and its last value.
    """
    first, for_want_of_room = _unasked(parameters)
    titles = {TRAINED_PARAMETERS: "trained parameters"}
    metric, *further = [name.removeprefix(VALID) for name in objectives]
    columns = {f"best/{metric}": f"best {metric}"}
    columns |= {name if name in titles else f"best/{name}": titles.get(name, f"best {name}") for name in further}
    columns |= {STATE: _STATES, FIDELITY: "fusion epochs"} | {SETTING + name: name for name in for_want_of_room}
    columns |= {f"{VALID}{metric}": f"last {metric}"} | titles
    for name in metrics:
        columns |= {f"best/{name}": f"best {name}"} | {f"{VALID}{name}": f"last {name}"}
    experiment = Experiment(
        hparam_infos=[parameter.info(comes_first=parameter.name in first) for parameter in parameters],
        metric_infos=[MetricInfo(name=MetricName(tag=tag), display_name=title) for tag, title in columns.items()],
        time_created_secs=time.time(),
    )
    return hparams_summary(EXPERIMENT_TAG, HParamsPluginData(experiment=experiment, version=PLUGIN_DATA_VERSION))


def _unasked(parameters: Iterable[Parameter]) -> tuple[list[str], list[str]]:
    """The settings that HParams is to show unasked: as settings, and for want of room as metrics."""
    leads = {name: place for place, name in enumerate(LEADING)}
    # The sort keeps the space's order among those that do not lead; one that is the same in all trials comes last.
    order = sorted(parameters, key=lambda one: (not one.differs, leads.get(one.name, len(LEADING))))
    names = [parameter.name for parameter in order if parameter.differs or parameter.name in leads]
    crowded_out = [name for name in names[_SHOWN_UNASKED:] if name in SCALAR_SETTINGS]
    return names[:_SHOWN_UNASKED], crowded_out


def best_over(config: TrialConfig, metric: str) -> dict[str, int]:
    """The steps that a trial's best value has in the charts of depth, tokens and curriculum, by their tags.

    Args:
        config: The trial.
        metric: Without its section.
    """
    steps = {
        "depth": config.model.num_mm_blocks,
        "tokens": config.model.num_fusion_tokens,
        "curriculum": _CURRICULA.index(config.curriculum.name),
    }
    return {f"{BEST_OVER}{name}/{metric}": step for name, step in steps.items()}


def _layout(objectives: Sequence[str], *, has_gates: bool, has_language: bool) -> Summary:
    objective = objectives[0]
    numbers = ", ".join(f"{number} {name}" for number, name in enumerate(_CURRICULA))
    gates = {
        "Gates of cross-attention over epochs": [r"gate/\d+/attention"],
        "Gates of the FFN over epochs": [r"gate/\d+/ffn"],
        "Gates of the best epoch (step: fused layer)": [f"{GATE_OVER_DEPTH}.*"],
    }
    # The loss of the task head is its MAE, so that it is the train curve of the validation MAE.
    charts = {
        "Objective": {f"Validation {name}: each epoch, best": [f"valid/{name}", f"best/{name}"] for name in objectives},
        "How deep?": {
            f"Best {objective} of each trial (step: MM blocks)": [f"{BEST_OVER}depth/{objective}"],
            **(gates if has_gates else {}),
            "MM blocks in use": ["curriculum/active_blocks"],
        },
        "How many tokens?": {
            f"Best {objective} of each trial (step: fusion tokens)": [f"{BEST_OVER}tokens/{objective}"],
            "Where they look in the best epoch (step: frame)": [OVER_FRAMES],
        },
        "Which curriculum?": {
            f"Best {objective} of each trial (step: {numbers})": [f"{BEST_OVER}curriculum/{objective}"],
            "Stage": ["curriculum/stage"],
            "Before fusion, validation error of one modality (step: epochs)": [f"{PRE_FUSION}unimodal/.*"],
        },
        "Train against valid": {"MAE of the task head": ["loss/task", "valid/MAE"]},
        "Loss": {"Terms": ["loss/.*"], "Weighted sum": ["train/loss"]},
        _LANGUAGE: {"Next-token loss on validation texts, beside the language model's own": ["language/.*"]},
        "Learning rates": {"Fusion and audiovisual encoder": ["lr/.*"]},
        "Seconds": {
            "Phases of an epoch": [f"time/({'|'.join(_PARTS_OF_AN_EPOCH)})_seconds"],
            "Epoch": ["time/epoch_seconds"],
        },
    }
    if not has_language:
        del charts[_LANGUAGE]
    return custom_scalars(
        {
            title: {chart: [f"{tag}$" for tag in tags] for chart, tags in of_category.items()}
            for title, of_category in charts.items()
        }
    )
