"""Confirmation: statistics on numbers worked out by hand, and a real search whose best settings are trained again."""

import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from rich.console import Console

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.verdict import (
    compare,
    confirm,
    show_verdict,
    stopped_at,
    stopped_line,
    unbeaten,
    unbeaten_line,
    verdict_line,
)
from deepmlf.errors import DataError, SearchError
from deepmlf.seal import unsealed
from deepmlf.tune import search
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.retrain import fresh_seeds
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings
from tests.sealed import content_of

(MAE,) = make_objectives(["valid/MAE"])


def measured(*settings: list[float]) -> dict[int, dict[int, dict[str, float]]]:
    """MAE of each setting and seed; settings are numbered 10, 11, …"""
    return {
        10 + index: {seed: {"MAE": value} for seed, value in enumerate(values)} for index, values in enumerate(settings)
    }


def test_mean_deviation_and_paired_interval() -> None:
    report = compare(measured([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), MAE)
    first = report["settings"][0]
    assert (first["trial"], first["seeds"]) == (10, [0, 1, 2])
    assert first["mean"]["MAE"] == pytest.approx(2.0)
    assert first["std"]["MAE"] == pytest.approx(1.0)
    # Differences -1, -2, -3: standard error 1/√3, and Student's t of 2 degrees of freedom is 4.3027 at 97.5 %.
    difference = report["differences"]["MAE"]
    assert difference["mean"] == pytest.approx(-2.0)
    assert difference["low"] == pytest.approx(-2 - 4.3027 / 3**0.5, abs=1e-4)
    assert difference["high"] == pytest.approx(-2 + 4.3027 / 3**0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (([1.0, 1.1, 1.2], [1.5, 1.6, 1.65]), ["holds", "worse"]),
        (([1.0, 1.1, 1.2], [1.5, 1.6, 1.65], [0.9, 1.2, 1.0]), ["undecided", "worse", "undecided"]),
        (([1.0, 1.1, 1.2], [1.01, 1.15, 1.2]), ["undecided", "undecided"]),  # better on average is not enough
        (([1.0, 1.1, 1.2], [1.5, 1.6, 1.65], [0.5, 0.61, 0.7]), ["fails", "worse", "better"]),
    ],
)
def test_the_verdict_looks_at_every_rival(settings: tuple[list[float], ...], found: list[str]) -> None:
    report = compare(measured(*settings), MAE)
    assert [report["verdict"], *(setting["is"] for setting in report["settings"][1:])] == found


def test_intervals_hold_together() -> None:
    rivals = [[1.1, 1.11, 1.2, 1.21, 1.27]] * 4
    choice = [1.0, 1.1, 1.1, 1.1, 1.1]
    alone, together = (compare(measured(choice, *rivals[:count]), MAE) for count in (1, 4))
    assert (alone["verdict"], together["verdict"]) == ("holds", "undecided")
    # Differences -0.1, -0.01, -0.1, -0.11, -0.17; Student's t of 4 degrees of freedom is 4.3147 at 1 - 0.05 / 8.
    deviation = (sum((delta + 0.098) ** 2 for delta in (-0.1, -0.01, -0.1, -0.11, -0.17)) / 4) ** 0.5
    for setting in together["settings"][1:]:
        assert setting["difference"]["MAE"]["high"] == pytest.approx(-0.098 + 4.3147 * deviation / 5**0.5, abs=1e-4)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("top", [2, 10])
@pytest.mark.parametrize("world", ["equal", "common", "unequal", "few values"])
def test_of_equal_settings_little_is_claimed(world: str, top: int, seeds: int) -> None:
    """Without common intervals ``holds`` came in a third of comparisons of three, ``fails`` in 15 % of ten."""
    generator = np.random.default_rng((top, seeds))
    verdicts = Counter[str]()
    for _ in range(600):
        values = generator.normal(1.0, 0.01, (top, seeds))
        if world == "common":
            values += generator.normal(0.0, 0.03, seeds)
        elif world == "unequal":
            values = 1 + (values - 1) * np.exp(generator.normal(size=(top, 1)))
        elif world == "few values":
            values = generator.binomial(16, 0.8, (top, seeds)) / 16
        verdicts[compare(measured(*values.tolist()), MAE)["verdict"]] += 1
    assert verdicts["holds"] <= 30
    assert verdicts["fails"] <= 30


