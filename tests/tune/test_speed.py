"""The speed of a search's trials, in its results and in TensorBoard."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepmlf.analysis.results import write_results
from deepmlf.config.trial import TrialConfig
from deepmlf.training.trainer import Trainer
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings
from tests.sealed import content_of

SPACE = """
BASE = {
    "model.max_text_len": 8, "model.av_frames": 4, "model.av_layers": 1, "model.lora_rank": 2,
    "model.fusion_depth": 1, "training.batch_size": 16, "curriculum.name": "joint",
}


def space(trial):
    return {"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 12)}
"""
PHASES = ("data", "forward", "backward", "optimizer", "validation", "checkpoint")
SPEEDS = ("utterances_per_second", "tokens_per_second", "tflops", "gemm_share", "peak_memory_gb", "prefix_hit_rate")


@pytest.mark.ray
def test_a_search_reports_the_speed_of_every_epoch(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    run_search(SearchSettings(
        data=str(small_data), space=str(tmp_path / "mine.py"), lm="tiny-random", trials=2, epochs=2, concurrent=1,
        scheduler="none", storage=str(tmp_path), name="search", quiet=True,
    ))  # fmt: skip
    rows = pq.read_table(write_results(open_experiment(tmp_path / "search"))).to_pylist()
    assert len(rows) == 4
    for row in rows:
        # What lies between the phases is little, but a busy machine may stop the process there for as long as it likes.
        assert 0.2 < sum(row[f"time/{phase}_seconds"] for phase in PHASES) / row["time/epoch_seconds"] < 1 + 1e-9
        (folder,) = (tmp_path / "search/trials").glob(f"{row['trial']:04d}_*")
        trial = Trainer(TrialConfig.from_dict(content_of(folder / "config.json")), tmp_path / "again")
        tokens = sum(len(ids) for ids in trial.train_loader.tokens) + 49 * row["model.num_fusion_tokens"]
        seconds = row["time/train_seconds"]
        assert row["speed/tokens_per_second"] * seconds == pytest.approx(tokens)
        assert row["speed/utterances_per_second"] * seconds == pytest.approx(49)
        assert 0 < row["speed/gemm_share"] < 1
        assert row["speed/tflops"] > 0
        assert 0.1 < row["speed/peak_memory_gb"] < 10  # of a process with torch and Ray
        assert row["speed/prefix_hit_rate"] in (0, 1)
        tags = EventAccumulator(str(folder)).Reload().Tags()["scalars"]
        assert {f"speed/{name}" for name in SPEEDS} | {f"time/{phase}_seconds" for phase in PHASES} <= set(tags)
