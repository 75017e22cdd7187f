"""TensorBoard events of one trial: sections of scalars, its settings as text, and HParams from its start."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
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
from torch.utils.tensorboard.summary import histogram_raw, text
from torch.utils.tensorboard.writer import SummaryWriter

from deepmlf.training.metrics import ATTENTION

SECTIONS = (
    "train/", "valid/", "unimodal/", "loss/", "gate/", "lr/", "time/", "speed/", "curriculum/", "model/",
    "fusion_epoch",
)  # fmt: skip
STATES = {"COMPLETE": "STATUS_SUCCESS", "PRUNED": "STATUS_SUCCESS", "FAIL": "STATUS_FAILURE"}
GATE_OVER_DEPTH = "gate_over_depth/"


class TrialWriter:
    """Writes a trial's events into a folder.

    Args:
        folder: The trial's folder; its name is the run's name in TensorBoard.
        purge_step: On a restart, the first epoch to be written again: what an earlier writer logged from there on is
            hidden, so that the curve stays one line.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        earlier = b"".join(path.read_bytes() for path in folder.glob("events.out.tfevents.*"))
        self._has_started = SESSION_START_INFO_TAG.encode() in earlier
        self._has_ended = SESSION_END_INFO_TAG.encode() in earlier
        self._best: dict[str, float] = {}
        _let_the_second_pass(folder)
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

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
        self._add(hparams_summary(SESSION_START_INFO_TAG, content))
        self._add(text("trial", note), 0)
        self._writer.flush()

    def write(self, metrics: Mapping[str, Any], best: Mapping[str, float]) -> None:
        """Write one epoch's scalars at step ``metrics["epoch"]``, and the best validation metrics where they change."""
        scalars = {
            name: value
            for name, value in metrics.items()
            if name.startswith(SECTIONS) and isinstance(value, (int, float))
        }
        if best != self._best:
            self._best = dict(best)
            scalars |= {f"best/{name}": value for name, value in best.items()}
        self._add(_scalars(scalars), metrics["epoch"])
        self._writer.flush()

    def close(self, state: str, best_epoch: Mapping[str, Any]) -> None:
        """End the trial in the HParams tab, and show its gates and its attention over depth.

        Args:
            state: COMPLETE, PRUNED or FAIL.
            best_epoch: What its best epoch reported, if it had one. The step of gates and attention is the fused layer;
                the attention is a histogram over audiovisual frames.
        """
        if not self._has_ended:
            for name, value in best_epoch.items():
                section, _, rest = name.partition("/")
                if section == "gate":
                    layer, _, kind = rest.partition("/")
                    self._add(_scalars({GATE_OVER_DEPTH + kind: value}), int(layer))
                elif name.startswith(ATTENTION):
                    self._add(_over_frames(value), int(rest))
            end = SessionEndInfo(status=Status.Value(STATES.get(state, "STATUS_UNKNOWN")), end_time_secs=time.time())
            content = HParamsPluginData(session_end_info=end, version=PLUGIN_DATA_VERSION)
            self._add(hparams_summary(SESSION_END_INFO_TAG, content))
        self._writer.close()

    def _add(self, summary: Summary, step: int | None = None) -> None:
        self._writer.file_writer.add_summary(summary, step)


def hparams_summary(tag: str, content: HParamsPluginData) -> Summary:
    """What the HParams tab reads: all of it is in the metadata of a summary without a value."""
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])


def _scalars(values: Mapping[str, float]) -> Summary:
    # One event for all of an epoch: an event's frame is as large as a scalar.
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _over_frames(shares: Sequence[float]) -> Summary:
    """Attention as a histogram: a bucket is a frame, its height what the fusion tokens take from there."""
    frames = range(1, len(shares) + 1)
    mean = sum(frame * share for frame, share in zip(frames, shares, strict=True))
    square = sum(frame**2 * share for frame, share in zip(frames, shares, strict=True))
    limits = [frame + 0.5 for frame in frames]
    return histogram_raw("attention_over_frames", 0.5, limits[-1], 1.0, mean, square, limits, list(shares))


def _shown(value: Any) -> Value:
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, (int, float)):
        return Value(number_value=value)
    return Value(string_value=str(value))


def _let_the_second_pass(folder: Path) -> None:
    """Wait until a new events file's name comes after those that are there, as TensorBoard reads them in that order.

    Names begin with the second; within one they would sort by process and counter, as text.
    """
    seconds = {int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")}
    if int(time.time()) in seconds:
        time.sleep(1 - time.time() % 1)
