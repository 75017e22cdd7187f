"""At which fidelity trials are compared, worked out by hand and of planted searches."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.fidelity import common_fidelity
from deepmlf.analysis.records import load_records
from deepmlf.training.reports import FIDELITY, MISSING_BLOCKS, EpochReport
from deepmlf.tune.experiment.stored import open_experiment
from tests.analysis.report.depths import trained


def test_it_is_the_highest_that_three_of_four_have_reached() -> None:
    common = common_fidelity(trained([5, 4, 3, 2], [5, 6], [7, 7], [9]))
    assert (common.epochs, common.trials, common.values) == (2, 4, {0: [4.0], 1: [5.0], 2: [7.0]})
    assert common.where == "at fusion epoch 2 of 4, reached by 3 of 4 trials"
    assert not common.is_full


def test_it_is_full_fidelity_where_nothing_was_stopped() -> None:
    common = common_fidelity(trained([5, 4, 3, 2], [4, 3, 2, 3]))
    assert (common.values, common.is_full) == ({0: [2.0], 1: [2.0]}, True)
    assert common.where == "at full fidelity (4 fusion epochs), reached by 2 of 2 trials"


def test_it_is_the_highest_that_most_have_reached_where_three_of_four_have_reached_none() -> None:
    common = common_fidelity(trained([5, 4, 3], [6, 5, 4], [], []))
    assert (common.epochs, common.values) == (3, {0: [3.0], 1: [4.0]})
    assert common.where == "at fusion epoch 3 of 4, reached by 2 of 4 trials"


def test_an_experiment_in_which_nothing_was_reported_has_none_to_compare() -> None:
    common = common_fidelity(trained([], []))
    assert (common.values, common.trials) == ({}, 2)
    assert common_fidelity(replace(trained([]), trials=[])).trials == 0


def test_a_trial_whose_patience_ran_out_has_reached_all() -> None:
    common = common_fidelity(trained([5, 4, 3, 2], [5, 4, 5], [6, 5, 4, 3], [6], states={1: "COMPLETE"}))
    assert common.is_full
    assert common.values == {0: [2.0], 1: [4.0], 2: [3.0]}


def test_running_trials_count_from_the_first_rung_on_and_failed_ones_as_far_as_they_got() -> None:
    """The first rung is at a fifth of four epochs: the first one."""
    records = trained([5, 4, 3, 2], [5, 4], [6, 5], [], states={1: "RUNNING", 2: "FAIL", 3: "RUNNING"})
    common = common_fidelity(records)
    assert (common.epochs, common.trials, sorted(common.values)) == (2, 3, [0, 1, 2])


def test_epochs_with_few_blocks_are_of_another_model() -> None:
    records = trained([5, 4, 3, 2], [1, 1, 3, 3])
    growing = [
        EpochReport({**report.metrics, MISSING_BLOCKS: 1}) if report.metrics[FIDELITY] < 3 else report
        for report in records.trials[1].reports
    ]
    records.trials[1] = replace(records.trials[1], reports=tuple(growing), state="PRUNED")
    assert common_fidelity(records).values == {0: [3.0], 1: [3.0]}


def test_what_is_maximised_is_best_where_it_is_greatest() -> None:
    assert common_fidelity(trained([0.5, 0.4], [0.1, 0.3], objective="valid/Corr")).values == {0: [0.5], 1: [0.3]}


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_of_a_planted_search_values_are_those_of_its_curves(tmp_path: Path, scheduler: str) -> None:
    experiment = make_experiment(tmp_path, 12, scheduler=scheduler, epochs=9, space="demo")
    records = load_records(open_experiment(experiment))
    common = common_fidelity(records)
    assert len(common.values) >= 9
    for trial in records.trials:
        if trial.number in common.values:
            until = [value for epoch, value in trial.curve.items() if epoch <= common.epochs]
            assert common.values[trial.number] == [min(until)]
    if scheduler == "asha":
        assert (common.epochs, common.reached_by) == (1, "12 of 12 trials")
    if scheduler == "none":
        assert common.is_full


def test_of_two_objectives_both_are_of_the_best_epoch_by_the_first(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 6, objectives=["valid/Corr", "valid/MAE"], epochs=4)
    records = load_records(open_experiment(experiment))
    for number, values in common_fidelity(records).values.items():
        assert values == records.study.trials[number].values
