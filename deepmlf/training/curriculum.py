"""Curricula: which parts train on which losses, stage by stage."""

from deepmlf.config import LossTerm, Stage, TrialConfig

_ALL_LOSSES: tuple[LossTerm, ...] = ("task", "fusion", "av", "text", "lm")


def stages_of(config: TrialConfig) -> list[Stage]:
    """The stages of a trial's curriculum, in order; the last one fuses.

    ``joint`` trains everything at once. ``av_first`` first trains the audiovisual encoder alone on the labels, then
    fine-tunes it in fusion; ``av_frozen`` keeps it frozen there (DeepMLF, fusion curriculum).
    """
    curriculum, training = config.curriculum, config.training
    fusion = Stage(name="fusion", trains=("av_encoder", "fusion", "heads"), losses=_ALL_LOSSES, epochs=training.epochs)
    if curriculum.name == "joint":
        return [fusion]
    alone = Stage(
        name="av",
        trains=("av_encoder",),
        losses=("av_only",),
        epochs=curriculum.av_epochs,
        lr_scale=curriculum.av_lr / training.lr_av,
    )
    if curriculum.name == "av_frozen":
        fusion = fusion.model_copy(update={"trains": ("fusion", "heads")})
    return [alone, fusion]
