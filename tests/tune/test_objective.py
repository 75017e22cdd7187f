"""What may be optimised, in which direction, and which trials win."""

import optuna
import pytest

from deepmlf.data.task import KNOWN
from deepmlf.errors import SearchError
from deepmlf.tune.objective import best_first, check_objectives, make_objectives, pareto_front

PARAMETERS = "model/trained_parameters"


def test_directions_are_known_by_name() -> None:
    objectives = make_objectives(["valid/MAE", "valid/Corr", "valid/Has0_acc_2", PARAMETERS])
    assert [one.direction for one in objectives] == ["minimize", "maximize", "maximize", "minimize"]
    assert [one.short for one in objectives] == ["MAE", "Corr", "Has0_acc_2", "trained_parameters"]
    mae, corr = objectives[:2]
    assert mae.is_better(1.0, None)
    assert mae.is_better(1.0, 2.0)
    assert not corr.is_better(0.1, 0.2)
    assert (mae.best([2.0, 1.0]), corr.best([2.0, 1.0])) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["valid/mae"], "--objective valid/mae: no such metric; mosi has valid/Has0_acc_2, "),
        (["valid/Mult_acc_3"], "--objective valid/Mult_acc_3: no such metric; mosi has "),
        (["valid/MAE"] * 2, "--objective valid/MAE,valid/MAE: expected one metric, or two different ones"),
        (["valid/MAE", "valid/Corr", PARAMETERS], "expected one metric, or two different ones"),
        ([PARAMETERS], f"--objective {PARAMETERS}: picks no best epoch; name a validation metric first"),
    ],
)
def test_what_cannot_be_optimised_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(SearchError) as caught:
        check_objectives(names, "mosi", KNOWN["mosi"])
    assert message in str(caught.value)


def test_a_front_holds_what_no_other_trial_beats() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    for values in ([0.9, 10], [0.8, 30], [0.7, 20], [0.6, 40]):
        study.tell(study.ask(), values)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    objectives = make_objectives(["valid/MAE", PARAMETERS])
    ranked = best_first(study.get_trials(), objectives)
    assert [trial.number for trial in ranked] == [3, 2, 1, 0]
    assert pareto_front(ranked, objectives) == [3, 2, 0]
    assert pareto_front([], objectives) == []


def test_the_best_by_a_metric_to_maximise_is_the_highest() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.1, 0.3, 0.2):
        study.tell(study.ask(), value)
    objectives = make_objectives(["valid/Corr"])
    ranked = best_first(study.get_trials(), objectives)
    assert [trial.number for trial in ranked] == [1, 2, 0]
    assert pareto_front(ranked, objectives) == [1]
