"""What an earlier experiment hands to a new one, and what is refused."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.decide.warm_start import add_trials, fitting_trials
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import create_study, own_trials
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.load import SearchSpace
from tests.sealed import edit
from tests.tune.parts import bound, write_experiment

TOKENS, CURRICULUM = "model.num_fusion_tokens", "curriculum.name"
BASE = {"model.fusion_depth": 1}
TWO = ["valid/MAE", "model/trained_parameters"]


def space(trial: optuna.Trial) -> dict[str, Any]:
    curriculum = trial.suggest_categorical(CURRICULUM, ["joint", "av_first"])
    if curriculum == "av_first":
        trial.suggest_int("curriculum.av_epochs", 1, 5)
    return {TOKENS: trial.suggest_int(TOKENS, 2, 12)}


def earlier(folder: Path, **changes: Any) -> Path:
    """An experiment of three finished trials, a failed one and one under way."""
    folder.mkdir()
    settings = SearchSettings(data="set", space="demo", name="earlier", epochs=3).model_dump() | changes
    write_experiment(folder, SearchSettings.model_validate(settings), base=BASE, data_fingerprint="abc")
    study = create_study(folder, "earlier", None, make_objectives(settings["objectives"]))
    for params in (
        {CURRICULUM: "joint", TOKENS: 4},
        {CURRICULUM: "av_first", "curriculum.av_epochs": 2, TOKENS: 6},
        {CURRICULUM: "joint", TOKENS: 8},
        {CURRICULUM: "joint", TOKENS: 10},
        {CURRICULUM: "joint", TOKENS: 12},
    ):
        study.enqueue_trial(params)
    asked = [study.ask() for _ in range(5)]
    several = len(settings["objectives"]) > 1
    for trial in asked:
        trial.set_user_attr("overrides", json.dumps(space(trial)))
        if not several:
            trial.report(0.9, 1)
    study.tell(asked[0], [0.9, 4] if several else 0.9)
    study.tell(asked[1], [0.8, 6] if several else 0.8)
    study.tell(asked[2], state=TrialState.FAIL if several else TrialState.PRUNED)
    study.tell(asked[3], state=TrialState.FAIL)
    return folder


def take(folder: Path, wanted: Any = space, **changes: Any) -> tuple[list[optuna.trial.FrozenTrial], str]:
    fingerprint = changes.pop("fingerprint", "abc")
    base = BASE | changes.pop("base", {})
    space = bound(SearchSpace("mine", wanted, {}, [], ""), base=base)
    settings = SearchSettings.model_validate(
        {"data": "set", "space": "demo", "epochs": 3, "warm_start": "it"} | changes
    )
    return fitting_trials(Place.of(folder), settings, space, fingerprint)


def test_finished_trials_are_taken_over_once_and_are_not_the_experiments_own(tmp_path: Path) -> None:
    taken, said = take(earlier(tmp_path / "earlier"))
    assert said == "3 of 3 trials of it guide the sampler"
    assert [trial.state.name for trial in taken] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert taken[1].params == {CURRICULUM: "av_first", "curriculum.av_epochs": 2, TOKENS: 6}
    study = optuna.create_study()
    add_trials(study, taken)
    add_trials(study, taken)  # the driver was killed before its manifest was written, and starts again
    assert [trial.user_attrs["warm_start"] for trial in study.get_trials()] == ["earlier/0", "earlier/1", "earlier/2"]
    assert study.best_value == 0.8
    assert own_trials(study) == []


def test_only_what_the_new_space_would_draw_is_taken_over_with_its_distributions(tmp_path: Path) -> None:
    def narrower(trial: optuna.Trial) -> dict[str, Any]:
        trial.suggest_categorical(CURRICULUM, ["joint", "av_frozen"])
        return {TOKENS: trial.suggest_int(TOKENS, 6, 20)}

    (taken,), said = take(earlier(tmp_path / "earlier"), narrower)
    assert said.startswith(
        "1 of 3 trials of it guide the sampler; the others do not fit (trial 0: model.num_fusion_tok"
    )
    assert taken.params == {CURRICULUM: "joint", TOKENS: 8}
    assert taken.distributions[TOKENS] == optuna.distributions.IntDistribution(6, 20)


def test_a_full_trial_of_fewer_epochs_counts_as_stopped_early(tmp_path: Path) -> None:
    taken, _ = take(earlier(tmp_path / "earlier"), epochs=9)
    assert [trial.state.name for trial in taken] == ["PRUNED"] * 3
    assert taken[0].intermediate_values == {1: 0.9}


def test_of_a_trial_of_more_epochs_those_that_there_are_here_are_taken_over(tmp_path: Path) -> None:
    folder = earlier(tmp_path / "earlier", epochs=12)
    study = open_experiment(folder).study
    trial = study.ask()
    trial.set_user_attr("overrides", json.dumps(space(trial)))
    for step, value in ((1, 0.9), (2, 0.7), (3, 0.8), (12, 0.5)):
        trial.report(value, step)
    study.tell(trial, 0.5)
    taken, _ = take(folder)
    assert [trial.state.name for trial in taken] == ["PRUNED"] * 4
    assert (taken[-1].value, taken[-1].intermediate_values) == (0.7, {1: 0.9, 2: 0.7, 3: 0.8})


def test_trials_that_trained_something_else_than_they_would_here_are_left_out(tmp_path: Path) -> None:
    folder = earlier(tmp_path / "earlier")
    with pytest.raises(SearchError) as caught:
        take(folder, base={"model.av_layers": 1})
    assert "(trial 0: model.av_layers was 3 there and is 1 here)" in str(caught.value)

    def made_of_it(trial: optuna.Trial) -> dict[str, Any]:
        """The same parameters, of which something else is made."""
        return space(trial) | {
            "training.weight_decay": trial.params[TOKENS] / 100 if trial.params[TOKENS] > 4 else 1e-2
        }

    taken, said = take(folder, made_of_it)
    assert [trial.params[TOKENS] for trial in taken] == [4]
    assert "trial 1: training.weight_decay was 0.01 there and is 0.06 here" in said


def other(trial: optuna.Trial) -> dict[str, Any]:
    return {"model.fusion_depth": trial.suggest_int("model.fusion_depth", 1, 4)}


def without_tokens(trial: optuna.Trial) -> dict[str, Any]:
    return {CURRICULUM: trial.suggest_categorical(CURRICULUM, ["joint", "av_first"])}


def higher(trial: optuna.Trial) -> dict[str, Any]:
    trial.suggest_categorical(CURRICULUM, ["joint"])
    return {TOKENS: trial.suggest_int(TOKENS, 20, 40)}


@pytest.mark.parametrize(
    ("wanted", "changes", "message"),
    [
        (other, {}, "none of its 3 trials fits the space mine (trial 0: the space asks for more than curriculum"),
        (without_tokens, {}, "fits the space mine (trial 0: model.num_fusion_tokens is not searched)"),
        (higher, {}, "(trial 0: model.num_fusion_tokens=4 is outside of IntDistribution(high=40"),
        (space, {"objectives": ["valid/Corr"]}, "optimised valid/MAE, this search optimises valid/Corr; choose"),
        (space, {"fingerprint": "xyz"}, "ran on another dataset (set); its values say nothing about this one"),
        (space, {"epochs": 9, "objectives": TWO, "earlier": {"objectives": TWO}},
         "trained for 3 epochs, this search for 9; values of two objectives compare at equal --epochs only"),
        (space, {"lm": "tiny-random"}, "ran on smollm2-135m; its values say nothing about tiny-random"),
    ],
)  # fmt: skip
def test_an_experiment_that_does_not_fit_is_refused(
    tmp_path: Path, wanted: Any, changes: dict[str, Any], message: str
) -> None:
    folder = earlier(tmp_path / "earlier", **changes.pop("earlier", {}))
    with pytest.raises(SearchError) as caught:
        take(folder, wanted, **changes)
    assert str(caught.value).startswith(f"--warm-start {tmp_path / 'earlier'}: ")
    assert message in str(caught.value)


def test_other_weights_of_the_same_name_are_refused(tmp_path: Path) -> None:
    folder = earlier(tmp_path / "earlier")
    edit(folder / "search.json", language_model_fingerprint="abc")
    settings = SearchSettings(data="set", space="demo", epochs=3)
    bound_space = bound(SearchSpace("mine", space, {}, [], ""))
    assert len(fitting_trials(Place.of(folder), settings, bound_space, "abc", "abc")[0]) == 3
    with pytest.raises(SearchError, match="ran on other weights of smollm2-135m; its values say nothing about these"):
        fitting_trials(Place.of(folder), settings, bound_space, "abc", "xyz")


def test_a_folder_that_is_no_experiment_and_one_without_a_finished_trial_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="not an experiment"):
        take(tmp_path)
    folder = tmp_path / "fresh"
    write_experiment(folder, SearchSettings(data="set", space="demo", name="fresh"), data_fingerprint="abc")
    create_study(folder, "fresh", None, make_objectives(["valid/MAE"])).ask()
    with pytest.raises(SearchError, match="has no finished trial yet"):
        take(folder)
