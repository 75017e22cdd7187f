"""A file of events as TensorBoard reads it, and the summaries that it has no maker of without TensorFlow or torch."""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.custom_scalar.metadata import PLUGIN_NAME as CUSTOM_SCALARS
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from deepmlf.training.checkpoints.files import EVENTS

_VERSION = "brain.Event:2"


class EventsFile:
    """A new file of events.

    Args:
        path: Nothing may be there.
        purge_step: What earlier files of the folder have from this step on is hidden.

    Raises:
        FileExistsError: Something is there.
    """

    def __init__(self, path: Path, purge_step: int | None = None) -> None:
        self._records = RecordWriter(path.open("xb"))
        self._write(Event(file_version=_VERSION))
        if purge_step is not None:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def add(self, summary: Summary, step: int | None = None) -> None:
        """Add one event; it is in the file after `flush`."""
        self._write(Event(summary=summary, step=step))

    def flush(self) -> None:
        """Let readers see what was added."""
        self._records.flush()

    def close(self) -> None:
        """Flush, and end the file."""
        self._records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def next_path(folder: Path) -> Path:
    """A path for the newest file of a folder's events.

    TensorBoard reads them in the order of their names, which begin with a second, and never opens a file that comes
    before one it has read. So the second is past those that are there, whatever the clock says: a trial may go on where
    the clock is behind, or the clock may be put right.
    """
    begun = (path.name.split(".")[3] for path in folder.glob(EVENTS))
    seconds = [int(text) for text in begun if text.isdigit()]
    second = max(int(time.time()), max(seconds, default=0) + 1)
    return folder / EVENTS.replace("*", f"{second:010d}.{socket.gethostname()}.{os.getpid()}.0")


def text(tag: str, content: str) -> Summary:
    """Markdown, for TensorBoard's page of texts."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[content.encode()], tensor_shape=shape)
    metadata = create_summary_metadata(display_name="", description="")
    return Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)])


def custom_scalars(charts: Mapping[str, Mapping[str, Sequence[str]]]) -> Summary:
    """The layout of TensorBoard's Custom Scalars page.

    Args:
        charts: For each category its charts, each with regular expressions of tags.
    """
    layout = layout_pb2.Layout()
    for title, of_category in charts.items():
        category = layout.category.add(title=title)
        for chart, tags in of_category.items():
            category.chart.add(title=chart, multiline=layout_pb2.MultilineChartContent(tag=tags))
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=CUSTOM_SCALARS))
    tensor = TensorProto(dtype="DT_STRING", string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
    return Summary(value=[Summary.Value(tag=CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)])
