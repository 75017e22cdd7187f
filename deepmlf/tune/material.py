"""What a search works on, opened: a dataset, and one language model or several among which trials draw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepmlf.data.dataset import Dataset
from deepmlf.errors import SearchError
from deepmlf.model import lm_store
from deepmlf.model.lm_store import KnownLanguageModel, LanguageModelFacts


@dataclass(frozen=True)
class Material:
    """A dataset and language models, opened."""

    dataset: Dataset
    language_models: Mapping[str, KnownLanguageModel]
    """By the names that hold in any folder of this machine, in the order asked for."""

    @property
    def first(self) -> KnownLanguageModel:
        """The first of the language models, or the only one."""
        return next(iter(self.language_models.values()))

    @property
    def facts(self) -> dict[str, LanguageModelFacts]:
        """Sizes of each by name."""
        return {name: known.facts for name, known in self.language_models.items()}


def open_material(data: str, *language_models: str) -> Material:
    """Open dataset and language models.

    Raises:
        DataError: If the dataset cannot be used.
        LanguageModelError: If a language model is not on this machine.
        SearchError: If one is named twice.
    """
    return _opened(Dataset.open(data), language_models)


def get_material(data: str, *language_models: str, progress: Callable[[str], None] = lambda step: None) -> Material:
    """Open dataset and language models, and fetch those of the latter that are not on this machine.

    Args:
        data: Folder or URI of an imported dataset.
        *language_models: What ``deepmlf lm get`` takes.
        progress: Called with one line before each slow step.

    Raises:
        DataError: If the dataset cannot be used.
        LanguageModelError: If a language model can be neither found, fetched nor converted.
        SearchError: If one is named twice.
    """
    dataset = Dataset.open(data)
    for name in language_models:
        lm_store.get(name, progress=progress, compare=_compare)
    return _opened(dataset, language_models)


def _compare(folder: Path) -> str:
    from deepmlf.model.admission import reading  # imports torch, for a model that was never looked at

    return reading(folder)


def _opened(dataset: Dataset, names: tuple[str, ...]) -> Material:
    dataset.require_whole("train", "valid")  # a search has no business with the test split
    known: dict[str, KnownLanguageModel] = {}
    for name in names:
        opened = lm_store.known(name)
        twin = next((other for other, one in known.items() if one.fingerprint == opened.fingerprint), None)
        if twin is not None:
            raise SearchError(f"--lm {name}: is the same language model as --lm {twin}; name each one once")
        known[lm_store.absolute(name)] = opened
    return Material(dataset, known)