@pytest.mark.parametrize("width", [60, 80, 200])
def test_metrics_are_rows_and_no_number_is_cut(width: int) -> None:
    values = measured([1.0, 2.0, 3.5], [2.0, 4.0, 6.0], [20.0, 41.5, 66.0])
    for by_seed in values.values():
        for metrics in by_seed.values():
            metrics |= {f"Has0_metric_{number}": number * metrics["MAE"] for number in range(5)}
    report = compare(values, MAE) | {"baselines": {f"the simple model {n}": {"MAE": 1.25 + n} for n in range(6)}}
    console = Console(width=width, record=True, file=io.StringIO())
    show_verdict(report, console)
    text = console.export_text()
    table = [line for line in text.splitlines() if not line.startswith("MAE: ")]  # what the verdict means comes last
    assert max(map(len, map(str.rstrip, table))) <= width
    assert "…" not in text
    first = next(line for line in table if line.strip().startswith("MAE"))
    assert first.split()[:4] == ["MAE", "2.1667", "±", "1.2583"]
    for setting in report["settings"]:
        assert f"{setting['mean']['Has0_metric_4']:.4f} ± {setting['std']['Has0_metric_4']:.4f}" in text
    for setting in report["settings"][1:]:
        pair = setting["difference"]["MAE"]
        assert f"{pair['mean']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]" in text
    assert "trial 10, 3 seeds" in text
    assert "trial 10 minus 12" in text
    assert "6.2500" in text


def test_differences_that_are_all_the_same_have_no_interval() -> None:
    report = compare(measured([0.5, 0.5625, 0.625], [0.5625, 0.625, 0.6875]), MAE)
    assert report["differences"]["MAE"] == {"mean": -0.0625, "low": None, "high": None}
    assert report["verdict"] == "undecided"
    show_verdict(report, Console(quiet=True))


def test_a_metric_that_is_better_when_higher_turns_the_verdict_round() -> None:
    (correlation,) = make_objectives(["valid/Corr"])
    values = {
        number: {seed: {"Corr": value + number * seed / 100} for seed in range(3)}
        for number, value in ((1, 0.8), (2, 0.5))
    }
    assert compare(values, correlation)["verdict"] == "holds"


@pytest.mark.parametrize(
    ("seen", "fresh"),
    [({0}, range(1, 4)), ({3, 7}, range(8, 11)), ({2**32 - 4}, range(2**32 - 3, 2**32)), ({2**32 - 1, 2}, range(3, 6))],
)
def test_seeds_of_a_confirmation_are_none_that_the_search_saw(seen: set[int], fresh: range) -> None:
    assert fresh_seeds(seen, 3) == fresh


def test_seeds_that_failed_are_left_out_and_too_few_are_refused() -> None:
    values = measured([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    del values[11][0]
    assert compare(values, MAE)["differences"]["MAE"]["mean"] == pytest.approx(-2.5)
    del values[11][1]
    with pytest.raises(
        SearchError, match="fewer than two seeds finished for trial 10 and another; see the trials' err"
    ):
        compare(values, MAE)
    values[12] = measured([1.5, 2.5, 3.5])[10]
    report = compare(values, MAE)
    assert [(setting["trial"], setting["seeds"]) for setting in report["settings"]] == [
        (10, [0, 1, 2]), (11, [2]), (12, [0, 1, 2]),
    ]  # fmt: skip
    assert report["differences"]["MAE"]["mean"] == pytest.approx(-0.5)


def test_who_did_not_finish_all_seeds_is_not_better() -> None:
    better, worse = [1.0, 1.02, 1.01, 1.03, 1.0], [2.0, 2.01, 2.02, 2.0, 2.01]
    assert compare(measured(better, worse), MAE, 5)["verdict"] == "holds"
    report = compare(measured(better[:3], worse), MAE, 5)
    assert report["settings"][1]["difference"]["MAE"]["high"] < 0
    assert report["verdict"] == "undecided"
    assert verdict_line(report) == (
        "MAE: these seeds do not tell the search's choice, trial 10, from trial 11 on test "
        "(95% intervals that hold together); trial 10 finished 3 of 5 seeds"
    )
    assert compare(measured(worse, better), MAE, 5)["verdict"] == "fails"
    assert compare(measured(worse, better[:3]), MAE, 5)["verdict"] == "undecided"
    assert compare(measured(worse[:3], better), MAE, 5)["verdict"] == "fails"
    assert compare(measured(better, worse[:3]), MAE, 5)["verdict"] == "holds"
    assert compare(measured(better, worse, worse[:1]), MAE, 5)["verdict"] == "undecided"  # one is not compared
    nothing = compare(measured(better, worse, []), MAE, 5)
    show_verdict(nothing, Console(quiet=True))
    assert verdict_line(nothing).endswith("; trial 12 finished 0 of 5 seeds")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (([1.0, 1.1, 1.2], [1.5, 1.6, 1.65]),
         "MAE: the search's choice, trial 10, is better on test than trial 11, beyond what seeds alone may do"),
        (([1.0, 1.1, 1.2], [0.5, 0.61, 0.7], [0.5, 0.6, 0.71]),
         "MAE: trials 11 and 12 are better on test than the search's choice, trial 10, beyond what seeds alone may do"),
        (([1.0, 1.1, 1.2], [1.1, 1.0, 1.2], [1.2, 1.1, 1.0], [1.0, 1.2, 1.1]),
         "MAE: these seeds do not tell the search's choice, trial 10, from trials 11, 12 and 13 on test"),
    ],
)  # fmt: skip
def test_the_verdict_in_words(settings: tuple[list[float], ...], line: str) -> None:
    assert verdict_line(compare(measured(*settings), MAE)) == f"{line} (95% intervals that hold together)"


