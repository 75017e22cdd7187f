"""Whether unimodal labels can be generated for a dataset; asks for no PyTorch: a search's driver checks it, too."""

import numpy as np

from deepmlf.config.trial import TrainingConfig
from deepmlf.data.task import Task
from deepmlf.errors import ConfigError


def check_ulgm(training: TrainingConfig, task: Task, labels: np.ndarray) -> None:
    """Refuse ``training.ulgm`` where there are no two sides whose centres could be told apart.

    Args:
        training: Of the trial.
        task: The dataset's.
        labels: [N], of the utterances that are trained on.

    Raises:
        ConfigError: If labels are classes, or none is below or none above the middle.
    """
    if not training.ulgm:
        return
    if task.is_classification:
        raise ConfigError("training.ulgm=True: generates numbers, but the dataset's labels are classes; leave it off")
    targets = task.targets(labels)
    positive, negative = int((targets > 0).sum()), int((targets < 0).sum())
    if not (positive and negative):
        raise ConfigError(
            f"training.ulgm=True: needs train labels on both sides of {task.middle:g}, but {positive} are above and "
            f"{negative} below; leave it off"
        )
