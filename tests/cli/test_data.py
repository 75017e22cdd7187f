"""`deepmlf data`: what it writes, what it leaves alone, and what it says of texts that are cut."""

import importlib
import json
import pickle
from pathlib import Path

import pytest

from deepmlf.cli import texts
from tests.command import deepmlf
from tests.data.mmsa_split import make_splits

pytestmark = pytest.mark.usefixtures("own_home")  # a language model that is there would have its tokens counted


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def mosi(tmp_path: Path) -> Path:
    path = tmp_path / "MOSI.pkl"
    path.write_bytes(pickle.dumps(make_splits()))
    return path


def test_nothing_is_replaced_without_force(tmp_path: Path, mosi: Path) -> None:
    out, words = tmp_path / "set", ["data", "synthetic", tmp_path / "set", "--size", "8"]
    assert deepmlf(*words).returncode == 0
    before = files_of(out)
    for again in ([*words, "--seed", "3"], ["data", "import", mosi, out]):
        result = deepmlf(*again)
        assert result.returncode == 2
        assert result.stderr == (
            f"deepmlf: {out}: exists; choose another folder, or replace the dataset there with --force\n"
        )
        assert files_of(out) == before
        assert deepmlf(*again, "--force").returncode == 0
        assert files_of(out) != before
        before = files_of(out)


def test_force_replaces_a_dataset_and_nothing_else(tmp_path: Path, mosi: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("")
    for out in (tmp_path / "precious", mosi):
        result = deepmlf("data", "import", mosi, out, "--force")
        assert result.stderr == f"deepmlf: {out}: exists and is no dataset; choose another folder\n"
        result = deepmlf("data", "synthetic", out, "--force")
        assert result.stderr == f"deepmlf: {out}: exists and is no dataset; choose another folder\n"
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["thesis.tex"]


def test_info_counts_the_tokens_of_a_language_model(small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = deepmlf("data", "info", small_data, "--lm", "tiny-random", "--max-text-len", "25", "--json")
    facts = json.loads(result.stdout.splitlines()[-1])
    assert (facts["language_model"], facts["max_text_len"]) == ("tiny-random", 25)
    tokens = facts["tokens"]["train"]
    assert tokens["utterances"] == 49
    assert 0 < tokens["cut"] < 49
    assert f"; {tokens['cut']} of 49 texts are cut at 25\n" in result.stderr
    assert (
        json.loads(deepmlf("data", "info", small_data, "--lm", "tiny-random", "--json").stdout.splitlines()[-1])[
            "max_text_len"
        ]
        == 50
    )  # that of the space `mosi`


def test_info_does_without_a_language_model_unless_one_is_named(small_data: Path) -> None:
    result = deepmlf("data", "info", small_data, "--json")
    assert result.returncode == 0
    assert result.stderr.startswith(
        "deepmlf: tokens are not counted: language model 'smollm2-135m' is not on this machine"
    )
    assert json.loads(result.stdout.splitlines()[-1])["tokens"] == {}
    result = deepmlf("data", "info", small_data, "--lm", "nothing")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("deepmlf: language model 'nothing' is not on this machine")


def test_texts_that_are_cut_are_told_by_import(tmp_path: Path, mosi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = make_splits()
    splits["valid"]["raw_text"][1] = "\u6211\u5f88\u9ad8\u5174\uff0c" * 4  # 60 bytes
    mosi.write_bytes(pickle.dumps(splits))
    monkeypatch.setattr(importlib.import_module("deepmlf.cli.data"), "DEFAULT_LM", "tiny-random")
    result = deepmlf("data", "import", mosi, tmp_path / "set")
    assert result.stderr == (
        "deepmlf: 1 of 3 texts of valid are cut at model.max_text_len=50 tokens of tiny-random (the longest has 60); "
        "raise it, or choose a language model made for the texts' language\n"
    )


def test_texts_that_are_cut_are_told_by_train(tmp_path: Path, small_data: Path) -> None:
    words = ["train", small_data, "--out", tmp_path / "trial", "--set", "model.language_model=tiny-random"]
    small = {"model.max_text_len": 20, "model.fusion_depth": 1, "training.epochs": 1, "curriculum.name": "joint"}
    small |= {"model.cross_attention_heads": 4, "model.av_layers": 1}
    result = deepmlf(*words, *(word for name, value in small.items() for word in ("--set", f"{name}={value}")))
    assert result.returncode == 0, result.stderr
    assert "of 49 texts of train, " in result.stderr
    assert "of 24 texts of valid are cut at model.max_text_len=20 tokens of tiny-random" in result.stderr


def test_the_limit_of_a_search_is_that_of_its_trials(small_data: Path, tmp_path: Path) -> None:
    from deepmlf.tune.plan import plan_search
    from deepmlf.tune.settings import SearchSettings

    own = tmp_path / "own.py"
    own.write_text(
        'BASE = {"model.fusion_depth": 1}\n\n\ndef space(trial):\n'
        '    return {"model.max_text_len": trial.suggest_int("model.max_text_len", 20, 40)}\n'
    )
    limits = []
    for space, overrides in (("sims", {}), ("mosi", {"model.max_text_len": 30}), (str(own), {})):
        asked = SearchSettings(
            data=str(small_data), lm="tiny-random", space=space, overrides=overrides, storage=str(tmp_path), trials=1
        )
        limits.append(texts.limit_of_space(plan_search(asked).space))
    assert limits == [39, 30, None]


def test_arguments_in_the_wrong_order_are_told(tmp_path: Path) -> None:
    pickled, out = tmp_path / "MOSI.pkl", tmp_path / "mosi"
    pickled.write_bytes(pickle.dumps({}))
    for words, told in (
        ((out, pickled), f"deepmlf: {out}: No such file or directory; {pickled} is one: the source comes first\n"),
        ((out, tmp_path / "other"), f"deepmlf: {out}: No such file or directory\n"),
    ):
        result = deepmlf("data", "import", *words)
        assert (result.returncode, result.stderr) == (2, told)
    assert pickled.is_file()
