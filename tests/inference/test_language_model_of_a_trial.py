"""A trial knows the weights of its language model: with others nothing is resumed, evaluated, predicted or exported."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from deepmlf.cli import cli
from deepmlf.errors import CheckpointError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.inference.export import export_trial
from deepmlf.inference.predictor import Predictor, read_trial_config
from deepmlf.model import lm_store
from deepmlf.model.language_model import load_language_model, load_tokenizer
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.trainer import train
from tests.sealed import content_of, write


@pytest.fixture
def trial(small_trial: Path, tmp_path: Path) -> Path:
    """The trial with a language model of its own."""
    lm = read_trial_config(small_trial).model.language_model
    shutil.copytree(small_trial, tmp_path / "trial")
    shutil.copytree(lm, tmp_path / "lm")
    change_config(tmp_path / "trial", language_model=str(tmp_path / "lm"))
    return tmp_path / "trial"


def change_config(trial: Path, **model: object) -> None:
    tree = content_of(trial / "config.json")
    tree["model"] |= model
    write(trial / "config.json", tree)


def change_language_model(trial: Path) -> None:
    path = trial.with_name("lm") / "model.safetensors"
    weights = load_file(path)
    weights["transformer.wte.weight"][0, 0] += 1.0
    save_file(weights, path, metadata={"format": "pt"})
    load_language_model.cache_clear()


def forget_language_model(trial: Path) -> None:
    """As releases up to 0.1 wrote it."""
    for state in trial.rglob("state.json"):
        tree = content_of(state)
        assert tree.pop("language_model")
        write(state, tree)


def test_weights_and_evaluations_name_it(trial: Path) -> None:
    fingerprint = lm_store.fingerprint(str(trial.with_name("lm")))
    for folder in (trial / "best", latest_checkpoint(trial)):
        assert folder is not None
        assert content_of(folder / "state.json")["language_model"] == fingerprint
    result = CliRunner().invoke(cli, ["evaluate", str(trial), "--json"])
    assert json.loads(result.stdout.splitlines()[-1])["language_model"] == fingerprint
    assert "deepmlf:" not in result.stderr  # nothing is to be warned of


def test_another_one_is_refused(trial: Path, tmp_path: Path) -> None:
    change_language_model(trial)
    message = r"was trained on another language model than .*lm is now \(fingerprint \w{12}, now \w{12}\); put that one"
    config = read_trial_config(trial)
    for use in (
        lambda: evaluate_trial(trial),
        lambda: Predictor.open(trial),
        lambda: export_trial(trial, tmp_path / "export"),
        lambda: train(config, lambda *_: None, out_dir=trial, resume_from=latest_checkpoint(trial)),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_trial_that_does_not_say_still_opens_and_that_is_said(trial: Path, small_data: Path, tmp_path: Path) -> None:
    forget_language_model(trial)
    change_language_model(trial)
    said = (
        f"deepmlf: {trial}: does not say which weights its language model had, so it is not known whether they still "
    )
    for command in (
        ["evaluate", str(trial)],
        ["predict", str(trial), str(small_data), "--out", str(tmp_path / "p.parquet")],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith(said)


def test_a_configuration_without_special_tokens_reads_as_it_did(trial: Path) -> None:
    """The setting is younger than the trial: until then no text had any."""
    tree = content_of(trial / "config.json")
    assert tree["model"].pop("special_tokens") == "tokenizer"
    write(trial / "config.json", tree)
    assert read_trial_config(trial).model.special_tokens == "none"
    load_tokenizer.cache_clear()
    export_trial(trial, trial.with_name("export"))
    config = trial.with_name("export") / "config.json"
    assert content_of(config)["model"]["special_tokens"] == "none"
    tree = content_of(config)
    del tree["model"]["special_tokens"]
    write(config, tree)
    assert Predictor.open(trial.with_name("export")).model.config.special_tokens == "none"


def test_train_goes_on_with_what_an_earlier_version_began(trial: Path, small_data: Path) -> None:
    tree = content_of(trial / "config.json")
    del tree["model"]["special_tokens"]
    write(trial / "config.json", tree)
    toml = trial.with_name("c.toml")
    sections = {name: values for name, values in tree.items() if name != "data"}
    toml.write_text(
        "\n".join(
            f"[{name}]\n"
            + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None)
            for name, values in sections.items()
        )
    )
    command = ["train", str(small_data), "--config", str(toml), "--out", str(trial)]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.exception
    assert read_trial_config(trial).model.special_tokens == "none"
    other = CliRunner().invoke(cli, [*command, "--set", "model.special_tokens=tokenizer"])
    assert str(other.exception).endswith("holds a trial begun with model.special_tokens=none; choose another --out")
