"""A head whose loss did not count is no evidence: it is absent from what a model says, and that is said."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from deepmlf.analysis.report.explain_page import explain_page
from deepmlf.cli import cli
from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.inference.explain import explain
from deepmlf.inference.export import export_trial
from deepmlf.inference.predictor import Predictor
from deepmlf.training.curriculum import silent_heads
from tests.model.small_lm import make_folder
from tests.training.small_trial import run

LM = {"model__fusion_depth": 1, "model__cross_attention_heads": 2, "training__epochs": 1, "curriculum__name": "joint"}
NOTES = [
    "the text head says nothing: its loss did not count (training.loss_text=0)",
    "the av head says nothing: its loss did not count (training.loss_av=0)",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> tuple[Path, Path]:
    """A trial in which two heads did not count, and its export."""
    root = tmp_path_factory.mktemp("silent")
    lm = str(make_folder(root / "lm"))
    run(root / "trial", small_data, model__language_model=lm, training__loss_av=0, training__loss_text=0, **LM)
    export_trial(root / "trial", root / "export")
    return root / "trial", root / "export"


@pytest.mark.parametrize(
    ("settings", "silent"),
    [
        ({}, ()),
        ({"training.loss_av": 0.0}, ("av",)),
        ({"training.loss_av": 0.0, "curriculum.name": "joint"}, ("av",)),
        ({"training.loss_av": 0.0, "curriculum.name": "av_frozen"}, ()),  # trained, and its encoder has not moved
        ({"training.loss_text": 0.0, "curriculum.name": "unimodal_first"}, ("text",)),  # its states have
        ({"training.loss_text": 0.0, "training.loss_fusion": 0.0}, ("text", "fusion")),
    ],
)
def test_which_heads_are_silent(settings: dict[str, object], silent: tuple[str, ...]) -> None:
    assert silent_heads(TrialConfig.from_overrides(settings)) == silent


@pytest.mark.parametrize("which", [0, 1])
def test_predict_leaves_them_empty_and_says_so(
    folders: tuple[Path, Path], small_data: Path, tmp_path: Path, which: int
) -> None:
    out = tmp_path / "p.parquet"
    result = CliRunner().invoke(cli, ["predict", str(folders[which]), str(small_data), "--out", str(out)])
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if line.startswith("deepmlf: ")]
    assert notes == [f"deepmlf: {note}" for note in NOTES]
    table = pq.read_table(out)
    for head, nulls in (("text", 24), ("av", 24), ("fusion", 0)):
        assert table[f"sentiment_{head}"].null_count == nulls
        assert str(table.schema.field(f"sentiment_{head}").type) == "float"
    assert table["sentiment"].null_count == 0


@pytest.mark.parametrize("which", [0, 1])
def test_explain_has_none_of_them(folders: tuple[Path, Path], small_data: Path, tmp_path: Path, which: int) -> None:
    predictor = Predictor.open(folders[which])
    assert list(predictor.notes) == NOTES
    explanation = explain(predictor, Dataset.open(small_data), "test_3")
    assert {head for head, value in explanation.predictions.items() if value is None} == {"text", "av"}
    page = explain_page(explanation)
    assert '<th scope="row">Audio and vision alone</th>' not in page
    assert '<th scope="row">Words alone</th>' not in page
    assert "Left out, as the loss of that head did not count in training: text, av." in page
    command = ["explain", str(folders[which]), str(small_data), "--id", "test_3", "--out", str(tmp_path / "e.html")]
    result = CliRunner().invoke(cli, [*command, "--json"])
    notes = [line for line in result.stderr.splitlines() if line.startswith("deepmlf: ")]
    assert notes == [f"deepmlf: {note}" for note in NOTES]
    said = json.loads(result.stdout.splitlines()[-1])["predictions"]
    assert (said["av"], said["text"]) == (None, None)
    assert said["task"] == explanation.predictions["task"]
