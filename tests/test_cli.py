"""The command line: errors as one line with exit status 2, and JSON for scripts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepmlf.cli import cli
from deepmlf.model import lm_store

ROOT = Path(__file__).resolve().parent.parent


def deepmlf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deepmlf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)


def assert_refused(result: subprocess.CompletedProcess[str], text: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("deepmlf: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_user_errors_are_one_line(tmp_path: Path) -> None:
    assert_refused(deepmlf("data", "info", tmp_path), "not an imported dataset")
    assert_refused(deepmlf("train", tmp_path, "--set", "model.depth=3"), "model.depth: no such setting; model has ")
    assert_refused(
        deepmlf("train", tmp_path, "--set", "training.epochs=0"),
        "training.epochs=0: Input should be greater than or equal to 1",
    )
    assert_refused(deepmlf("train", tmp_path, "--set", "nonsense"), "expected NAME=VALUE")
    assert_refused(deepmlf("analyze", tmp_path), "not an experiment (no search.json there)")
    assert_refused(deepmlf("export", tmp_path, tmp_path / "out"), "not a trial's folder (no config.json there)")


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--cpus-per-trial", "0", "x>0"),
        ("--gpus-per-trial", "-1", "x>=0"),
        ("--seed", "-1", "x>=0"),
        ("--cache-gb", "-1", "x>=0"),
        ("--trials", "0", "x>=1"),
    ],
)
def test_numbers_out_of_range_are_refused(option: str, value: str, allowed: str) -> None:
    result = CliRunner().invoke(cli, ["search", option, value])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output
    assert f"is not in the range {allowed}" in result.output


def test_a_language_model_in_a_folder_is_known_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path / "home"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "home" / "lms" / "stored").mkdir(parents=True)
    (tmp_path / "stored").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lm_store.absolute("./mine") == lm_store.absolute("mine") == str(tmp_path / "mine")
    assert [lm_store.absolute(name) for name in ("stored", "owner/hub-id", "tiny-random", "s3://bucket/lm")] == [
        "stored", "owner/hub-id", "tiny-random", "s3://bucket/lm"
    ]  # fmt: skip


def test_synthetic_train_evaluate(tmp_path: Path) -> None:
    result = deepmlf("data", "synthetic", tmp_path / "set", "--size", "40", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["splits"] == {"train": 40, "valid": 10, "test": 10}
    sets = ["model.language_model=tiny-random", "model.fusion_depth=2", "training.epochs=2", "curriculum.av_epochs=1"]
    options = [part for pair in sets for part in ("--set", pair)]
    result = deepmlf("train", tmp_path / "set", *options, "--out", tmp_path / "trial", "--json")
    assert result.returncode == 0, result.stderr
    assert "fusion epoch 3: " in result.stderr
    valid = json.loads(result.stdout.splitlines()[-1])["valid"]
    assert deepmlf("train", tmp_path / "set", *options, "--out", tmp_path / "trial").returncode == 0
    events = EventAccumulator(str(tmp_path / "trial")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("valid/MAE")] == [2, 3]
    other = [part.replace("epochs=2", "epochs=3") for part in options]
    refused = deepmlf("train", tmp_path / "set", *other, "--out", tmp_path / "trial")
    assert_refused(refused, f"{tmp_path / 'trial'}: holds a trial begun with training.epochs=2; choose another --out")
    again = deepmlf("train", tmp_path / "set", *options, "--out", tmp_path / "trial", "--json")
    assert json.loads(again.stdout.splitlines()[-1])["valid"] == pytest.approx(valid)
    result = deepmlf("evaluate", tmp_path / "trial", "--split", "valid", "--json")
    assert json.loads(result.stdout.splitlines()[-1])["MAE"] == pytest.approx(valid["MAE"], abs=1e-6)


def test_import_reference(shared: Path, tmp_path: Path) -> None:
    case = shared / "parity" / "llama_depth3_tokens3"
    result = deepmlf("import-reference", f"{case}.safetensors", f"{case}.json", tmp_path / "model")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert_refused(deepmlf("import-reference", tmp_path / "no.pt", f"{case}.json", tmp_path / "x"), "no such file")
