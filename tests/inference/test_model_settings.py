"""A trial under each of the model's settings is trained, resumed, evaluated, exported, predicted from and explained."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepmlf.analysis.report.explain_page import explain_page
from deepmlf.cli import cli
from deepmlf.data.dataset import Dataset, SplitData, write_dataset
from deepmlf.errors import ConfigError
from deepmlf.events.writer import TrialWriter
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.inference.explain import Explanation, explain
from deepmlf.inference.export import export_trial
from deepmlf.inference.predictor import Predictor
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.frame_attention import attention_over_frames
from deepmlf.training.reports import EpochReport
from deepmlf.training.trainer import Trainer
from tests.model.small_lm import make_folder
from tests.training.small_trial import config_of, run, without_times

COMMON = {
    "model__cross_attention_heads": 2,
    "model__fusion_depth": 1,
    "training__epochs": 2,
    "curriculum__name": "joint",
}
CASES: dict[str, dict[str, Any]] = {
    "separate": {"model__fusion_groups": "separate", "model__num_fusion_tokens": 4},
    "no tokens": {"model__num_fusion_tokens": 0, "training__loss_lm": 0.5},
    "no gate": {"model__gate": "none", "model__ffn_on": "fusion"},
    "tanh": {"model__gate": "tanh", "model__gate_init": [-0.5]},
}
WITHOUT_TOKENS = [
    "there is no fusion head: the model has no fusion tokens (model.num_fusion_tokens=0)",
    "the text head does not speak for the words alone: without fusion tokens they attend to audio and vision",
]


@dataclass
class Trained:
    name: str
    settings: dict[str, Any]
    folder: Path
    reports: list[dict[str, Any]]
    export: Path

    def explained(self, data: Path, utterance: str = "test_3") -> Explanation:
        return explain(Predictor.open(self.export), Dataset.open(data), utterance)


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Trained:
    root = tmp_path_factory.mktemp("settings")
    settings = COMMON | CASES[request.param] | {"model__language_model": str(make_folder(root / "lm"))}
    reports = run(root / "trial", small_data, **settings)
    export_trial(root / "trial", root / "export")
    return Trained(request.param, settings, root / "trial", reports, root / "export")


def test_resume_is_bit_equal(trained: Trained, tmp_path: Path, small_data: Path) -> None:
    first = run(tmp_path, small_data, stop_after=1, **trained.settings)
    rest = run(tmp_path, small_data, resume_from=latest_checkpoint(tmp_path), **trained.settings)
    assert without_times(first + rest[1:]) == without_times(trained.reports)


def test_reports_have_the_losses_and_gates_that_there_are(trained: Trained, tmp_path: Path) -> None:
    names = {name for report in trained.reports for name in report}
    assert ("loss/fusion" in names) == (trained.name != "no tokens")
    gates = {name for name in names if name.startswith("gate/")}
    assert gates == (set() if trained.name == "no gate" else {"gate/0/attention", "gate/0/ffn"})
    shares = trained.reports[-1].get("attention/0") or trained.reports[0]["attention/0"]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    writer = TrialWriter(tmp_path)
    for report in trained.reports:
        writer.write(EpochReport(report), {})
    writer.close("COMPLETE", trained.reports[-1])
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    over_depth = {"gate_over_depth/attention", "gate_over_depth/ffn"} if gates else set()
    assert {tag for tag in tags if tag.startswith("gate")} == gates | over_depth


def test_trial_and_export_predict_the_same(trained: Trained, small_data: Path) -> None:
    dataset = Dataset.open(small_data)
    of_trial, of_export = (Predictor.open(folder) for folder in (trained.folder, trained.export))
    table = of_trial.predict(dataset, "valid")
    assert of_export.predict(dataset, "valid").equals(table)
    assert of_trial.metrics(dataset, table) == pytest.approx(evaluate_trial(trained.folder, split="valid"))
    best = min(report["valid/MAE"] for report in trained.reports)
    assert evaluate_trial(trained.folder, split="valid")["MAE"] == pytest.approx(best, abs=1e-6)
    assert table["sentiment_fusion"].null_count == (24 if trained.name == "no tokens" else 0)
    notes = WITHOUT_TOKENS if trained.name == "no tokens" else []
    assert list(of_export.notes) == list(of_trial.notes) == notes


def test_an_explanation_names_what_attends(trained: Trained, small_data: Path) -> None:
    found = trained.explained(small_data)
    [block] = found.blocks
    assert len(found.tokens) == len(block.weights)
    expected = {"separate": ["audio 1", "vision 1", "shared 1", "shared 2"], "no gate": ["1", "2", "3"],
                "tanh": ["1", "2", "3"]}  # fmt: skip
    if trained.name == "no tokens":
        assert found.attends == "text"
        assert found.predictions["fusion"] is None
        assert [name.split(" ")[0] for name in found.tokens] == [str(i + 1) for i in range(len(found.tokens))]
    else:
        assert found.tokens == expected[trained.name]
    np.testing.assert_allclose(block.weights.sum(1), 1, atol=1e-5)
    gates = trained.name != "no gate"
    assert (block.attention_gate is not None) == (block.ffn_gate is not None) == gates
    page = explain_page(found)
    assert ("Gates by depth" in page) == ("attention gate is" in page) == gates
    assert ("Fusion tokens (mean)" in page) == (trained.name != "no tokens")
    assert ("Where the text tokens look" in page) == (trained.name == "no tokens")
    assert ("Words alone" in page) == (trained.name != "no tokens")


def test_the_commands_take_it(trained: Trained, small_data: Path, tmp_path: Path) -> None:
    places = (str(trained.export), str(small_data))
    commands = [
        ["evaluate", str(trained.folder)],
        ["predict", *places, "--out", str(tmp_path / "p.parquet")],
        ["explain", *places, "--id", "test_3", "--out", str(tmp_path / "e.html")],
    ]
    for command in commands:
        result = CliRunner().invoke(cli, [*command, "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout.splitlines()[-1])


def without_vision(folder: Path, data: Path, first: int | None) -> Path:
    """The same data, in which the first utterances of each split, or all, have no vision."""
    dataset = Dataset.open(data)
    splits = {}
    for name in dataset.info.splits:
        rows = dataset.split(name)
        audio = [rows.audio(row) for row in range(len(rows))]
        vision = [rows.vision(row)[: 0 if first is None or row < first else None] for row in range(len(rows))]
        splits[name] = SplitData(rows.ids, rows.texts, rows.labels, audio, vision)
    dims = (dataset.info.audio_dim, dataset.info.vision_dim)
    write_dataset(folder, dataset.info.name, splits, dims, lowercase=False, task=dataset.info.task)
    return folder


@pytest.mark.parametrize("trained", ["separate"], indirect=True)
def test_a_group_without_its_modality_looks_at_nothing(trained: Trained, small_data: Path, tmp_path: Path) -> None:
    data = without_vision(tmp_path / "data", small_data, first=4)
    dataset = Dataset.open(data)
    assert len(dataset.split("test").audio(3))
    found = trained.explained(data)
    [block] = found.blocks
    sums = dict(zip(found.tokens, block.weights.sum(1), strict=True))
    assert sums == pytest.approx({"audio 1": 1, "vision 1": 0, "shared 1": 1, "shared 2": 1}, abs=1e-5)
    assert "nan" not in explain_page(found).lower().split("</script>")[-1]


def test_attention_over_frames_is_the_mean_over_tokens_that_look(
    trained: Trained, small_data: Path, tmp_path: Path
) -> None:
    """Of utterances without one modality or without both, and of ragged texts."""
    dataset, predictor = Dataset.open(without_vision(tmp_path / "data", small_data, 9)), Predictor.open(trained.export)
    rows = dataset.split("test")
    taken = []
    for name in rows.ids:
        found = explain(predictor, dataset, name)
        [block] = found.blocks
        if found.has_frames:  # real frames come first
            padded = np.pad(block.weights, ((0, 0), (0, 6 - block.weights.shape[1])))
            taken += list(padded[padded.any(1)])
    shares = attention_over_frames(predictor.model, predictor.loader(dataset, "test"), "float32")["attention/0"]
    np.testing.assert_allclose(shares, np.mean(taken, axis=0), atol=2e-5)


def test_groups_are_refused_for_data_that_lack_a_modality(tmp_path: Path, small_data: Path) -> None:
    data = without_vision(tmp_path / "data", small_data, first=None)
    with pytest.raises(ConfigError, match=r"^model.fusion_groups=separate: the dataset has no vision; take shared$"):
        Trainer(config_of(data, model__fusion_groups="separate"), tmp_path / "trial")
    Trainer(config_of(data), tmp_path / "trial")
