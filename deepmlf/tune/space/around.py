"""The setting that a search is made around: that published for a dataset, or the best of an earlier experiment."""

from typing import Any

from deepmlf.errors import SearchError
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.names import PUBLISHED, published_settings
from deepmlf.tune.objective import best_first
from deepmlf.tune.space.base import DRAWN_BY_NONE, SEED
from deepmlf.tune.space.load import load_space


def settings_around(name: str) -> tuple[dict[str, Any], str]:
    """What stays fixed in a search around a setting, in place of the space's ``BASE``.

    Args:
        name: A published setting (``mosi``, ``mosei``, ``mosei_large`` or ``sims``), or the path or URI of an
            experiment: then its best trial by its first objective, stopped ones included.

    Returns:
        Overrides by dotted names, without the settings that a search itself decides and without the seed; and a line
        that says where they are from.

    Raises:
        SearchError: If there is no such setting and no such experiment, or no trial of it has come to anything.
    """
    published = published_settings()
    if name in published:
        return load_space(PUBLISHED + name).base, f"--around {name}: all that is not drawn is as published for {name}"
    try:
        experiment = open_experiment(name)
    except SearchError as error:
        raise SearchError(f"--around {error}; published settings: {', '.join(published)}") from None
    ranked = best_first(experiment.trials(), experiment.objectives)
    if not ranked:
        raise SearchError(f"--around {name}: none of its trials has come to anything yet")
    best, objective = ranked[0], experiment.objectives[0].name
    config = experiment.config_of(best)
    line = (
        f"--around {name}: all that is not drawn is as in trial {best.number} ({objective} {best.values[0]:.4f} on "
        f"{config.data.path} with {config.model.language_model}, {config.training.epochs} fusion epochs)"
    )
    kept = {setting: value for setting, value in config.flat().items() if setting not in {*DRAWN_BY_NONE, SEED}}
    return kept, line
