"""The report's answers: what is said of a setting's values, and what is not."""

from dataclasses import replace

import numpy as np
import pytest

from deepmlf.analysis.records import TrialRecord
from deepmlf.analysis.report.answers import FURTHER, QUESTIONS, Group, answer, answers
from deepmlf.analysis.report.page import statement
from deepmlf.analysis.statistics.comparison import differ
from tests.analysis.report.depths import DEPTH, records_of, with_curves


def test_a_group_has_a_mean_and_from_three_values_on_an_interval() -> None:
    assert Group(5, 4, []).mean is None
    assert Group(5, 4, [1.0, 3.0]).interval is None
    # Standard error 1/√3; Student's t of 2 degrees of freedom is 4.3027 at 97.5 %.
    low, high = Group(5, 4, [1.0, 2.0, 3.0]).interval or (0, 0)
    assert low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)


def test_the_best_value_is_compared_with_each_other() -> None:
    """Pooled, blocks 5 to 7 beat the rest on average, and the report said that the paper's answer holds."""
    values = {1: [1.50, 1.51, 1.52], 3: [1.30, 1.31, 1.32], 5: [0.80, 0.81, 0.82], 7: [0.81, 0.82, 0.83],
              9: [0.60, 0.61, 0.62]}  # fmt: skip
    result = answer(DEPTH, records_of(values))
    assert result.best
    assert (result.best.value, result.worse, result.open, result.verdict) == (9, [1, 3, 5, 7], [], "contradicts")
    assert statement(result, records_of({})) == (
        "Other values than the paper's are better on this data. The best mean of valid/MAE has 9 (0.6100); worse "
        "beyond chance: 1, 3, 5, 7; not told apart from it: none (all compared at once; 95 % for the three questions "
        "together)."
    )


@pytest.mark.parametrize(
    ("values", "objective", "verdict"),
    [
        ({1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2]}, "valid/MAE", "agrees"),
        ({1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2]}, "valid/Corr", "contradicts"),
        ({1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2], 7: [1.1, 1.2, 1.0]}, "valid/MAE", "agrees"),
        ({1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2], 9: [1.1, 1.2, 1.3]}, "valid/MAE", "undecided"),
        ({1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2], 9: [9.0]}, "valid/MAE", "undecided"),  # nobody knows of 9
        ({5: [1.0, 1.1, 1.2], 7: [2.0, 2.1, 2.2]}, "valid/MAE", "undecided"),  # both are the paper's
        ({1: [4.0, 4.0, 4.0], 5: [1.0, 1.0, 1.0]}, "valid/MAE", "undecided"),  # chance has not shown itself
        ({1: [1.0, 5.0, 6.0], 5: [1.0, 2.0, 9.0]}, "valid/MAE", "undecided"),
        ({1: [1.0, 5.0, 6.0], 5: [1.0, 2.0]}, "valid/MAE", "too few"),
        ({5: [1.0, 5.0, 6.0]}, "valid/MAE", "too few"),  # so far: the search draws it
        ({}, "valid/MAE", "too few"),
    ],
)
def test_no_more_is_said_than_the_trials_can_say(
    values: dict[int, list[float | None]], objective: str, verdict: str
) -> None:
    result = answer(DEPTH, records_of(values, objective))
    assert result.verdict == verdict
    assert statement(result, records_of({}, objective))


def test_where_trials_did_not_end_well_their_value_is_not_called_better() -> None:
    values: dict[int, list[float | None]] = {1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2, None]}
    records = records_of(values, unended="FAIL")
    result = answer(DEPTH, records)
    assert (result.verdict, result.worse) == ("undecided", [])
    said = statement(result, records)
    assert "only 3 of its 4 trials got so far, so that it is not called better" in said
    assert answer(DEPTH, records_of({1: [4.0, 4.1, None, 4.2], 5: [1.0, 1.1, 1.2]}, unended="FAIL")).verdict == "agrees"


def test_trials_that_were_chosen_by_results_are_not_compared() -> None:
    values: dict[int, list[float | None]] = {1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2]}
    guided = records_of(values, sampler="tpe")
    assert answer(DEPTH, guided).verdict == "guided"
    assert statement(answer(DEPTH, guided), guided) == (
        "Seen at full fidelity (15 fusion epochs), reached by 6 of 6 trials: the best mean of valid/MAE has 5 (1.1000, "
        "95 % 0.8516 to 1.3484 over 3 trials). A search cannot tell: its sampler, tpe, goes where it expects the best, "
        "so that trials of different values "
        "differ in all else, too. --space ablations/depth --sampler grid --scheduler none can."
    )


def test_stopped_trials_compare_where_all_have_been() -> None:
    """Means over those that were let through flattered their values, so that no search with a scheduler had answers."""
    curves = {1: [[4.0, 3.9], [4.1, 3.0], [4.2]], 5: [[1.0, 0.9], [1.1, 0.8], [1.3]]}
    records = with_curves(records_of({1: [3.9, 3.0, None], 5: [0.9, 0.8, None]}, scheduler="asha", epochs=2), curves)
    result = answer(DEPTH, records)
    assert [group.values for group in result.groups] == [[4.0, 4.1, 4.2], [1.0, 1.1, 1.3]]
    assert (result.verdict, result.worse) == ("agrees", [1])
    assert statement(result, records).endswith(
        "What is said holds at fusion epoch 1 of 2, reached by 6 of 6 trials, not beyond it."
    )


