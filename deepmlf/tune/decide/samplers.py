"""Samplers by name, seeded anew for each trial, and the points of a grid."""

import warnings
from typing import Any

import optuna
from optuna import samplers

from deepmlf.config.trial import SEED_LIMIT
from deepmlf.errors import ConfigError, SearchError
from deepmlf.training.effective import EffectiveSetting
from deepmlf.tune.decide.curve_sampler import CurveSampler
from deepmlf.tune.decide.distinct import IsNew, Space
from deepmlf.tune.decide.learning import LearningSampler
from deepmlf.tune.names import SAMPLERS
from deepmlf.tune.space.bound import BoundSpace

GUIDED = ("mixed", "curves", "tpe", "gp")
"""Those whose draws nobody takes for a sample of the space, so that trials may share what they need not vary."""
_ONE_OBJECTIVE = ("mixed", "curves", "cmaes")
_LATEST = 1000  # TPE's weights of older trials fall with age anyway
_GRID_LIMIT = 1000  # points are found one by one, each slower than the one before
_VISITED = 10 * _GRID_LIMIT  # points, of which some may train the same
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


def settled(name: str, objectives: int) -> str:
    """The sampler that ``auto`` is: what measured best, see `benchmarks/search_quality`; any other one is itself."""
    if name != "auto":
        return name
    return "mixed" if objectives == 1 else "tpe"


def make_sampler(
    name: str,
    seed: int,
    number: int,
    *,
    space: Space,
    is_new: IsNew,
    epochs: int,
    trials: int,
    concurrent: int,
) -> samplers.BaseSampler:
    """A sampler for one trial: seeded by its number, so that a resumed search draws what an uninterrupted one would.

    What a sampler learns it takes from the study's trials, or keeps there (CMA-ES its distribution, NSGA-II its
    generations): nothing is lost with the object. All that learn do so from every trial that has ended.

    Args:
        name: One of `SAMPLERS`, but not ``auto``; see `settled`.
        seed: Seed of the search.
        number: The trial's number.
        space: Where settings come from.
        is_new: Whether a setting would train other than all trials before.
        epochs: Fusion epochs of a full trial.
        trials: Trials the search is to end with.
        concurrent: Trials that run at a time.
    """
    seed = (seed * 1_000_003 + number) % SEED_LIMIT
    if name == "mixed":
        # A hedge: where one of them goes astray, half of the trials do not, and each learns from all.
        name = ("tpe", "curves")[number % 2]
    if name == "curves":
        return CurveSampler(space, epochs, seed, is_new)
    with warnings.catch_warnings():
        # Some options are marked experimental; a search needs them.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            # Parameter by parameter: so many dimensions at once are more than so few trials tell apart.
            tpe = samplers.TPESampler(n_startup_trials=_STARTUP_TRIALS, constant_liar=concurrent > 1, seed=seed)
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

    Of points that train the same, as a depth that is cut to a language model's does, one is taken.

    Args:
        space: The space.
        wanted: Points wanted at most; None for all.
        seed: Seed of the order.

    Returns:
        The points, and whether there are more.

    Raises:
        SearchError: If a parameter has infinitely many values, or all points are wanted and there are too many.
    """

    points: dict[Any, dict[str, Any]] = {}
    limit = _GRID_LIMIT if wanted is None else wanted

    def visit(trial: optuna.Trial) -> float:
        overrides = space.sample(trial)
        points.setdefault(_trained(space, overrides) or trial.number, trial.params)
        if len(points) > limit:
            trial.study.stop()
        return 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=samplers.BruteForceSampler(seed=seed))
    try:
        study.optimize(visit, n_trials=_VISITED)
    except Exception as error:  # a user's space may raise anything
        raise SearchError(f"--sampler grid: every float of the space needs a step ({error})") from error
    if wanted is None and len(points) > limit:
        raise SearchError(f"--sampler grid: the space has more than {limit} points; say with --trials how many to take")
    return list(points.values())[:limit], len(points) > limit or len(study.trials) >= _VISITED


def _trained(space: BoundSpace, overrides: dict[str, Any]) -> EffectiveSetting | None:
    """What a point trains; None if it cannot be trained."""
    try:
        return space.effective(space.config_of(overrides))
    except ConfigError:
        return None
