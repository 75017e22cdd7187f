"""What an experiment's trials stand beside: simple models that its driver fitted, and those that its trials report."""

from collections.abc import Iterable

from optuna.trial import FrozenTrial

from deepmlf.training.reports import TEXT_HEAD, Baselines, baselines_among, read_reports
from deepmlf.tune.experiment.layout import trial_folder
from deepmlf.tune.experiment.stored import StoredExperiment


def baselines_of(experiment: StoredExperiment, ranked: Iterable[FrozenTrial]) -> dict[str, float]:
    """The first objective of each baseline that has it, by name.

    Of each language model those of its best trial count, which may use some of its layers alone; of text heads that of
    the best trial.

    Args:
        experiment: The experiment.
        ranked: Its trials, best first.
    """
    first, manifest = experiment.objectives[0], experiment.manifest
    found: Baselines = dict(manifest.baselines)
    text: Baselines = {}
    known: set[str] = set()
    for place, trial in enumerate(ranked):
        if len(known) == len(manifest.settings.all_lms):
            break
        lm = experiment.config_of(trial).model.language_model
        if lm in known:
            continue
        reports = read_reports(trial_folder(experiment.folder, trial.number))
        of_trial = baselines_among(reports, first.name, first.direction)
        own = of_trial.pop(TEXT_HEAD, None)
        if place == 0 and own is not None:
            text = {TEXT_HEAD: own}
        if of_trial:
            known.add(lm)
            found |= {manifest.baseline_name(name, lm): metrics for name, metrics in of_trial.items()}
    return {name: metrics[first.short] for name, metrics in (found | text).items() if first.short in metrics}
