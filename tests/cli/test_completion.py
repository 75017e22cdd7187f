"""What the shell offers at TAB, asked for as click's scripts do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from deepmlf.cli import cli
from deepmlf.data.dataset import add_metrics
from deepmlf.data.synthetic import make_synthetic
from deepmlf.tune.names import SAMPLERS, SCHEDULERS, known_spaces

ROOT = Path(__file__).resolve().parents[2]


def offered(*words: str) -> list[tuple[str, str]]:
    """Kinds and values for the last word; of kind ``dir`` and ``file`` the shell looks by itself."""
    completion = ShellComplete(cli, {}, "deepmlf", "_DEEPMLF_COMPLETE")
    return [(item.type, item.value) for item in completion.get_completions(list(words[:-1]), words[-1])]


def names(*words: str) -> list[str]:
    return [value for kind, value in offered(*words) if kind == "plain"]


@pytest.mark.parametrize(
    "words",
    [
        ("search", ""), ("train", ""), ("data", "info", ""), ("resume", ""), ("confirm", ""), ("analyze", ""),
        ("tensorboard", ""), ("evaluate", ""), ("evaluate", "trial", ""), ("export", ""), ("predict", ""),
        ("predict", "model", ""), ("explain", ""), ("search", "--storage", ""), ("search", "--warm-start", ""),
        ("search", "--around", ""), ("export", "trial", "out", "--data", ""),
    ],
    ids=" ".join,
)  # fmt: skip
def test_places_are_folders(words: tuple[str, ...]) -> None:
    assert offered(*words)[0] == ("dir", "")


@pytest.mark.parametrize(
    "words",
    [
        ("data", "import", "MO"), ("data", "import", "a", "MO"), ("train", "set", "--config", "MO"),
        ("search", "--space", "MO"), ("search", "--lm", "MO"), ("import-reference", "MO"),
        ("predict", "model", "data", "--out", "MO"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_files_are_files(words: tuple[str, ...]) -> None:
    assert offered(*words)[0] == ("file", "MO")


def test_names_are_those_that_there_are() -> None:
    assert names("search", "--space", "") == known_spaces()
    assert names("search", "--space", "published/") == [
        "published/mosei", "published/mosei_large", "published/mosi", "published/sims",
    ]  # fmt: skip
    assert names("search", "--sampler", "") == list(SAMPLERS)
    assert names("search", "--scheduler", "") == list(SCHEDULERS)
    assert names("search", "--sampler", "c") == ["curves", "cmaes"]
    assert names("search", "--around", "mosei") == ["mosei", "mosei_large"]
    assert names("search", "--lm", "smollm2-135m-") == ["smollm2-135m-instruct-q4_1"]
    assert names("lm", "get", "tiny") == ["tiny-random"]
    assert names("search", "--set", "model.fusion_d") == ["model.fusion_depth="]
    assert names("evaluate", "x", "--split", "") == ["train", "valid", "test"]
    assert names("train", "set", "--recipe", "") == ["authors"]
    assert names("predict", "model", "data", "--device", "c") == ["cpu", "cuda"]
    assert names("data", "import", "x", "y", "--dataset", "mos") == ["mosi", "mosei"]
    assert "search" in names("")
    assert "info" in names("data", "")
    assert {"--json", "--quiet"} <= set(names("analyze", "--"))


def test_metrics_are_those_of_the_dataset(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "set", sizes=(4, 2, 2))
    (tmp_path / "own.py").write_text('METRICS = {"worst": (lambda said, labels: abs(said - labels).max(), "minimize")}')
    add_metrics(tmp_path / "set", tmp_path / "own.py")
    assert names("search", str(tmp_path / "set"), "--objective", "valid/wo") == ["valid/worst"]
    assert names("search", "--objective", "valid/wo") == []
    assert names("search", "--objective", "valid/M") == [
        "valid/Mult_acc_5", "valid/Mult_acc_7", "valid/MAE", "valid/Mult_acc_2", "valid/Mult_acc_3",
    ]  # fmt: skip
    assert names("search", "--objective", "model") == []  # picks no best epoch
    assert names("search", "--objective", "valid/MAE,m") == ["valid/MAE,model/trained_parameters"]
    assert "valid/MAE,valid/MAE" not in names("search", "--objective", "valid/MAE,")
    assert names("search", "s3://bucket/set", "--objective", "valid/Has0_F") == ["valid/Has0_F1_score"]


def test_the_shell_gets_names_and_waits_for_nothing_heavy() -> None:
    """A process as the script in bash starts it, which must not import torch, Ray or Optuna."""
    code = (
        "import atexit, sys; sys.argv[0] = 'deepmlf'; from deepmlf.cli import main;"
        "heavy = ('torch', 'ray', 'optuna', 'transformers');"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules])); main([])"
    )
    for line, expected in (("deepmlf search --sampler t", "plain,tpe"), ("deepmlf search --space de", "plain,demo"),
                           ("deepmlf search --objective valid/C", "plain,valid/Corr")):  # fmt: skip
        asked = {"_DEEPMLF_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "3"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked, cwd=ROOT
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-2:] == [expected, "[]"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    """What the documented line asks the command for."""
    code = "import sys; sys.argv[0] = 'deepmlf'; from deepmlf.cli import main; main([])"
    asked = os.environ | {"_DEEPMLF_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=asked, cwd=ROOT)
    assert f"_DEEPMLF_COMPLETE={shell}_complete" in done.stdout, done.stderr