def test_a_choice_that_does_not_beat_a_baseline_on_test_is_said_not_to() -> None:
    report = compare(measured([1.0, 1.1, 1.2], [1.5, 1.6, 1.65]), MAE)
    report["baselines"] = {"constant": {"MAE": 1.3}, "words": {}, "text head": {"MAE": 1.05}}
    report["unbeaten"] = unbeaten(report, MAE)
    line = "the search's choice, trial 10, does not beat text head on test"
    assert (report["unbeaten"], unbeaten_line(report)) == (["text head"], line)
    console = Console(width=200, record=True, file=io.StringIO())
    show_verdict(report, console)
    assert line in console.export_text()
    assert unbeaten_line(report | {"unbeaten": []}) is None


def test_a_verdict_of_an_earlier_release_is_not_repeated() -> None:
    assert verdict_line({"objective": "MAE", "verdict": "holds", "settings": [], "differences": {}}) == (
        "MAE: compared as an earlier release did, which took chance for a difference too often; "
        "the same `deepmlf confirm` again compares anew, and trains nothing that is trained"
    )


@pytest.fixture(scope="module")
def searched(ray_cluster: None, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A real search over a dataset whose test split could not be read while it ran; its data and its folder."""
    root = tmp_path_factory.mktemp("confirm")
    data = root / "data"
    shutil.copytree(small_data, data)
    (data / "test.arrow").write_bytes(b"whoever opens this fails")
    space = root / "mine.py"
    space.write_text(
        "BASE = {'model.max_text_len': 16, 'model.av_frames': 6, 'model.av_layers': 1, 'model.lora_rank': 4,\n"
        "        'curriculum.name': 'joint', 'model.fusion_depth': 1}\n\n\n"
        "def space(trial):\n"
        "    tokens, dropout = 'model.num_fusion_tokens', 'model.dropout'\n"
        "    return {tokens: trial.suggest_int(tokens, 2, 5), dropout: trial.suggest_float(dropout, 0.0, 0.5)}\n"
    )
    settings = {
        "data": str(data), "space": str(space), "lm": "tiny-random", "trials": 3, "epochs": 2, "concurrent": 2,
        "scheduler": "none", "storage": str(root), "name": "search", "quiet": True, "cache_gb": 0.0,
    }  # fmt: skip
    summary = run_search(SearchSettings.model_validate(settings))
    assert summary.states["COMPLETE"] == 3
    shutil.copy(small_data / "test.arrow", data / "test.arrow")
    return data, root / "search"


@pytest.mark.ray
def test_a_search_never_reads_the_test_split_and_confirm_does(
    searched: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, experiment = searched
    report = confirm(experiment, top=2, seeds=2, quiet=True)
    assert [len(setting["seeds"]) for setting in report["settings"]] == [2, 2]
    assert report["settings"][0]["seeds"] == [1, 2]  # the search's own seed, 0, is not among them
    assert set(report["settings"][0]["mean"]) == set(report["differences"])
    assert report["verdict"] in ("holds", "undecided", "fails")
    trials = "-".join(str(setting["trial"]) for setting in report["settings"])
    assert content_of(experiment / f"confirm-{trials}-x2" / "confirm.json") == report
    assert confirm(experiment, top=2, seeds=2, quiet=True) == report  # asked again, nothing is trained again
    whole = (data / "test.arrow").read_bytes()

    def spoil_the_data(*arguments: Any, **options: Any) -> Any:  # once it has been found whole
        (data / "test.arrow").unlink()
        return search.run(*arguments, **options)

    monkeypatch.setattr("deepmlf.tune.retrain.run", spoil_the_data)
    with pytest.raises(DataError) as caught:
        confirm(experiment, top=2, seeds=2, quiet=True)
    assert re.fullmatch(r".*test\.arrow: missing or torn.*", str(caught.value))  # one line, though of another process
    assert "in evaluate_beside" in caught.value.__notes__[0]  # what --debug shows
    with pytest.raises(DataError, match=r"test\.arrow: missing or torn") as caught:
        confirm(experiment, top=3, seeds=3, quiet=True)
    assert not list(experiment.glob("confirm-*-*-*-x3"))  # refused before anything is trained
    (data / "test.arrow").write_bytes(whole)


@pytest.mark.ray
def test_a_retraining_that_stopped_gets_no_verdict(
    searched: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, experiment = searched
    whole = (data / "valid.arrow").read_bytes()
    create_study = search.create_study

    def spoil_the_data(*arguments: Any) -> Any:  # once it has been found whole
        (data / "valid.arrow").unlink()
        return create_study(*arguments)

    monkeypatch.setattr(search, "create_study", spoil_the_data)
    with pytest.raises(SearchError) as caught:
        confirm(experiment, top=3, seeds=2, quiet=True)
    (data / "valid.arrow").write_bytes(whole)
    (folder,) = experiment.glob("confirm-*-*-*-x2")
    reason = rf"node \S+: {data}/valid\.arrow: missing or torn .*; mend that and resume"
    again = rf"{folder}: the retraining stopped \({reason}\); ask for the same again to go on"
    assert re.fullmatch(again, str(caught.value))


def test_that_stopped_trials_are_trained_to_their_end_is_said(tmp_path: Path) -> None:
    experiment = open_experiment(make_experiment(tmp_path, 12, epochs=9, space="demo"))
    trials = [trial for trial in experiment.trials() if trial.number in (0, 1, 2)]
    stopped = stopped_at(trials)
    assert stopped == {t.number: max(t.intermediate_values) for t in trials if t.state.name == "PRUNED"} != {}
    assert stopped_line({3: 2, 5: 1}, 9) == (
        "the search stopped trial 3 at fusion epoch 2, trial 5 at fusion epoch 1 of 9: all settings are trained to "
        "their end here"
    )


@pytest.mark.ray
def test_a_search_that_completed_one_trial_is_confirmed(searched: tuple[Path, Path], tmp_path: Path) -> None:
    """Of the usual search under ASHA few trials are complete."""
    experiment = tmp_path / "stopped"
    shutil.copytree(searched[1], experiment, ignore=shutil.ignore_patterns("confirm-*"))
    journal = experiment / "optuna.journal"
    ended = [unsealed(json.loads(line)) for line in journal.read_text().splitlines()]
    complete = [line for line in ended if line.get("state") == TrialState.COMPLETE.value]
    for line in complete[1:]:
        line["state"] = TrialState.PRUNED.value
    journal.write_text("".join(json.dumps(line) + "\n" for line in ended))
    report = confirm(experiment, top=2, seeds=2, quiet=True)
    states = {trial.number: trial.state for trial in open_experiment(experiment).trials()}
    assert sorted(state.name for state in states.values()) == ["COMPLETE", "PRUNED", "PRUNED"]
    for setting in report["settings"]:
        assert setting["stopped_at"] == (2 if states[setting["trial"]] == TrialState.PRUNED else None)
        assert len(setting["seeds"]) == 2


def test_draws_of_one_setting_are_nothing_to_compare(tmp_path: Path) -> None:
    space = tmp_path / "one.py"
    space.write_text(
        "def space(trial):\n"
        "    rank = trial.suggest_int('model.lora_rank', 8, 512)\n"
        "    return {'model.ffn': 'full', 'model.lora_rank': rank, 'training.seed': trial.number % 2}\n"
    )
    experiment = make_experiment(tmp_path, 6, space=str(space), scheduler="none", epochs=2)
    with pytest.raises(SearchError, match="has 1 settings that came to anything; a comparison needs two at least"):
        confirm(experiment, top=3, seeds=5, quiet=True)


@pytest.mark.ray
def test_one_complete_trial_cannot_be_compared(searched: tuple[Path, Path]) -> None:
    with pytest.raises(SearchError, match=r"^top=1: a comparison needs two at least$"):
        confirm(searched[1], top=1, seeds=2, quiet=True)
    with pytest.raises(SearchError, match=r"^seeds=1: a comparison needs two at least$"):
        confirm(searched[1], top=2, seeds=1, quiet=True)
