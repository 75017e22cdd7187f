"""Whatever happens to a file, nobody reads a wrong number, and an error names the file.

More damage, of other seeds, is done by ``python -m benchmarks.damaged_files``.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.damaged_files import SMALL, Subject, cases, damage, outcome, subjects
from deepmlf.analysis.experiment import Experiment
from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.errors import CheckpointError, DamagedError, DataError, DeepMLFError, SearchError
from deepmlf.inference.predictor import Predictor
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.reports import read_reports
from deepmlf.training.trainer import Trainer
from deepmlf.tune.experiment.study import repair_journal
from deepmlf.tune.material import open_material

NAMES = ["experiment", "dataset", "trial", "exported model", "checkpoint"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    return {subject.name: subject for subject in subjects(tmp_path_factory.mktemp("whole"))}


@pytest.fixture
def experiment(whole: dict[str, Subject], tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(whole["experiment"].folder, tmp_path / "search"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_damage_is_read_as_something_else(whole: dict[str, Subject], tmp_path: Path, name: str) -> None:
    subject = whole[name]
    told = subject.read(Path(shutil.copytree(subject.folder, tmp_path / "same" / subject.folder.name)))
    assert told
    for file, how, content in cases(subject, 24, seed=1001):
        came_to, said = outcome(subject, told, file, content, tmp_path)
        assert came_to in ("same", "less", "refused"), f"{file}, {how}: {came_to}: {said}"


def test_it_would_be_found(whole: dict[str, Subject], tmp_path: Path) -> None:
    """A number that is changed where there is no checksum is another one."""
    subject = whole["experiment"]
    told = subject.read(subject.folder)
    file = next(name for name in subject.files if name.endswith("metrics.jsonl"))
    lines = (subject.folder / file).read_text().splitlines()
    other = json.loads(lines[-1]) | {"valid/MAE": 0.001}
    del other["checksum"]  # as an earlier release wrote it
    content = "\n".join([*lines[:-1], json.dumps(other), ""]).encode()
    assert outcome(subject, told, file, content, tmp_path)[0] == "wrong"


@pytest.mark.parametrize("how", ["cut", "flip", "flips", "zeros"])
def test_damage_is_damage(how: str) -> None:
    content = bytes(range(1, 256)) * 4
    spoilt = damage(content, how, np.random.default_rng(0))
    assert spoilt != content
    assert len(spoilt) == len(content) or how == "cut"


def test_a_damaged_line_of_metrics_is_named_and_a_torn_last_one_left_out(experiment: Path) -> None:
    path = sorted(experiment.glob("trials/*/metrics.jsonl"))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines)[:-1])
    assert len(read_reports(path.parent)) == len(lines) - 1
    worse = lines[-2].replace(b'"valid/MAE": ', b'"valid/MAE": 1')
    path.write_bytes(b"".join([*lines[:-2], worse, lines[-1]]))
    expected = (
        f"{path}: line {len(lines) - 1} is damaged (BrokenSealError: its checksum is of something else); "
        "put back a copy of the file, or take the line out to do without that epoch"
    )
    with pytest.raises(DamagedError, match=f"^{re.escape(expected)}$"):
        Experiment(experiment).curves  # noqa: B018
    path.write_bytes(b"".join([*lines[:-2], lines[-1]]))
    assert len(read_reports(path.parent)) == len(lines) - 1
    assert Experiment(experiment).curves.num_rows


def test_metrics_that_have_lost_their_end_are_refused(experiment: Path) -> None:
    """The study knows that there was more: without it, another epoch would pass for the best."""
    path = sorted(experiment.glob("trials/*/metrics.jsonl"))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    expected = (
        f"{path}: has lost its end: it has 3 fusion epochs of 4; put back a copy of it, or take the trial's folder "
        "away to do without its epochs"
    )
    with pytest.raises(DamagedError, match=f"^{re.escape(expected)}$"):
        Experiment(experiment).trials  # noqa: B018
    shutil.rmtree(path.parent)
    assert Experiment(experiment).trials.num_rows == 6


def test_a_journal_that_has_lost_its_end_is_refused_and_no_trial_is_thrown_away(experiment: Path) -> None:
    journal = experiment / "optuna.journal"
    journal.write_bytes(journal.read_bytes()[: journal.stat().st_size // 2])
    repair_journal(experiment)
    expected = (
        rf"{re.escape(str(journal))}: has lost its end: it knows [2-5] trials, but trials/ has number 5; put back"
    )
    with pytest.raises(SearchError, match=f"^{expected} a copy of it, or take away the folders of trials"):
        Experiment(experiment).trials  # noqa: B018
    assert len(list(experiment.glob("trials/*"))) == 6


@pytest.mark.parametrize("spoilt", [b'{"op_code"?', b'{"op_code":9}'[:-1]])
def test_a_damaged_last_line_of_a_journal_is_not_passed_over(experiment: Path, spoilt: bytes) -> None:
    journal = experiment / "optuna.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + spoilt + b"\n")
    with pytest.raises(SearchError, match=f"^{re.escape(str(journal))}: damaged \\(JSONDecodeError: "):
        Experiment(experiment).trials  # noqa: B018


def test_what_others_append_to_a_journal_needs_no_seal(experiment: Path) -> None:
    """As optuna-dashboard does, for which a note is an attribute of the study."""
    journal = experiment / "optuna.journal"
    with journal.open("a") as file:
        file.write('{"op_code":3,"worker_id":"other","study_id":0,"system_attr":{"note":"good"}}\n')
    assert Experiment(experiment).trials.num_rows == 6


def test_a_damaged_checkpoint_is_taken_away_and_what_is_before_it_taken(
    whole: dict[str, Subject], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole["checkpoint"].folder, tmp_path / "trial"))
    newest = latest_checkpoint(folder)
    assert newest is not None
    before = Path(shutil.copytree(newest, newest.with_name("epoch_000001")))
    path = newest / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    said = f"{path}: damaged (its checksum is of something else); the trial goes on from what is before it"
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        assert latest_checkpoint(folder) == before
    assert not newest.exists()
    (before / "random.safetensors").unlink()
    with pytest.warns(UserWarning, match=re.escape(f"{before / 'random.safetensors'}: missing; the trial goes on")):
        assert latest_checkpoint(folder) is None


def test_damaged_weights_are_named(whole: dict[str, Subject], tmp_path: Path) -> None:
    trial = Path(shutil.copytree(whole["trial"].folder, tmp_path / "trial"))
    model = Path(shutil.copytree(whole["exported model"].folder, tmp_path / "model"))
    for path, open_it, remedy in (
        (trial / "best" / "model.safetensors", Predictor.open, ""),
        (model / "model.safetensors", DeepMLF.from_pretrained, "; export the model again"),
    ):
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
        expected = f"{path}: damaged (its checksum is of something else){remedy}"
        with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
            open_it(path.parent if path.parent.name == "model" else trial)


def test_a_damaged_split_is_named_where_it_is_used_and_nowhere_else(whole: dict[str, Subject], tmp_path: Path) -> None:
    data = Path(shutil.copytree(whole["dataset"].folder, tmp_path / "data"))
    model = Predictor.open(whole["exported model"].folder)
    path = data / "test.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    expected = f"{path}: damaged (its checksum is of something else); import the dataset again"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        model.predict(Dataset.open(data), "test")
    assert model.predict(Dataset.open(data), "valid").num_rows == 24
    open_material(str(data))
    (data / "valid.arrow").write_bytes((data / "train.arrow").read_bytes())
    with pytest.raises(DataError, match=r"valid\.arrow: damaged \(its checksum"):
        open_material(str(data))
    with pytest.raises(DataError, match=r"valid\.arrow: damaged \(its checksum"):
        Trainer(TrialConfig.from_overrides(SMALL, {"data.path": str(data)}), tmp_path / "out")


def test_a_damaged_manifest_says_so(experiment: Path) -> None:
    path = experiment / "search.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 2'))
    expected = f"{path}: damaged, or of another version (its checksum is of something else)"
    with pytest.raises(DeepMLFError, match=f"^{re.escape(expected)}$"):
        Experiment(experiment)
