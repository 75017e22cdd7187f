"""The command line: errors as one line with exit status 2, and JSON for scripts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.cli import cli, refusal
from deepmlf.cli.search import _end_search
from deepmlf.errors import CheckpointError, ConfigError
from deepmlf.model import lm_store
from deepmlf.training.checkpoints.files import read_metadata
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.plan import Material
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.summary import SearchSummary
from tests.command import deepmlf

ROOT = Path(__file__).resolve().parent.parent


def assert_refused(result: subprocess.CompletedProcess[str], text: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("deepmlf: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_user_errors_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deepmlf", "data", "info", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200, check=False)
    assert_refused(process, "not an imported dataset")
    debugged = subprocess.run([*command[:3], "--debug", *command[3:]], capture_output=True, text=True, check=False)
    assert "Traceback (most recent call last)" in debugged.stderr
    assert debugged.stderr.endswith(process.stderr)
    assert_refused(deepmlf("data", "info", tmp_path), "not an imported dataset")
    misspelt = deepmlf("train", tmp_path, "--set", "model.depth=3")
    assert_refused(misspelt, "model.depth: no such setting (did you mean model.fusion_depth?); model has ")
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
        ("--seed", "-1", "0<=x<=4294967295"),
        ("--cache-gb", "-1", "x>=0"),
        ("--trials", "0", "x>=1"),
    ],
)
def test_numbers_out_of_range_are_refused(option: str, value: str, allowed: str) -> None:
    result = CliRunner().invoke(cli, ["search", option, value])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output
    assert f"is not in the range {allowed}" in result.output


class _Asked(Exception):
    pass


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> SearchSettings:
    """The settings of the search that a command line asks for."""

    def stop(settings: SearchSettings, material: Material) -> None:
        raise _Asked(settings)

    monkeypatch.setattr("deepmlf.tune.plan.plan_search", stop)
    result = CliRunner().invoke(cli, ["search", *map(str, arguments)])
    assert isinstance(result.exception, _Asked), result.output
    return result.exception.args[0]


def test_a_grid_has_as_many_trials_as_points_unless_told(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [small_data, "--lm", "tiny-random"]
    assert asked(monkeypatch, *words).trials == 20
    assert "trials" not in asked(monkeypatch, *words, "--sampler", "grid").model_fields_set
    assert "trials" in asked(monkeypatch, *words, "--sampler", "grid", "--trials", "20").model_fields_set


def test_priors_and_rungs_are_the_commands_to_choose(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [small_data, "--lm", "tiny-random"]
    default = asked(monkeypatch, *words)
    assert (default.priors, default.first_rung, default.reduction_factor) == (True, 3, 3)
    chosen = asked(monkeypatch, *words, "--no-priors", "--first-rung", "2", "--reduction-factor", "4")
    assert (chosen.priors, chosen.first_rung, chosen.reduction_factor) == (False, 2, 4)


def test_the_demo_keeps_no_more_layers_than_there_are(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    shutil.copytree(small_data, tmp_path / "data" / "synthetic")
    demo = asked(monkeypatch, "--lm", "tiny-random")
    assert (demo.trials, demo.overrides) == (8, {"model.lm_layers": 4})
    assert "trials" not in asked(monkeypatch, "--lm", "tiny-random", "--sampler", "grid").model_fields_set


def test_what_an_option_sets_is_refused_before_a_language_model_is_fetched(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_store, "get", lambda *args, **options: pytest.fail("fetched"))
    words = ["search", str(small_data), "--set", "model.language_model=gpt2"]
    told = "--set model.language_model: is one for all trials of a search; use --lm"
    with pytest.raises(ConfigError, match=f"^{told}$"):
        CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("has_best", [False, True])
def test_a_search_that_ends_names_its_best_trial_if_it_has_one(
    has_best: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = open_experiment(make_experiment(tmp_path, 1, running=0 if has_best else 1))
    summary = SearchSummary(
        experiment="runs/search", best_trial=None, metric="valid/MAE", value=None, front=[], config={}, states={},
        seconds=1.0, fusion_epochs_spent=0, fusion_epochs_full=9, trial_seconds=1.0, trial_seconds_before_fusion=0.0,
        interrupted=True, out_of_time=True, stop_reason=None,
        exhausted=False,
    )  # fmt: skip
    _end_search(summary, experiment, json_output=False)
    told = capsys.readouterr()
    assert told.err == "the time budget is spent; go on with `deepmlf resume runs/search`\n"
    best = experiment.place_of_trial(0)
    named = f"Test metrics of the best: deepmlf evaluate {best} --split test\n" if has_best else ""
    looks = f"What came of it: deepmlf analyze {experiment.place}\n"
    assert told.out.endswith(f"parquet\nTensorBoard: deepmlf tensorboard runs/search\n{looks}{named}")


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


def test_train_refuses_before_it_writes(tmp_path: Path) -> None:
    assert deepmlf("data", "synthetic", tmp_path / "set", "--size", "40").returncode == 0
    tiny = ("--set", "model.language_model=tiny-random", "--set", "model.fusion_depth=2")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert_refused(deepmlf("train", tmp_path / "empty", *tiny, "--out", out), "not an imported dataset")
    too_deep = (*tiny, "--set", "model.fusion_layers=[99]")
    assert_refused(deepmlf("train", tmp_path / "set", *too_deep, "--out", out), "99")
    for place in ("set", "file"):
        refused = deepmlf("train", tmp_path / "set", *tiny, "--out", tmp_path / place)
        assert_refused(refused, f"{tmp_path / place}: holds something that is not a trial; choose another --out")
    for setting, message in (
        ("data.path=x", "data.path=x: is given as DATA; leave it out"),
        ("training.seed=99999999999999999999999", "training.seed=99999999999999999999999: Input should be less than"),
        ("model.gate_init=inf", "model.gate_init=inf: Input should be a finite number"),
        ("model.language_model=", "model.language_model='': String should have at least 1 character"),
    ):
        assert_refused(deepmlf("train", tmp_path / "set", *tiny, "--set", setting, "--out", out), message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "set"]


@pytest.mark.parametrize("damage", [b"[]", b"\xff\xfe{}", b'{"name": "mo'])
def test_damaged_files_are_named_on_one_line(tmp_path: Path, damage: bytes) -> None:
    experiment = make_experiment(tmp_path, 3)
    metrics = next(experiment.glob("trials/0000_*")) / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(damage + b"\n" + whole)
    assert_refused(deepmlf("analyze", experiment), "metrics.jsonl: line 1 is damaged (")
    metrics.write_bytes(whole)
    (experiment / "optuna.journal").write_bytes(damage + b"\n")
    assert_refused(deepmlf("analyze", experiment), "optuna.journal: damaged (")
    (experiment / "search.json").write_bytes(damage)
    for command in ("analyze", "resume"):
        assert_refused(deepmlf(command, experiment), "search.json: damaged, or of another version (")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "info.json").write_bytes(damage)
    assert_refused(deepmlf("data", "info", tmp_path / "set"), "info.json: damaged (")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "state.json").write_bytes(damage)
    with pytest.raises(CheckpointError, match="state.json: damaged "):
        read_metadata(tmp_path / "best")


def test_synthetic_train_evaluate(tmp_path: Path) -> None:
    result = deepmlf("data", "synthetic", tmp_path / "set", "--size", "40", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["splits"] == {"train": 40, "valid": 10, "test": 10}
    sets = ["model.language_model=tiny-random", "model.fusion_depth=2", "training.epochs=2", "curriculum.av_epochs=1"]
    options = [part for pair in sets for part in ("--set", pair)]
    result = deepmlf("train", tmp_path / "set", *options, "--out", tmp_path / "trial", "--json")
    assert result.returncode == 0, result.stderr
    assert "av epoch 1 of 1: loss " in result.stderr
    assert "fusion epoch 2 of 2: " in result.stderr
    assert "fusion epoch 3" not in result.stderr  # it is the third of all, and has two
    valid = json.loads(result.stdout.splitlines()[-1])["valid"]
    assert deepmlf("train", tmp_path / "set", *options, "--out", tmp_path / "trial").returncode == 0
    events = EventAccumulator(str(tmp_path / "trial")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert [event.step for event in events.Scalars("valid/MAE")] == [1, 2]
    assert [event.step for event in events.Scalars("pre_fusion/train/loss")] == [1]
    other = [part.replace("epochs=2", "epochs=3") for part in options]
    refused = deepmlf("train", tmp_path / "set", *other, "--out", tmp_path / "trial")
    assert_refused(refused, f"{tmp_path / 'trial'}: holds a trial begun with training.epochs=2; choose another --out")
    again = deepmlf("train", tmp_path / "set", *options, "--out", tmp_path / "trial", "--json")
    assert json.loads(again.stdout.splitlines()[-1])["valid"] == pytest.approx(valid)
    result = deepmlf("evaluate", tmp_path / "trial", "--split", "valid", "--json")
    evaluated = json.loads(result.stdout.splitlines()[-1])
    assert evaluated["MAE"] == pytest.approx(valid["MAE"], abs=1e-6)
    assert (evaluated["split"], evaluated["utterances"]) == ("valid", 10)
    epoch = evaluated["fusion_epoch"]
    assert f"valid split, 10 utterances; fusion epoch {epoch}, the trial's best on valid\n" in result.stderr
    beside = json.loads(again.stdout.splitlines()[-1])["baselines"]
    assert list(beside) == [
        "constant", "words", "audio and vision", "language model", "language model, audio and vision", "text head",
    ]  # fmt: skip
    assert "deepmlf: baselines, valid/MAE: constant " in again.stderr
    for name, metrics in evaluated["baselines"].items():
        assert metrics == pytest.approx(beside[name], abs=1e-6)
        assert f"{name} {metrics['MAE']:.4f}" in result.stderr


def test_import_reference(shared: Path, tmp_path: Path) -> None:
    case = shared / "parity" / "llama_depth3_tokens3"
    result = deepmlf("import-reference", f"{case}.safetensors", f"{case}.json", tmp_path / "model")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert_refused(deepmlf("import-reference", tmp_path / "no.pt", f"{case}.json", tmp_path / "x"), "no such file")


TINY = ("--set", "model.language_model=tiny-random", "--set", "model.fusion_depth=1")


@pytest.mark.parametrize(
    ("place", "reason"),
    [("/proc/x", "No such file or directory"), ("file/below", "Not a directory"), ("n" * 300, "File name too long")],
)
def test_a_folder_that_cannot_be_is_refused_on_one_line(
    place: str, reason: str, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    where = tmp_path / place
    monkeypatch.setattr("deepmlf.training.trainer.Trainer", lambda *args, **options: pytest.fail("built"))
    assert_refused(
        deepmlf("train", small_data, *TINY, "--out", where),
        f"--out {where}: cannot be written ({reason}); choose another folder",
    )
    search = ("search", small_data, "--lm", "tiny-random", "--space", "demo", "--name", "first")
    assert_refused(deepmlf(*search, "--storage", where), f"--storage {where / 'first'}: cannot be written ({reason})")
    for command in (("predict",), ("explain", "--id", "0")):
        told = deepmlf(*command, "no-model", small_data, "--out", where / "out")
        assert_refused(told, f"--out {where / 'out'}: cannot be written ({reason})")
    analyzed = deepmlf("analyze", make_experiment(tmp_path, 3), "--out", where)
    assert_refused(analyzed, f"--out {where}: cannot be written ({reason}); choose another folder")


def test_a_name_that_folders_of_trials_cannot_hold_is_refused(small_data: Path, tmp_path: Path) -> None:
    search = ("search", small_data, "--lm", "tiny-random", "--space", "demo", "--storage", tmp_path)
    assert_refused(deepmlf(*search, "--name", "n" * 252), "--name: must be at most 200 characters, but got 252")


def test_what_the_system_refuses_is_one_line_and_a_stack_only_with_debug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path / "file"))
    told = deepmlf("lm", "get", "smollm2-135m")
    assert_refused(told, f"{tmp_path / 'file'}/lms: Not a directory; set DEEPMLF_HOME to a folder that can be written")
    debugged = deepmlf("--debug", "lm", "get", "smollm2-135m")
    assert "Traceback (most recent call last)" in debugged.stderr
    assert debugged.stderr.endswith(told.stderr)
    assert refusal(OSError("no file at all\nand more")) == "no file at all"
    assert refusal(PermissionError(13, "Permission denied", "/elsewhere")) == "/elsewhere: Permission denied"


def test_a_device_that_cannot_be_used_is_refused(small_trial: Path, small_data: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    for command in (
        ("evaluate", small_trial),
        ("predict", small_trial, small_data, *out),
        ("explain", small_trial, small_data, "--id", "x", *out),
    ):
        assert_refused(deepmlf(*command, "--device", "cuda:77"), "--device cuda:77: cannot be used here (")
    assert deepmlf("evaluate", small_trial, "--device", "cpu").returncode == 0
