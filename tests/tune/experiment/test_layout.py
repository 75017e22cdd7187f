"""Where a trial keeps its files."""

from pathlib import Path

from deepmlf.tune.experiment.layout import trial_folder, trial_folders, trial_name


def test_a_trial_keeps_its_folder_when_the_experiment_is_renamed(tmp_path: Path) -> None:
    before = trial_folder(tmp_path / "before", 7)
    before.mkdir(parents=True)
    (tmp_path / "before").rename(tmp_path / "after")
    assert trial_folder(tmp_path / "after", 7) == tmp_path / "after" / "trials" / "0007_before"
    assert trial_folder(tmp_path / "after", 8) == tmp_path / "after" / "trials" / "0008_after"
    assert trial_name(8, "before") == "0008_before"
    assert dict(trial_folders(tmp_path / "after")) == {7: tmp_path / "after" / "trials" / "0007_before"}
