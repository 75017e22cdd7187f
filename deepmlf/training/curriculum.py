"""Curricula: which parts train on which losses, stage by stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deepmlf.config.trial import LossTerm, Stage, TrialConfig
from deepmlf.training.reports import AV_REUSED, EpochReport

_ALL_LOSSES: tuple[LossTerm, ...] = ("task", "fusion", "av", "text", "lm")


def stages_of(config: TrialConfig) -> list[Stage]:
    """The stages of a trial's curriculum, in order; fusion stages come last and sum up to ``training.epochs``.

    ``joint`` trains everything at once. ``av_first`` first trains the audiovisual encoder alone on the labels, then
    fine-tunes it in fusion; ``av_frozen`` keeps it frozen there (DeepMLF, fusion curriculum). ``unimodal_first`` also
    trains the text head before fusion. ``grow_depth`` fuses from the start, at first with the top MM block alone.

    Every schedule is legal: stages before fusion have at least one epoch, and so has the last one, which has all
    MM blocks.
    """
    curriculum, budget = config.curriculum, config.training.epochs
    fusion = Stage(name="fusion", trains=("av_encoder", "fusion", "heads"), losses=_ALL_LOSSES, epochs=budget)
    if curriculum.name == "joint":
        return [fusion]
    if curriculum.name == "grow_depth":
        return _growing(fusion, config.model.num_mm_blocks, curriculum.grow_share)
    av = Stage(
        name="av",
        trains=("av_encoder", "heads"),
        losses=("av",),
        epochs=_epochs(curriculum.av_epochs, curriculum.av_share, budget),
        lr=curriculum.av_lr,
        batch_size=curriculum.av_batch_size,
        accumulation_steps=curriculum.av_accumulation_steps,
        weight_decay=curriculum.av_weight_decay,
    )
    if curriculum.name == "av_frozen":
        return [av, fusion.model_copy(update={"trains": ("fusion", "heads")})]
    if curriculum.name == "av_first":
        return [av, fusion]
    # The two modalities share no weights, so that training one after the other is training them together; apart, the
    # audiovisual stage is the same as that of `av_first`.
    text = Stage(
        name="text",
        trains=("heads",),
        losses=("text",),
        epochs=_epochs(curriculum.text_epochs, curriculum.text_share, budget),
        lr=curriculum.text_lr,
    )
    return [av, text, fusion]


def has_stalled(maes: Sequence[float], patience: int | None) -> bool:
    """Whether the last `patience` epochs of these validation errors, one at least, brought no better one.

    None is never reached.
    """
    return patience is not None and len(maes) - 1 - maes.index(min(maes)) >= patience


@dataclass(frozen=True)
class Underway:
    """Where a trial stands between two reports.

    >>> Underway("fusion", done=3, planned=9, epochs_left=6).words
    'fusion 3 of 9'
    """

    stage: str
    """Name of the stage that trains now, which the last report need not be of."""
    done: int
    """Finished epochs of it; fusion stages count as one, so that it is the fidelity."""
    planned: int
    """Its epochs, if nothing ends it earlier."""
    epochs_left: int
    """Of it and of the stages after it."""

    @property
    def words(self) -> str:
        """For people: the stage, and how much of it is done."""
        return f"{self.stage} {self.done} of {self.planned}"


def underway(config: TrialConfig, reports: Sequence[EpochReport]) -> Underway:
    """Where a trial stands by what it has reported.

    Args:
        config: The trial.
        reports: Its own, in their order.
    """
    stages = stages_of(config)
    index, done = _stage_of(config, stages, reports)
    stage, later = stages[index], sum(one.epochs for one in stages[index + 1 :])
    if not stage.is_fusion:
        return Underway(stage.name, done, stage.epochs, stage.epochs - done + later)
    planned = config.training.epochs
    fidelity = (reports[-1].fidelity or 0) if reports else 0
    has_ended = bool(reports) and reports[-1].is_last
    return Underway(stage.name, fidelity, planned, 0 if has_ended else planned - fidelity)


def epoch_words(config: TrialConfig, reports: Sequence[EpochReport]) -> str:
    """The last report's epoch among those of its stage, e.g. ``fusion epoch 3 of 9`` or ``av epoch 2 of 4``.

    Args:
        config: The trial.
        reports: Its own up to that one, in their order.
    """
    last = reports[-1]
    if last.fidelity is not None:
        stage = "" if last.stage == "fusion" else f"{last.stage}, "
        return f"{stage}fusion epoch {last.fidelity} of {config.training.epochs}"
    planned = {stage.name: stage.epochs for stage in stages_of(config)}.get(last.stage)
    return f"{last.stage} epoch {_epoch_in_stage(reports)}" + (f" of {planned}" if planned else "")


def _stage_of(config: TrialConfig, stages: list[Stage], reports: Sequence[EpochReport]) -> tuple[int, int]:
    """Index of the stage that trains now, and its finished epochs."""
    if not reports:
        return 0, 0
    last = reports[-1]
    index = next((i for i, stage in enumerate(stages) if stage.name == last.stage), len(stages) - 1)
    stage, done = stages[index], _epoch_in_stage(reports)
    is_over = done >= stage.epochs or bool(last.get(AV_REUSED))
    if stage.is_av_alone and not is_over:
        errors = [
            next((value for name, value in report.metrics.items() if name.startswith("unimodal/av_")), math.inf)
            for report in reports
        ]
        is_over = has_stalled(errors, config.curriculum.av_patience)
    if is_over and index + 1 < len(stages):
        return index + 1, 0
    return index, done


def _epoch_in_stage(reports: Sequence[EpochReport]) -> int:
    """Finished epochs of the last report's stage; a stage from the store has one report, of its last epoch."""
    last = reports[-1]
    earlier = [report.epoch for report in reports if report.stage != last.stage]
    return last.epoch - (earlier[-1] if earlier else 0)


