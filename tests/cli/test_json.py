"""`--json`: stdout has one JSON object as its schema describes it, and nothing else; `--quiet`."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks.parts.served import served
from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.cli import cli
from deepmlf.cli.output import emit
from deepmlf.cli.schemas.commands import BY_COMMAND, json_schemas
from deepmlf.data.dataset import Dataset
from tests.command import deepmlf
from tests.data.extract.clips import tone, write_clip
from tests.data.mmsa_split import make_split
from tests.model.small_lm import make_folder

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
BASE = {"model.fusion_depth": 1, "model.av_frames": 6, "model.av_layers": 1, "curriculum.name": "joint"}


def space(trial):
    print("a space's own print")
    return {"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 4, 5)}
"""
OWN = 'METRICS = {"worst": (lambda said, labels: abs(said - labels).max(), "minimize")}\n'
SMALL = ("--set", "model.language_model=tiny-random", "--set", "model.fusion_depth=1", "--set", "training.epochs=1")


def checked(command: str, stdout: str) -> dict[str, Any]:
    """What a command has printed, all of it, if its schema admits it."""
    assert stdout.endswith("}\n")
    assert stdout.count("\n") == 1
    said: dict[str, Any] = json.loads(stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    BY_COMMAND[command].model_validate(said, strict=True)
    return said


def said(command: str, *arguments: str | Path) -> dict[str, Any]:
    """What a command says with `--json`."""
    result = deepmlf(*command.split(), *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return checked(command, result.stdout)


def leaves(group: click.Group, *before: str) -> dict[str, click.Command]:
    """Commands by their words."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        words = (*before, name)
        found |= leaves(command, *words) if isinstance(command, click.Group) else {" ".join(words): command}
    return found


def test_every_command_has_both_options_and_a_schema() -> None:
    assert leaves(cli).keys() == BY_COMMAND.keys()
    for command in leaves(cli).values():
        assert {"--json", "--quiet"} <= {option for parameter in command.params for option in parameter.opts}


def test_the_schemas_of_the_docs_are_those_of_the_code() -> None:
    """`python -m deepmlf.cli.schemas.commands > docs/schemas.json` writes them."""
    assert json.loads((ROOT / "docs" / "schemas.json").read_text()) == json_schemas()
    for schema in json_schemas().values():
        objects = [schema, *schema.get("$defs", {}).values()]
        assert all("description" in field for one in objects for field in one["properties"].values())


def test_commands_on_data(tmp_path: Path) -> None:
    said("data synthetic", tmp_path / "synthetic", "--size", "8")
    splits = {name: make_split() for name in ("train", "valid", "test")}
    (tmp_path / "MOSI.pkl").write_bytes(pickle.dumps(splits))
    assert said("data import", tmp_path / "MOSI.pkl", tmp_path / "mosi")["splits"]["train"] == len(
        splits["train"]["id"]
    )
    (tmp_path / "own.py").write_text(OWN)
    assert said("data metrics", tmp_path / "mosi", tmp_path / "own.py") == {"metrics": {"worst": "minimize"}}
    assert said("data info", tmp_path / "mosi", "--lm", "tiny-random")["tokens"]
    moods = {name: split | {"annotations": ["joy", "fear"] * (len(split["id"]) // 2) + ["joy"] * (len(split["id"]) % 2)}
             for name, split in splits.items()}  # fmt: skip
    (tmp_path / "moods.pkl").write_bytes(pickle.dumps(moods))
    said("data import", tmp_path / "moods.pkl", tmp_path / "moods", "--task", "classification", "--dataset", "moods")
    said("data info", tmp_path / "moods")


def test_clips(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "good.wav", (), tone(0.2))
    words = (tmp_path / "clips", tmp_path / "out", "--only", "audio")
    assert said("data extract", *words)["extracted"] == ["good"]


@pytest.mark.usefixtures("own_home")
def test_a_language_model(tmp_path: Path) -> None:
    assert said("lm get", make_folder(tmp_path / "lm"))["layers"] > 0


def test_a_trial(small_data: Path, small_trial: Path, small_export: Path, tmp_path: Path) -> None:
    assert said("train", small_data, *SMALL, "--out", tmp_path / "trial")["valid"]
    assert "MAE" in said("evaluate", small_trial)
    said("evaluate", small_trial, small_data, "--split", "train")
    said("export", small_trial, tmp_path / "export")
    assert said("predict", small_export, small_data, "--out", tmp_path / "p.parquet")["utterances"] == 24
    utterance = Dataset.open(small_data).split("test").ids[0]
    said("explain", small_export, small_data, "--id", utterance, "--out", tmp_path / "e.html")


def test_a_checkpoint_of_the_authors_code(shared: Path, tmp_path: Path) -> None:
    case = shared / "parity" / "llama_depth3_tokens3"
    said("import-reference", f"{case}.safetensors", f"{case}.json", tmp_path / "model")


@pytest.mark.parametrize(
    "settings",
    [
        {"trials": 8, "failed": (1,), "running": 1},
        {"trials": 6, "space": "ablations/depth", "scheduler": "none"},
        {"trials": 6, "objectives": ["valid/MAE", "model/trained_parameters"], "scheduler": "none"},
        {"trials": 2, "refused": (0, 1)},
    ],
    ids=["all states", "a grid", "two objectives", "nothing"],
)
def test_an_experiment(tmp_path: Path, settings: dict[str, Any]) -> None:
    experiment = make_experiment(tmp_path, settings.pop("trials"), epochs=4, **settings)
    assert len(said("analyze", experiment)["leaderboard"]) == sum(said("analyze", experiment)["states"].values())


@pytest.mark.ray
def test_a_search(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    words = ("--space", tmp_path / "mine.py", "--lm", "tiny-random", "--trials", "2", "--epochs", "1")
    where = ("--scheduler", "none", "--storage", tmp_path, "--name", "first")
    summary = said("search", small_data, *words, *where)
    assert summary["states"]["COMPLETE"] == 2
    assert said("resume", tmp_path / "first")["value"] == summary["value"]
    assert len(said("confirm", tmp_path / "first", "--top", "2", "--seeds", "2")["settings"]) == 2
    said("analyze", tmp_path / "first")
    quiet = deepmlf("resume", tmp_path / "first", "--quiet")
    assert quiet.stderr == ""
    assert "deepmlf confirm" not in quiet.stdout
    assert quiet.stdout.splitlines()[-1] == f"table: {tmp_path / 'first' / 'results.parquet'}"


@pytest.mark.ray
@pytest.mark.slow
def test_what_ray_and_workers_print_is_not_among_it(tmp_path: Path, small_data: Path) -> None:
    """In a process of its own, whose descriptors are those of its children, too."""
    (tmp_path / "mine.py").write_text(SPACE)
    words = [small_data, "--space", tmp_path / "mine.py", "--lm", "tiny-random", "--trials", "1", "--epochs", "1"]
    words += ["--storage", tmp_path, "--name", "first", "--verbose", "--json"]
    command = [sys.executable, "-m", "deepmlf", "search", *map(str, words)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    checked("search", result.stdout)
    assert "a space's own print" in result.stderr
    assert "Trials of first" in result.stderr  # the table for people


@pytest.mark.slow
def test_a_server(tmp_path: Path) -> None:
    with served(make_experiment(tmp_path, 2, epochs=4, events=True)) as server:
        checked("tensorboard", json.dumps({"url": server.url}) + "\n")


def test_below_python_stdout_is_not_ours(tmp_path: Path) -> None:
    """What a library or a child process writes to descriptor 1 goes to stderr, before and after the object."""
    code = (
        "import os, sys, click\n"
        "from deepmlf.cli.output import as_json, emit\n"
        "@click.command()\n"
        "@as_json\n"
        "def command(json_output):\n"
        "    os.write(1, b'library\\n'); print('python'); os.system('echo child')\n"
        "    emit({'a': 1}, json_output)\n"
        "    os.write(1, b'late\\n')\n"
        "command.main(sys.argv[1:], standalone_mode=False)\n"
        "print('afterwards')\n"
    )

    def run(*options: str) -> tuple[str, str]:
        command = [sys.executable, "-c", code, *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        return done.stdout, done.stderr

    assert run("--json") == ('{"a": 1}\nafterwards\n', "library\npython\nchild\nlate\n")
    assert run("--json", "--quiet") == ('{"a": 1}\nafterwards\n', "")
    assert run()[0] == "library\npython\nchild\nlate\nafterwards\n"


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (-float("inf"), True)}}, True)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": [None, True]}}


def test_quiet_says_the_result_and_nothing_else(small_data: Path, tmp_path: Path) -> None:
    told = deepmlf("train", small_data, *SMALL, "--out", tmp_path / "told")
    quiet = deepmlf("train", small_data, *SMALL, "--out", tmp_path / "quiet", "--quiet")
    assert "deepmlf: trains on" in told.stderr
    assert quiet.stderr == ""
    result = told.stdout.removeprefix(f"{tmp_path / 'told'}: valid/Has0_acc_2 ")
    assert quiet.stdout == f"{tmp_path / 'quiet'}: valid/Has0_acc_2 {result}"
    experiment = make_experiment(tmp_path, 4, epochs=4)
    assert "deepmlf confirm" in deepmlf("analyze", experiment).stdout
    assert "deepmlf confirm" not in deepmlf("analyze", experiment, "--quiet").stdout


def test_errors_are_told_with_quiet_too(tmp_path: Path) -> None:
    result = deepmlf("analyze", tmp_path / "none", "--json", "--quiet")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"deepmlf: {tmp_path / 'none'}: ")
