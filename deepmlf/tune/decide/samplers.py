"""Samplers by name, seeded anew for each trial, and the points of a grid."""

import warnings
from typing import Any

import optuna
from optuna import samplers

from deepmlf.config import SEED_LIMIT
from deepmlf.errors import SearchError
from deepmlf.tune.decide.learning import LearningSampler
from deepmlf.tune.space.bound import BoundSpace

SAMPLERS = ("tpe", "random", "gp", "cmaes", "grid", "nsga2")
_ONE_OBJECTIVE = ("cmaes",)
_LATEST = 1000  # TPE's weights of older trials fall with age anyway
_GRID_LIMIT = 1000  # points are found one by one, each slower than the one before
_STARTUP_TRIALS = 5  # random ones; Optuna's 10 are a good part of a small search


def check_sampler(name: str, objectives: int, *, has_warm_start: bool = False) -> None:
    """Refuse a sampler that does not exist, or cannot serve so many objectives or an earlier experiment's trials.

    Raises:
        SearchError: With the samplers to choose from.
    """
    fitting = [known for known in SAMPLERS if objectives == 1 or known not in _ONE_OBJECTIVE]
    if name not in SAMPLERS:
        raise SearchError(f"--sampler {name}: no such sampler; choose one of {', '.join(fitting)}")
    if name not in fitting:
        raise SearchError(f"--sampler {name}: works on one objective only; choose one of {', '.join(fitting)}")
    if name == "grid" and has_warm_start:
        raise SearchError("--warm-start: a grid learns nothing from earlier trials; choose another --sampler")


def make_sampler(name: str, seed: int, number: int, *, trials: int, concurrent: int) -> samplers.BaseSampler:
    """A sampler for one trial: seeded by its number, so that a resumed search draws what an uninterrupted one would.

    What a sampler learns it takes from the study's trials, or keeps there (CMA-ES its distribution, NSGA-II its
    generations): nothing is lost with the object. All of them learn from every trial that has ended.

    Args:
        name: One of `SAMPLERS`.
        seed: Seed of the search.
        number: The trial's number.
        trials: Trials the search is to end with.
        concurrent: Trials that run at a time.
    """
    seed = (seed * 1_000_003 + number) % SEED_LIMIT
    with warnings.catch_warnings():
        # Some options are marked experimental; a search needs them.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            tpe = samplers.TPESampler(
                n_startup_trials=_STARTUP_TRIALS,
                multivariate=True,
                group=True,
                constant_liar=concurrent > 1,
                seed=seed,
            )
            return LearningSampler(tpe, latest=_LATEST)
        if name == "gp":
            return LearningSampler(samplers.GPSampler(n_startup_trials=_STARTUP_TRIALS, seed=seed))
        if name == "cmaes":
            return LearningSampler(samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False))
        if name == "nsga2":
            # Optuna's 50 would make a small search one random generation.
            return LearningSampler(samplers.NSGAIISampler(population_size=max(4, min(50, trials // 5)), seed=seed))
    if name not in ("random", "grid"):
        raise SearchError(f"--sampler {name}: there is no such sampler")
    return samplers.RandomSampler(seed=seed)  # a grid's points wait in the study, nothing is drawn


def grid_points(space: BoundSpace, wanted: int | None, seed: int) -> tuple[list[dict[str, Any]], bool]:
    """The points of a space whose parameters all have finitely many values, in random order, conditions obeyed.

    Args:
        space: The space.
        wanted: Points wanted at most; None for all.
        seed: Seed of the order.

    Returns:
        The points, and whether there are more.

    Raises:
        SearchError: If a parameter has infinitely many values, or all points are wanted and there are too many.
    """

    def visit(trial: optuna.Trial) -> float:
        space.sample(trial)
        return 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=samplers.BruteForceSampler(seed=seed))
    limit = _GRID_LIMIT if wanted is None else wanted
    try:
        study.optimize(visit, n_trials=limit + 1)
    except Exception as error:  # a user's space may raise anything
        raise SearchError(f"--sampler grid: every float of the space needs a step ({error})") from error
    points = [trial.params for trial in study.trials]
    if wanted is None and len(points) > limit:
        raise SearchError(f"--sampler grid: the space has more than {limit} points; say with --trials how many to take")
    return points[:limit], len(points) > limit
