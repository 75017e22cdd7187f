"""TensorBoard events of one trial: sections of scalars, and HParams from its start."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.metadata import PLUGIN_DATA_VERSION, PLUGIN_NAME, SESSION_END_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

SECTIONS = ("train/", "valid/", "loss/", "gate/", "lr/", "time/", "speed/", "curriculum/")
STATES = {"COMPLETE": "STATUS_SUCCESS", "PRUNED": "STATUS_SUCCESS", "FAIL": "STATUS_FAILURE"}


class TrialWriter:
    """Writes a trial's events into a folder.

    Args:
        folder: The trial's folder; its name is the run's name in TensorBoard.
        purge_step: On a restart, the first epoch to be written again: what an earlier writer logged from there on is
            hidden, so that the curve stays one line.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        _let_the_second_pass(folder)
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def start(self, params: Mapping[str, Any], metrics: tuple[str, ...] = ("MAE",)) -> None:
        """Show the trial in the HParams tab at once: `params` under their dotted names, ``best/…`` as metrics."""
        shown = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in params.items()
        }
        experiment, session, _ = hparams(shown, {f"best/{name}": None for name in metrics})
        for summary in (experiment, session):
            self._writer.file_writer.add_summary(summary)
        self._writer.flush()

    def write(self, metrics: Mapping[str, Any], best: Mapping[str, float]) -> None:
        """Write one epoch's scalars at step ``metrics["epoch"]``, and the best validation metrics so far."""
        step = metrics["epoch"]
        for name, value in metrics.items():
            if name.startswith(SECTIONS) and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, step)
        for name, value in best.items():
            self._writer.add_scalar(f"best/{name}", value, step)
        self._writer.flush()

    def close(self, state: str) -> None:
        """End the trial in the HParams tab with its state (COMPLETE, PRUNED or FAIL)."""
        end = SessionEndInfo(status=Status.Value(STATES.get(state, "STATUS_UNKNOWN")))
        content = HParamsPluginData(session_end_info=end, version=PLUGIN_DATA_VERSION)
        plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content.SerializeToString())
        value = Summary.Value(tag=SESSION_END_INFO_TAG, metadata=SummaryMetadata(plugin_data=plugin))
        self._writer.file_writer.add_summary(Summary(value=[value]))
        self._writer.close()


def _let_the_second_pass(folder: Path) -> None:
    """Wait until a new events file's name comes after those that are there, as TensorBoard reads them in that order.

    Names begin with the second; within one they would sort by process and counter, as text.
    """
    seconds = {int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")}
    if int(time.time()) in seconds:
        time.sleep(1 - time.time() % 1)
