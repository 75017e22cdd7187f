"""What is used of Ray's and Optuna's insides: refused by name where a release has moved it."""

import importlib.metadata

import optuna
import pytest
from optuna.distributions import BaseDistribution
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

from deepmlf.errors import SearchError
from deepmlf.tune.cluster import ray_patches
from deepmlf.tune.decide.scheduler import make_scheduler
from deepmlf.tune.experiment import study
from deepmlf.tune.objective import make_objectives

(MAE,) = make_objectives(["valid/MAE"])


def test_the_installed_releases_have_what_is_used() -> None:
    study.check_insides()
    ray_patches.check_insides()


def test_an_optuna_that_has_moved_an_inside_is_refused_with_the_release_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(BaseDistribution, "_contains")
    with pytest.raises(SearchError) as caught:
        study.check_insides()
    assert str(caught.value) == (
        f"optuna {importlib.metadata.version('optuna')}: lacks BaseDistribution._contains, which a search needs; "
        "known to work: optuna 5.0"
    )


def test_a_ray_that_has_moved_an_inside_is_refused_before_it_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = TuneController._trial_task_failure
    monkeypatch.delattr(TuneController, "_try_recover")
    with pytest.raises(SearchError, match=r"^ray \S+: lacks TuneController._try_recover, which a search needs; known"):
        ray_patches.adjusted_ray().__enter__()
    assert TuneController._trial_task_failure is before


@pytest.mark.parametrize(
    ("name", "owner", "inside"),
    [("asha", ASHAScheduler, "_metric_op"), ("median", MedianStoppingRule, "_on_insufficient_samples")],
)
def test_a_scheduler_without_its_insides_is_refused(
    name: str, owner: type, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = owner.__init__

    def without(self: object, **options: object) -> None:
        init(self, **options)
        vars(self).pop(inside, None)

    monkeypatch.setattr(owner, "__init__", without)
    if inside in vars(owner):
        monkeypatch.delattr(owner, inside)
    with pytest.raises(SearchError, match=rf"^ray \S+: lacks \w+\.{inside}, which a search needs; known to work: ray "):
        make_scheduler(name, optuna.create_study(), MAE, epochs=9, grace_period=1, reduction_factor=3, seed=0)
