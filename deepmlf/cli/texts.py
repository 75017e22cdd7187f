"""What a command says of texts that are longer than the model reads."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from deepmlf.cli.output import tell
from deepmlf.config.model import ModelConfig
from deepmlf.errors import LanguageModelError

if TYPE_CHECKING:
    from deepmlf.data.dataset import Dataset
    from deepmlf.tune.space.bound import BoundSpace

DEFAULT_LM = ModelConfig().language_model
_SETTING = "model.max_text_len"


def limit_of(dataset: "Dataset") -> int:
    """Tokens at which texts are cut in the search space that a dataset has by default."""
    from deepmlf.tune.space.load import load_space, space_for

    return int(load_space(space_for(dataset.info)).base.get(_SETTING, ModelConfig().max_text_len))


def limit_of_space(space: "BoundSpace") -> int | None:
    """Tokens at which all trials of a search cut texts; None if each draws its own."""
    given = space.base.overrides.get(_SETTING)
    if given is None and _SETTING in space.space.source:
        return None
    return int(given or ModelConfig().max_text_len)


def tell_cut_texts(dataset: "Dataset", language_model: str, limit: int, splits: Iterable[str]) -> None:
    """Say how many texts are cut, if any are; nothing where the language model is not on this machine."""
    from deepmlf.training.stores.text_lengths import cut_texts

    try:
        message = cut_texts(dataset, language_model, limit, splits)
    except LanguageModelError:
        return
    if message:
        tell(message)
