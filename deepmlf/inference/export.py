"""A trial's best epoch as a folder to take home, with its model card."""

from pathlib import Path
from typing import Any

from deepmlf.config.trial import TrialConfig
from deepmlf.inference.predictor import Predictor, read_trial_config, require_best
from deepmlf.model.pretrained import refuse_occupied
from deepmlf.places import Place
from deepmlf.templates import templates_of
from deepmlf.training.checkpoints.files import BEST, read_metadata
from deepmlf.version import __version__

_OF_THE_MACHINE = ("data.path", "training.device")


def export_trial(trial: Path, out: Path, data: str | Path | None = None) -> dict[str, float]:
    """Write a trial's best epoch as a folder that ``DeepMLF.from_pretrained`` and ``deepmlf predict`` read.

    Args:
        trial: The trial's folder, with ``config.json`` and ``best/``.
        out: A folder that is empty or missing.
        data: Where the dataset of the training is now; None: where it was.

    Returns:
        Validation metrics of the best epoch.

    Raises:
        CheckpointError: If `trial` has no best weights, or `out` holds something or cannot be written.
        DataError, LanguageModelError: If the dataset or the language model of the training is not in place.
    """
    refuse_occupied(out)
    config = read_trial_config(trial)
    require_best(trial)
    best = read_metadata(trial / BEST)
    predictor = Predictor.open_trial(trial, data=data, device="cpu")  # nothing is computed
    card = _card(trial.absolute().name, config, best, predictor)
    predictor.model.save_pretrained(out, trained_on=predictor.trained_on, card=card)
    return dict(best["valid"])


def _card(name: str, config: TrialConfig, best: dict[str, Any], predictor: Predictor) -> str:
    model, trained_on, lm_name = predictor.model, predictor.trained_on, config.model.language_model
    is_place = lm_name.startswith((".", "~", "/")) or Place.of(lm_name).is_remote
    environment = templates_of("deepmlf.inference", html=False)
    return environment.get_template("model_card.md.jinja").render(
        name=name,
        version=__version__,
        data=trained_on.dataset,
        task=trained_on.dataset.task,
        language_model=Path(lm_name).name if is_place else lm_name,
        lm_is_a_place=is_place,
        num_layers=model.language_model.num_layers,
        fusion_layers=model.active_layers,
        audio_dim=model.audio_dim,
        vision_dim=model.vision_dim,
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        epoch=best["fusion_epoch"],
        selected=config.training.select_by,
        valid=best["valid"],
        settings={
            key: value for key, value in config.flat().items() if key not in _OF_THE_MACHINE and value is not None
        },
    )
