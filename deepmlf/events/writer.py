"""TensorBoard events of one trial: sections of scalars, its settings as text, and HParams from its start.

Steps are fusion epochs, so that trials compare; stages before fusion have tags of their own.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf.struct_pb2 import Value
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.metadata import (
    PLUGIN_DATA_VERSION,
    PLUGIN_NAME,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from deepmlf.events.file import EventsFile, next_path, text
from deepmlf.training.checkpoints.files import EVENTS
from deepmlf.training.metrics import ATTENTION
from deepmlf.training.reports import EpochReport

SECTIONS = (
    "train/", "valid/", "unimodal/", "loss/", "gate/", "lr/", "time/", "speed/", "curriculum/", "model/", "language/",
    "ulgm/", "fusion_epoch",
)  # fmt: skip
STATES = {"COMPLETE": "STATUS_SUCCESS", "PRUNED": "STATUS_SUCCESS", "FAIL": "STATUS_FAILURE"}
PRE_FUSION = "pre_fusion/"
"""Before the name of what an epoch before fusion measures."""
STATE = "trial/state"
"""Optuna's number of the trial's state, as a column of HParams can be nothing but a setting or a number."""
STATE_NUMBERS = {"RUNNING": 0, "COMPLETE": 1, "PRUNED": 2, "FAIL": 3}
SETTING = "trial/"
"""Section of the settings that are scalars, too."""
SCALAR_SETTINGS = ("training.lr_fusion", "training.lr_av")
"""As HParams shows five settings unasked, and five metrics."""
GATE_OVER_DEPTH = "gate_over_depth/"
OVER_FRAMES = "over_frames/attention"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class TrialWriter:
    """Writes a trial's events into a folder.

    Args:
        folder: The trial's folder; its name is the run's name in TensorBoard.
        purge_step: On a restart, the first step to be written again: what an earlier writer logged from there on is
            hidden, so that the curve stays one line.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        earlier = _events_of(folder)
        self._has_started = SESSION_START_INFO_TAG.encode() in earlier
        self._has_ended = SESSION_END_INFO_TAG.encode() in earlier
        self._best: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsFile(next_path(folder), purge_step)

    def start(self, params: Mapping[str, Any], note: str) -> None:
        """Show the trial in the HParams tab at once, `params` under their dotted names, and `note` as its text.

        TensorBoard keeps what it reads first, so a restart adds nothing.
        """
        if self._has_started:
            return
        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in params.items():
            info.hparams[name].CopyFrom(_shown(value))
        content = HParamsPluginData(session_start_info=info, version=PLUGIN_DATA_VERSION)
        self._file.add(hparams_summary(SESSION_START_INFO_TAG, content))
        self._file.add(text("trial", note), 0)
        self._add_state("RUNNING", {SETTING + name: params[name] for name in SCALAR_SETTINGS if name in params})
        self._file.flush()

    def write(self, report: EpochReport, best: Mapping[str, float]) -> None:
        """Write one epoch's scalars, and the best validation metrics where they change."""
        section = PRE_FUSION if report.fidelity is None else ""
        scalars = {
            section + name: value
            for name, value in report.metrics.items()
            if name.startswith(SECTIONS) and isinstance(value, (int, float))
        }
        if best != self._best:
            self._best = dict(best)
            scalars |= {f"best/{name}": value for name, value in best.items()}
        self._file.add(_scalars(scalars), step_of(report))
        self._file.flush()

    def close(
        self, state: str, best_epoch: Mapping[str, Any], answers: Mapping[str, tuple[int, float]] = _NOTHING
    ) -> None:
        """End the trial in the HParams tab, and show what has another step than epochs.

        Args:
            state: COMPLETE, PRUNED or FAIL.
            best_epoch: What its best epoch reported, if it had one. The step of its gates is the fused layer; that of
                its attention, the mean over fused layers, the audiovisual frame.
            answers: Step and value of more scalars by their tags: the trial's best value over its depth, say.
        """
        if not self._has_ended:
            for name, value in best_epoch.items():
                section, _, rest = name.partition("/")
                if section == "gate":
                    layer, _, kind = rest.partition("/")
                    self._file.add(_scalars({GATE_OVER_DEPTH + kind: value}), int(layer))
            looks = [shares for name, shares in best_epoch.items() if name.startswith(ATTENTION)]
            for frame, shares in enumerate(zip(*looks, strict=True), start=1):
                self._file.add(_scalars({OVER_FRAMES: sum(shares) / len(shares)}), frame)
            for tag, (step, value) in answers.items():
                self._file.add(_scalars({tag: value}), step)
            self._add_state(state)
            end = SessionEndInfo(status=Status.Value(STATES.get(state, "STATUS_UNKNOWN")), end_time_secs=time.time())
            content = HParamsPluginData(session_end_info=end, version=PLUGIN_DATA_VERSION)
            self._file.add(hparams_summary(SESSION_END_INFO_TAG, content))
        self._file.close()

    def _add_state(self, state: str, others: Mapping[str, float] = _NOTHING) -> None:
        number = {STATE: STATE_NUMBERS[state]} if state in STATE_NUMBERS else {}
        self._file.add(_scalars(number | dict(others)), 0)


def step_of(report: EpochReport) -> int:
    """Where an epoch stands on TensorBoard's axis: fusion epochs, or before fusion epochs."""
    return report.epoch if report.fidelity is None else report.fidelity


def counts_all_epochs(folder: Path) -> bool:
    """Whether a trial's events, not ended, are of a release whose steps were epochs of all stages."""
    earlier = _events_of(folder)
    return SESSION_START_INFO_TAG.encode() in earlier and not any(
        tag.encode() in earlier for tag in (STATE, SESSION_END_INFO_TAG)
    )


def hparams_summary(tag: str, content: HParamsPluginData) -> Summary:
    """What the HParams tab reads: all of it is in the metadata of a summary without a value."""
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])


def _events_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob(EVENTS))


def _scalars(values: Mapping[str, float]) -> Summary:
    # One event for all of an epoch: an event's frame is as large as a scalar.
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _shown(value: Any) -> Value:
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, (int, float)):
        return Value(number_value=value)
    return Value(string_value=str(value))
