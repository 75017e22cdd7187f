"""An experiment's folder: what stops a search before it starts, and what a dead driver may leave behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors.torch import load_file, save_file

from deepmlf.analysis.results import load_results
from deepmlf.data.dataset import Dataset
from deepmlf.data.synthetic import make_synthetic
from deepmlf.errors import DeepMLFError, LanguageModelError, SearchError
from deepmlf.events.dashboard import EVENTS_FILE
from deepmlf.model import lm_store
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.places import Place
from deepmlf.tune.experiment.manifest import read_manifest
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import create_study, repair_journal
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.plan import plan_resume, plan_search
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings, experiment_name, parse_duration
from tests.model.small_lm import make_folder
from tests.sealed import content_of, edit, write
from tests.tune import experiments
from tests.tune.parts import write_experiment


def settings(data: Path, storage: Path, **changes: Any) -> SearchSettings:
    defaults = {"trials": 2, "epochs": 2, "concurrent": 1, "scheduler": "none"}
    return experiments.settings(data, storage, **defaults | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"overrides": {"model.num_fusion_tokens": 4}},
            "--set model.num_fusion_tokens: the space demo searches this setting; fix it in the space instead",
        ),
        ({"overrides": {"model.depth": 4}}, "model.depth: no such setting"),
        ({"overrides": {"training.epochs": 3}}, "--set training.epochs: is one for all trials of a search; use --epo"),
        ({"overrides": {"model.lm_layers": 5}}, "model.lm_layers=5: the language model has 4 layers"),
        ({"space": "fixes.py"}, "fixes.py: BASE: training.epochs=3: is one for all trials of a search; use --epochs"),
        ({"space": "no_number.py"}, "no_number.py: BASE: model.lm_layers='x': Input should be a valid integer"),
        ({"space": "nonsuch"}, "--space nonsuch: no such file or space"),
        ({"space": "misspelt.py"}, "misspelt.py: model.tokens: no such setting"),
        ({"space": "raises.py"}, "raises.py: KeyError: 'depth'"),
        (
            {"sampler": "tep"},
            "--sampler tep: no such sampler; choose one of auto, mixed, curves, tpe, random, gp, cmaes, grid, nsga2",
        ),
        ({"sampler": "grid"}, "--sampler grid: every float of the space needs a step"),
        ({"scheduler": "sha"}, "--scheduler sha: no such scheduler; choose one of asha, hyperband, median, none"),
        ({"objectives": ["valid/mae"]}, "--objective valid/mae: no such metric; mosi has valid/Has0_acc_2, "),
        ({"warm_start": "nonsuch"}, "nonsuch: not an experiment (no search.json there)"),
        ({"sampler": "grid", "warm_start": "nonsuch"}, "--warm-start: a grid learns nothing from earlier trials"),
        ({"study_storage": "nonsense"}, "--study-storage: not a database URL; expected e.g. sqlite:///study.db"),
    ],
)
def test_a_fault_is_told_before_anything_starts(
    tmp_path: Path, small_data: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "misspelt.py").write_text("def space(trial):\n    return {'model.tokens': 3}\n")
    (tmp_path / "raises.py").write_text("def space(trial):\n    return {}['depth']\n")
    (tmp_path / "fixes.py").write_text("BASE = {'training.epochs': 3}\ndef space(trial):\n    return {}\n")
    (tmp_path / "no_number.py").write_text("BASE = {'model.lm_layers': 'x'}\ndef space(trial):\n    return {}\n")
    if changes.get("space", "").endswith(".py"):
        changes = {"space": str(tmp_path / changes["space"])}
    with pytest.raises(DeepMLFError) as caught:
        run_search(settings(small_data, tmp_path / "runs", **changes))
    assert message in str(caught.value)
    assert not (tmp_path / "runs" / "search").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", ".hidden", "-x", "_x", "a b", "a\n", "s3://b/a"])
def test_a_name_that_could_not_name_a_folder_is_refused(tmp_path: Path, small_data: Path, name: str) -> None:
    with pytest.raises(SearchError) as caught:
        run_search(settings(small_data, tmp_path / "runs", name=name))
    assert str(caught.value).startswith(
        f"--name {name!r}: expected a letter or digit, then letters, digits, `.`, `_` or"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["first", "confirm-12-7-x5", "1.2_b"])
def test_a_name_given_is_the_name(name: str) -> None:
    assert experiment_name(SearchSettings(data="set", space="demo", name=name)) == name


@pytest.mark.parametrize(
    ("space", "begins"),
    [("ablations/depth", "depth-2"), ("sets/_my space%d.py", "my-space-d-2"), ("sets/___.py", "search-2")],
)
def test_a_name_made_from_a_space_and_the_time_is_one_that_could_be_given(space: str, begins: str) -> None:
    search = SearchSettings(data="set", space=space)
    made = experiment_name(search)
    assert made.startswith(begins)
    assert experiment_name(search.model_copy(update={"name": made})) == made


def test_a_study_storage_that_is_away_is_told_before_anything_starts(tmp_path: Path, small_data: Path) -> None:
    url = "sqlite:////nonsuch/folder/study.db"
    with pytest.raises(SearchError, match=f"--study-storage {url}: cannot be reached"):
        run_search(settings(small_data, tmp_path, study_storage=url))
    assert not (tmp_path / "search").exists()


def test_a_password_on_the_command_line_does_not_reach_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, kept = "postgresql://me:s3cr3t@db/studies", "postgresql://me@db/studies"
    monkeypatch.setattr("sys.argv", ["deepmlf", "search", f"--study-storage={url}", "--study-storage", url])
    search = SearchSettings(data="set", space="demo", study_storage=kept)
    write_experiment(tmp_path, search, secret=url)
    assert "s3cr3t" not in (tmp_path / "search.json").read_text()
    assert read_manifest(Place.of(tmp_path)).command[2:] == [f"--study-storage={kept}", "--study-storage", kept]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["2", "2d", "h", "0s", "-1h"])
def test_another_duration_is_refused(text: str) -> None:
    with pytest.raises(SearchError, match=f"--time-budget {text}: expected a number and s, m or h, e.g. 90m"):
        parse_duration(text)


@pytest.mark.ray
def test_a_search_of_one_trial_runs_its_prior(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    summary = run_search(settings(small_data, tmp_path, trials=1))
    assert summary.states["COMPLETE"] == 1
    assert not summary.interrupted
    assert (tmp_path / "search" / "trials" / EVENTS_FILE).is_file()
    manifest = json.loads((tmp_path / "search" / "search.json").read_text())
    assert {"settings", "space_source", "base", "data_fingerprint", "versions", "git_commit", "command"} <= set(
        manifest
    )


@pytest.mark.ray
def test_a_resume_mends_what_a_dead_driver_left_and_finds_its_way_after_a_move(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    run_search(settings(small_data, tmp_path, trials=1))
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "search", moved)
    edit(moved / "search.json", settings=content_of(moved / "search.json")["settings"] | {"trials": 2})
    journal = moved / "optuna.journal"
    with journal.open("a") as file:
        file.write('{"op_code":8,"worker')  # torn by a power cut
    (moved / "optuna.journal.lock").symlink_to(journal)
    summary = resume_search(moved)
    assert summary.states["COMPLETE"] == 2
    assert len(open_experiment(moved).study.get_trials()) == 2
    assert sorted(set(load_results(moved).column("trial").to_pylist())) == [0, 1]
    assert None not in load_results(moved).column("fusion_epoch").to_pylist()


def test_a_stale_lock_and_a_torn_line_of_the_journal_are_removed(tmp_path: Path) -> None:
    repair_journal(tmp_path)  # there is none yet
    create_study(tmp_path, "search", None, make_objectives(["valid/MAE"])).ask()
    journal, lock = tmp_path / "optuna.journal", tmp_path / "optuna.journal.lock"
    whole = journal.read_text()
    journal.write_text(whole + '{"op_code":8,"worker')
    lock.symlink_to(journal)
    repair_journal(tmp_path)
    assert not lock.is_symlink()
    assert journal.read_text() == whole


@pytest.mark.ray
def test_a_second_driver_and_another_dataset_are_turned_away(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    run_search(settings(data, tmp_path, trials=1))
    experiment = tmp_path / "search"
    with FileLock(experiment / ".lock"), pytest.raises(SearchError, match="another driver is running this search"):
        resume_search(experiment)
    shutil.rmtree(data)
    make_synthetic(data, seed=2, sizes=(32, 16, 16))
    with pytest.raises(SearchError, match="is not the dataset that search began with; start a new search"):
        resume_search(experiment)


def begun(experiment: Path, data: Path, lm: str, sizes: LanguageModelFacts, weights: str | None = None) -> Path:
    """An experiment whose driver was killed when it had asked for one trial."""
    search = settings(data, experiment.parent, lm=lm, name=experiment.name)
    fingerprint = Dataset.open(data).info.fingerprint
    base = {"model.fusion_depth": 1}
    write_experiment(experiment, search, data_fingerprint=fingerprint, language_model=sizes, base=base,
                     language_model_fingerprint=weights)  # fmt: skip
    create_study(experiment, "search", None, make_objectives(search.objectives)).ask()
    return experiment


def test_a_resume_without_its_language_model_ends_before_anything_starts(tmp_path: Path, small_data: Path) -> None:
    experiment = begun(tmp_path / "search", small_data, str(tmp_path / "gone"), LanguageModelFacts(2, 64))
    with pytest.raises(LanguageModelError, match=r"gone' is not on this machine; run `deepmlf lm get .*gone`$"):
        resume_search(experiment)
    assert [trial.state.name for trial in open_experiment(experiment).study.get_trials()] == ["RUNNING"]


def test_a_resume_with_another_language_model_is_turned_away(tmp_path: Path, small_data: Path) -> None:
    experiment = begun(tmp_path / "search", small_data, "tiny-random", LanguageModelFacts(2, 64))
    with pytest.raises(SearchError, match="^tiny-random: is not the language model that search began with; start a"):
        resume_search(experiment)


def test_a_resume_with_other_weights_is_turned_away(tmp_path: Path, small_data: Path) -> None:
    """The same name, folder and sizes: what is refused are the contents."""
    lm = make_folder(tmp_path / "lm")
    facts, weights = lm_store.facts(str(lm)), lm_store.fingerprint(str(lm))
    experiment = begun(tmp_path / "search", small_data, str(lm), facts, weights)
    assert plan_resume(open_experiment(experiment)).space.lm == facts
    tensors = load_file(lm / "model.safetensors")
    tensors["transformer.wte.weight"][0, 0] += 1.0
    save_file(tensors, lm / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SearchError, match="lm: is not the language model that search began with; start a new search"):
        resume_search(experiment)


def test_a_resume_says_what_an_earlier_release_did_not_keep(
    tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = begun(tmp_path / "search", small_data, "tiny-random", lm_store.facts("tiny-random"))
    manifest = experiment / "search.json"
    tree = content_of(manifest)
    del tree["language_model_fingerprint"]
    tree["settings"]["quiet"] = False
    write(manifest, tree)
    plan = plan_resume(open_experiment(experiment))
    assert plan.space.base.config.model.special_tokens == "none"  # as its first trials read
    said = "deepmlf: search: does not say which weights tiny-random had, so it goes on with those of now\n"
    assert capsys.readouterr().err == said


def test_a_search_keeps_the_weights_it_ran_on(tmp_path: Path, small_data: Path) -> None:
    lm = make_folder(tmp_path / "lm")
    asked = {"lm": str(lm), "overrides": {"model.fusion_depth": 1, "model.max_text_len": 16}}
    space = tmp_path / "mine.py"
    space.write_text("BASE = {'model.cross_attention_heads': 2}\n\n\ndef space(trial):\n    return {}\n")
    plan = plan_search(settings(small_data, tmp_path, space=str(space), **asked))
    assert plan.experiment.manifest.language_model_fingerprint == lm_store.fingerprint(str(lm))
    assert plan.space.base.config.model.special_tokens == "tokenizer"
    asked["overrides"] = asked["overrides"] | {"model.max_text_len": 40}
    with pytest.raises(SearchError, match="model.max_text_len=40 and .*: the language model has 32 positions$"):
        plan_search(settings(small_data, tmp_path, space=str(space), **asked))


@pytest.mark.ray
def test_a_worker_that_dies_is_retried_and_then_recorded(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    space = tmp_path / "mine.py"
    space.write_text(
        "def space(trial):\n"
        "    return {'training.lr_av': (0.125, 0.0625, 0.001)[trial.number], 'model.fusion_depth': 1,\n"
        "            'model.num_fusion_tokens': trial.suggest_int('model.num_fusion_tokens', 2, 12)}\n"
    )
    summary = run_search(settings(small_data, tmp_path, space=str(space), trials=3, max_failures=1))
    trials = open_experiment(tmp_path / "search").study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert summary.states["FAIL"] == 1
    assert trials[0].intermediate_values.keys() == trials[2].intermediate_values.keys() == {1, 2}
    folders = sorted((tmp_path / "search" / "trials").glob("*/"))
    assert not (folders[0] / "error.txt").exists()
    assert trials[1].user_attrs["fail_reason"] == "the worker died too often; see error.txt"
    assert (folders[1] / "error.txt").read_text()