def whole_model_from(config: TrialConfig) -> int:
    """The first fusion epoch in which all MM blocks are in use; what was reached before is no merit of the setting."""
    return 1 + sum(stage.epochs for stage in stages_of(config) if stage.active_blocks is not None)


def silent_heads(config: TrialConfig) -> tuple[str, ...]:
    """Auxiliary heads (``text``, ``av``, ``fusion``) whose predictions say nothing about a finished trial.

    Their loss did not count in fusion: they were never trained, or what they read has changed since. The audiovisual
    head is trained in a stage of its own, and still fits an encoder that stayed frozen. Without fusion tokens they have
    no head.
    """
    training, is_frozen = config.training, config.curriculum.name == "av_frozen"
    counted = {
        "text": training.loss_text > 0,
        "av": training.loss_av > 0 or is_frozen,
        "fusion": training.loss_fusion > 0 and config.model.num_fusion_tokens > 0,
    }
    return tuple(head for head, counts in counted.items() if not counts)


def has_text_alone(config: TrialConfig) -> bool:
    """Whether the text head is trained and says what words alone tell: without fusion tokens they attend to audio and
    vision."""
    return config.model.num_fusion_tokens > 0 and "text" not in silent_heads(config)


def _epochs(epochs: int, share: float | None, budget: int) -> int:
    return epochs if share is None else max(1, round(share * budget))


def _growing(fusion: Stage, depth: int, share: float) -> list[Stage]:
    """Split a fusion stage: in the first `share` of its epochs MM blocks join from the top, `depth` in all."""
    growing = min(round(share * fusion.epochs), fusion.epochs - 1)
    count = min(depth - 1, growing)  # stages that lack blocks
    stages = []
    for index in range(count):
        active = math.ceil(depth * (index + 1) / (count + 1))
        epochs = growing * (index + 1) // count - growing * index // count
        changes = {"name": f"fusion_{active}", "active_blocks": active, "epochs": epochs}
        stages.append(fusion.model_copy(update=changes))
    left = fusion.epochs - sum(stage.epochs for stage in stages)
    return [*stages, fusion.model_copy(update={"epochs": left})]
