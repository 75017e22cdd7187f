"""TensorBoard events, read back by TensorBoard's own loader."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from deepmlf.training.tensorboard import TrialWriter

EPOCH = {
    "epoch": 1, "fusion_epoch": 1, "stage": "fusion", "valid/MAE": 0.5, "train/loss": 1.0, "loss/task": 0.7,
    "gate/3/attention": 0.5, "gate/3/ffn": 0.5, "lr/fusion": 1e-4, "time/epoch_seconds": 2.0, "speed/tflops": 0.1,
}  # fmt: skip


def load(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def session_start(events: EventAccumulator) -> HParamsPluginData:
    metadata = events.SummaryMetadata(SESSION_START_INFO_TAG)
    return HParamsPluginData.FromString(metadata.plugin_data.content)


def test_hparams_are_there_from_the_start_under_dotted_names(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path)
    writer.start({"model.num_fusion_tokens": 8, "curriculum.name": "joint", "model.fusion_layers": [1, 3]})
    info = session_start(load(tmp_path)).session_start_info
    assert info.hparams["model.num_fusion_tokens"].number_value == 8
    assert info.hparams["curriculum.name"].string_value == "joint"
    assert info.hparams["model.fusion_layers"].string_value == "[1, 3]"


def test_sections_and_best_metrics(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path)
    writer.start({})
    writer.write(EPOCH, {"MAE": 0.5})
    writer.write(EPOCH | {"epoch": 2, "valid/MAE": 0.6}, {"MAE": 0.5})
    writer.close("COMPLETE")
    events = load(tmp_path)
    sections = {tag.split("/")[0] for tag in events.Tags()["scalars"]}
    assert sections == {"train", "valid", "loss", "gate", "lr", "time", "speed", "best"}
    assert [round(event.value, 6) for event in events.Scalars("valid/MAE")] == [0.5, 0.6]
    assert [event.value for event in events.Scalars("best/MAE")] == [0.5, 0.5]


def test_a_restart_leaves_one_clean_curve(tmp_path: Path) -> None:
    first = TrialWriter(tmp_path)
    for epoch in (1, 2, 3):
        first.write(EPOCH | {"epoch": epoch}, {})
    second = TrialWriter(tmp_path, purge_step=3)
    for epoch in (3, 4):
        second.write(EPOCH | {"epoch": epoch}, {})
    assert [event.step for event in load(tmp_path).Scalars("valid/MAE")] == [1, 2, 3, 4]