def test_a_value_whose_bad_trials_were_stopped_is_not_called_better() -> None:
    worse, better = [4.0, 4.1, 4.2, 4.1, 4.0, 4.1], [1.0, 1.1, 1.2, None]
    stopped = records_of({1: worse, 5: better}, scheduler="asha")
    assert (answer(DEPTH, stopped).verdict, answer(DEPTH, stopped).worse) == ("undecided", [])


def test_of_a_random_search_priors_are_left_out() -> None:
    values: dict[int, list[float | None]] = {1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2]}
    records = records_of(values, sampler="random")
    assert answer(DEPTH, records).verdict == "agrees"
    records.trials[3:] = [replace(trial, is_prior=True) for trial in records.trials[3:]]
    assert answer(DEPTH, records).verdict == "too few"


def test_a_repeat_is_no_further_value() -> None:
    records = records_of({1: [4.0, 4.1, 4.2], 5: [1.0, 1.1, 1.2]})
    assert answer(DEPTH, records).verdict == "agrees"
    records.trials[1] = replace(records.trials[1], repeats=0)
    result = answer(DEPTH, records)
    assert (result.groups[0].trials, result.groups[0].values, result.verdict) == (2, [4.0, 4.2], "too few")


@pytest.mark.parametrize("world", ["equal", "unequal", "common"])
def test_of_equal_values_little_is_claimed(world: str) -> None:
    """Six values with three seeds each; in one world the last one varies three times as much."""
    generator = np.random.default_rng(0)
    claims = 0
    for _ in range(400):
        drawn = generator.normal(1.0, 0.01, (6, 3))
        if world == "unequal":
            drawn[-1] = 1 + 3 * (drawn[-1] - 1)
        elif world == "common":
            drawn += generator.normal(0.0, 0.03, 3)
        apart = differ(drawn.tolist(), int(drawn.mean(1).argmin()), 0.95 if world == "equal" else 0.98)
        claims += any(apart)
    assert claims <= 20


def test_values_drawn_under_other_names_stand_beside_those_in_use() -> None:
    records = records_of({5: [1.0], 3: [2.0]})
    refused = TrialRecord(2, "FAIL", {DEPTH.setting: "deep"}, {}, {}, None, {}, None, None, None, "refused", [])
    records.trials.append(refused)
    assert [group.value for group in answer(DEPTH, records).groups] == [3, 5, "deep"]


def test_a_setting_that_no_trial_drew_was_not_varied() -> None:
    assert answer(QUESTIONS[1], records_of({5: [1.0], 6: [2.0]})).verdict == "not varied"


def test_a_stopped_trial_has_a_value_that_does_not_count_as_trained_to_the_end() -> None:
    """A report called them trained to their end since stopped trials have the value of their best epoch."""
    records = records_of({5: [1.0, 1.1, 1.2], 7: [2.0]})
    stopped = replace(records.trials[1], state="PRUNED")
    groups = answer(DEPTH, replace(records, trials=[stopped, *records.trials[2:], records.trials[0]])).groups
    assert [(group.value, group.trials, sorted(group.values)) for group in groups] == [
        (5, 3, [1.0, 1.2]), (7, 1, [2.0]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "verdict", "said"),
    [
        ({0.25: [4.0, 4.1, 4.2], 1.0: [1.0, 1.1, 1.2]}, "clear", "One value is better than all others on this data. "),
        ({0.25: [1.1, 1.2, 1.3], 1.0: [1.0, 1.1, 1.2]}, "undecided", "Which value is best on this data, these trials "),
    ],
)
def test_a_further_question_is_asked_of_what_varies_it_and_has_no_answer_of_the_papers(
    values: dict[float, list[float]], verdict: str, said: str
) -> None:
    [share] = [question for question in FURTHER if question.setting == "data.train_share"]
    pairs = [(of, value) for of, group in values.items() for value in group]
    drawn = zip(records_of({1: [value for _, value in pairs]}).trials, pairs, strict=True)
    trials = [
        replace(trial, params={share.setting: of}, settings={share.setting: of}, best={"language/loss": of})
        for trial, (of, _) in drawn
    ]
    records = replace(records_of({}), trials=trials)
    asked = {one.question.setting: one for one in answers(records)}
    assert [name for name in asked if name not in {question.setting for question in QUESTIONS}] == [share.setting]
    result = asked[share.setting]
    assert result.verdict == verdict
    assert statement(result, records).startswith(said)
    assert [group.mean_language for group in result.groups] == [0.25, 1.0]
    assert share.setting not in {one.question.setting for one in answers(records_of({5: [1.0], 7: [1.0]}))}
