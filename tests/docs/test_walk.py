"""What a new user does, from a pickle of three real modalities to a model and its predictions, in terminals of several
widths and without one: nothing fails, nothing is wider than the terminal, no number is cut."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import deepmlf
from deepmlf.data.dataset import Dataset

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PICKLE = "mosi_trimodal_31videos.pkl"
SMALL = [
    word
    for setting in ("model.max_text_len=16", "model.av_frames=6", "curriculum.av_epochs=1", "data.train_share=0.1")
    for word in ("--set", setting)
]
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9;]*)?m")
_CUT_NUMBER = re.compile(r"[0-9.]…")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "deepmlf", *words]


def in_terminal(place: Path, columns: int, *words: str, **environment: str) -> str:
    """What a command writes to a terminal so wide, its control codes included."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        command(*words), cwd=place, env=known | {"TERM": "xterm-256color"} | environment,
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    written = b""
    try:
        while chunk := os.read(main, 65536):
            written += chunk
    except OSError:  # Linux's word for the end of a terminal that nobody holds open any more
        pass
    os.close(main)
    text = written.decode(errors="replace")
    assert process.wait() == 0, f"deepmlf {' '.join(words)}:\n{text}"
    return text


def read(text: str, columns: int) -> str:
    """The text without control codes, if it is fit for a reader at that width."""
    plain = _STYLE.sub("", text).replace("\r\n", "\n")
    assert "Traceback" not in plain
    assert not _CUT_NUMBER.search(plain), plain
    too_wide = [line for line in plain.splitlines() if set("│┃└┌") & set(line) and len(line.rsplit("\r")[-1]) > columns]
    assert too_wide == []
    return plain


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Where the walk was walked, in a terminal of 60 columns."""
    place = tmp_path_factory.mktemp("walk")
    for words in (
        ["data", "import", str(shared / "data" / PICKLE), "runs/mosi", "--dataset", "mosi", "--lowercase"],
        ["lm", "get", "tiny-random"],
        ["train", "runs/mosi", "--set", "model.language_model=tiny-random", "--set", "training.epochs=1", *SMALL,
         "--set", "model.fusion_depth=1", "--out", "runs/one"],
        ["search", "runs/mosi", "--lm", "tiny-random", "--space", "demo", "--trials", "3", "--epochs", "2",
         "--scheduler", "none", "--concurrent", "2", "--name", "first", *SMALL],
    ):  # fmt: skip
        read(in_terminal(place, 60, *words), 60)
    return place


@pytest.fixture(scope="module")
def best(place: Path) -> str:
    """The best trial's folder."""
    found = subprocess.run(command("analyze", "runs/first", "--json"), cwd=place, capture_output=True, check=True)
    return str(json.loads(found.stdout)["best_folder"])


def test_the_way_to_a_model_of_ones_own(place: Path, best: str) -> None:
    some_id = Dataset.open(place / "runs" / "mosi").split("test").ids[0]
    for words in (
        ["data", "info", "runs/mosi", "--lm", "tiny-random"],
        ["evaluate", "runs/one", "--split", "valid"],
        ["export", best, "runs/model"],
        ["predict", "runs/model", "runs/mosi", "--out", "runs/predictions.parquet"],
        ["explain", "runs/model", "runs/mosi", "--id", some_id],
    ):
        read(in_terminal(place, 60, *words), 60)
    assert (place / "runs" / "model" / "config.json").is_file()
    assert (place / "runs" / "predictions.parquet").is_file()


@pytest.mark.parametrize(
    "columns", [60, pytest.param(80, marks=pytest.mark.long), pytest.param(200, marks=pytest.mark.long)]
)
def test_what_came_of_it_is_whole_at_every_width(place: Path, best: str, columns: int) -> None:
    said = read(in_terminal(place, columns, "analyze", "runs/first"), columns)
    assert "valid/MAE" in said
    for trial in deepmlf.Experiment(place / "runs" / "first").trials.to_pylist():
        assert f"{trial['valid/MAE']:.4f}" in said
    confirmed = read(in_terminal(place, columns, "confirm", "runs/first", "--top", "2", "--seeds", "2"), columns)
    assert "Has0_acc_2" in confirmed
    tested = read(in_terminal(place, columns, "evaluate", best, "--split", "test"), columns)
    assert "test split, 152 utterances; fusion epoch" in tested


def test_it_reads_without_a_terminal_and_without_colour(place: Path, best: str) -> None:
    for words in (["analyze", "runs/first"], ["evaluate", best, "--split", "test"], ["data", "info", "runs/mosi"]):
        done = subprocess.run(command(*words), cwd=place, capture_output=True, text=True, check=True)
        assert "\x1b" not in done.stdout + done.stderr
        read(done.stdout, 80)
    coloured = in_terminal(place, 80, "analyze", "runs/first", NO_COLOR="1")
    assert not _COLOUR.search(coloured)


def test_the_same_from_python(place: Path, best: str) -> None:
    experiment = deepmlf.Experiment(place / "runs" / "first")
    assert str(experiment.best.folder).endswith(best.rpartition("/")[2])
    assert experiment.curves.num_rows == 3 * 2
    predictor = deepmlf.Predictor.open(experiment.best.folder)
    table = predictor.predict(deepmlf.Dataset.open(place / "runs" / "mosi"), "test")
    assert table.num_rows == 152
