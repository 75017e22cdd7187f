"""The curve of a grid over seeds."""

import optuna
import pytest

from deepmlf.analysis.curves import seed_curve


def study_of(values: dict[tuple[int, int], float | None]) -> optuna.Study:
    """A grid of depth and seed; None is a failed trial."""
    study = optuna.create_study()
    for (depth, seed), value in values.items():
        study.enqueue_trial({"model.fusion_depth": depth, "training.seed": seed})
        trial = study.ask()
        trial.suggest_categorical("model.fusion_depth", [2, 10])
        trial.suggest_int("training.seed", 0, 2)
        study.tell(trial, value, state=optuna.trial.TrialState.FAIL if value is None else None)
    return study


def test_points_are_means_over_seeds_in_the_settings_order() -> None:
    study = study_of({(10, 0): 1.0, (2, 0): 4.0, (10, 1): 2.0, (2, 1): 4.0, (10, 2): 3.0, (2, 2): None})
    first, second = seed_curve(study.trials)
    assert (first.setting, first.mean, first.std, first.seeds) == ({"model.fusion_depth": 2}, 4.0, 0.0, 2)
    assert (second.setting, second.mean, second.seeds) == ({"model.fusion_depth": 10}, 2.0, 3)
    assert second.std == pytest.approx(1.0)


def test_a_study_that_did_not_vary_the_seed_has_no_curve() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.suggest_int("model.fusion_depth", 1, 2)
    study.tell(trial, 1.0)
    assert seed_curve(study.trials) == []
