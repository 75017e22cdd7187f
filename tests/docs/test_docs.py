"""README and docs: commands in `sh` blocks run, on tiny input, the others parse, and every link leads somewhere.

A block without a language holds what needs a GPU, a cluster or a long time.
"""

import pickle
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from deepmlf.analysis.standing import standing_of
from deepmlf.cli import cli
from deepmlf.data.dataset import Dataset
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.space.bound import check_ranges, check_space
from deepmlf.tune.space.load import load_space
from tests.cluster.command_lines import parse
from tests.data.mmsa_split import make_split
from tests.tune.parts import bound

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
# What makes a command of the docs small enough for a test.
SHRUNK = {"--lm": "tiny-random", "--trials": "1", "--epochs": "1", "--concurrent": "1", "--top": "2", "--seeds": "2"}
SMALL = ["model.max_text_len=8", "model.av_frames=6"]
COMPARED = "first"  # the search whose trials are compared: it needs two
SERVES_FOR_EVER = "tensorboard"  # tests/analysis/test_board.py starts it
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_TRIAL = re.compile(r"(?<=trials/)(\d{4})(?=_)")


def blocks(page: Path, language: str) -> Iterator[str]:
    """The text of a page's code blocks in a language; an empty one for blocks without."""
    for found, text in _BLOCK.findall(page.read_text()):
        if found == language:
            yield text


def commands(page: Path, language: str) -> Iterator[list[str]]:
    """The words of each `deepmlf` command in a page's blocks."""
    for text in blocks(page, language):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["deepmlf"]:
                yield words[1:]


def shrunk(words: list[str]) -> list[str]:
    """A command with a tiny language model, few trials and few epochs."""
    small = [re.sub("smollm2-135m", "tiny-random", word) for word in words]
    if words == ["search"]:  # the demo
        small += ["--lm", "tiny-random", "--trials", "1"]
    depth = "model.fusion_depth=1" if words[0] == "train" else "model.lm_layers=4"  # the tiny model has four layers
    small = [re.sub(r"model\.lm_layers=\d+", depth, word) for word in small]
    for option, value in SHRUNK.items():
        if option in small:
            small[small.index(option) + 1] = value
    if words[0] in ("search", "train"):
        small += [word for setting in SMALL for word in ("--set", setting)]
    if COMPARED in words:
        small[small.index("--trials") + 1] = "2"
    if words[0] == "search" and "--scheduler" not in words:
        small += ["--scheduler", "none"]  # so that both are there to be compared
    return small


def run(words: list[str]) -> str:
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    if result.exception is not None:
        pytest.fail(f"deepmlf {shlex.join(words)}: {result.exception!r}\n{result.output}")
    return result.output


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a reader of the docs would have: a pickle, and the example's space."""
    monkeypatch.chdir(tmp_path)
    splits = {"train": make_split(40), "valid": make_split(24), "test": make_split(24)}
    (tmp_path / "MOSI.pkl").write_bytes(pickle.dumps(splits))
    for name, key, values in (
        ("RATINGS", "regression_labels", [1, 2, 5]),
        ("EMOTIONS", "annotations", ["joy", "fear"]),
    ):
        labelled = {part: split | {key: [values[row % len(values)] for row in range(len(split["id"]))]}
                    for part, split in splits.items()}  # fmt: skip
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(labelled))
    table = ["id,split,text,label"]
    for part, split in splits.items():
        for row in range(len(split["id"])):
            table.append(f"{part}-{row},{part},well,{1 + row % 5}")
            for modality in ("audio", "vision"):
                path = tmp_path / "features" / modality / f"{part}-{row}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, split[modality][row])
    (tmp_path / "utterances.csv").write_text("\n".join(table))
    examples = [text for page in PAGES for text in blocks(page, "python") if text.startswith("# mine.py")]
    (tmp_path / "mine.py").write_text(examples[0])
    return tmp_path


def test_the_space_of_the_models_parts_draws_what_can_be_trained(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "search-spaces.md").read_text()
    [example] = [block for _, block in _BLOCK.findall(text) if block.startswith("# mm_blocks.py")]
    (tmp_path / "mm_blocks.py").write_text(example)
    space = bound(load_space(str(tmp_path / "mm_blocks.py")))
    drawn = check_space(space, "mm_blocks.py", {}, seed=0)
    assert {config.model.num_fusion_tokens for config in drawn} == {0, 3, 6, 12}
    assert check_ranges(space, "mm_blocks.py", seed=0) == []


@pytest.mark.ray
@pytest.mark.slow
def test_commands_of_the_docs_run(ray_cluster: None, workplace: Path) -> None:
    tutorial = ROOT / "docs" / "tutorial.md"
    seen: list[list[str]] = []
    for page in [tutorial, *(page for page in PAGES if page != tutorial)]:
        for words in map(shrunk, commands(page, "sh")):
            same = [word for word in words if word != "--set" and "lm_layers" not in word]  # README has the whole model
            if same in seen or words[0] == SERVES_FOR_EVER:
                continue
            seen.append(same)
            if "--id" in words:
                words[words.index("--id") + 1] = Dataset.open("runs/mosi").split("test").ids[0]
            run([_TRIAL.sub(best_trial(), word) if _TRIAL.search(word) else word for word in words])
    assert {words[0] for words in seen} >= {"data", "lm", "train", "evaluate", "search", "resume", "analyze", "confirm"}
    for text in blocks(tutorial, "python"):
        exec(compile(text, "tutorial.md", "exec"), {})


def best_trial() -> str:

    return f"{standing_of(open_experiment(Path('runs/first'))).to_dict()['best_trial']:04d}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_docs_parse(page: Path) -> None:
    for language in ("", "sh"):
        for words in commands(page, language):
            try:
                parse(cli, words)
            except click.ClickException as error:
                pytest.fail(f"deepmlf {shlex.join(words)}: {error.format_message()}")


def test_commands_are_found() -> None:
    """An extraction that finds nothing would let everything pass."""
    found = {words[0] for page in PAGES for language in ("", "sh") for words in commands(page, language)}
    assert found == set(cli.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
