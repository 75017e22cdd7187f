"""A search whose trials share their audiovisual encoders."""

from pathlib import Path

import pytest

from deepmlf.analysis.results import load_results
from deepmlf.training.reports import read_reports
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings

SPACE = """
BASE = {
    "model.max_text_len": 8, "model.av_frames": 4, "model.av_layers": 1, "model.lora_rank": 2,
    "model.fusion_depth": 1, "training.batch_size": 16, "curriculum.name": "av_first", "curriculum.av_epochs": 2,
}


def space(trial):
    return {
        "model.av_width": (12, 18, 24)[trial.number % 3],
        "model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 12),
        "training.lr_av": trial.suggest_float("training.lr_av", 1e-4, 1e-2, log=True),
    }
"""


@pytest.mark.ray
def test_twenty_trials_over_three_audiovisual_settings_train_three_encoders(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    summary = run_search(SearchSettings(
        data=str(small_data), space=str(tmp_path / "mine.py"), lm="tiny-random", trials=20, epochs=1, concurrent=2,
        storage=str(tmp_path), name="search", quiet=True, keep=2,
    ))  # fmt: skip
    assert summary.states["COMPLETE"] == 20
    experiment = tmp_path / "search"
    assert sum(not path.name.startswith(".") for path in (experiment / "av_encoders").iterdir()) == 3
    trained: dict[int, int] = {}  # trials that trained their encoder themselves, by its width
    for number in range(len(open_experiment(experiment).study.get_trials())):
        (folder,) = (experiment / "trials").glob(f"{number:04d}_*")
        *first, last = [report.metrics for report in read_reports(folder)]
        assert [epoch["stage"] for epoch in first] == ["av"] * len(first)
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["epoch_000002", "epoch_000003"]
        assert [first[-1]["epoch"], last["epoch"], last["fusion_epoch"]] == [2, 3, 1]
        if "curriculum/av_reused" in first[-1]:
            assert len(first) == 1
        else:
            assert len(first) == 2
            trained[number % 3] = trained.get(number % 3, 0) + 1
    assert trained == {0: 1, 1: 1, 2: 1}
    assert load_results(experiment).column("epoch").to_pylist() == [3] * 20
