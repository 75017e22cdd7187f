"""How long a dataset's texts are in a language model's tokens, and how many of them a limit cuts."""

from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel

from deepmlf.data.dataset import Dataset
from deepmlf.model.language_model import load_tokenizer
from deepmlf.training.stores.token_ids import token_ids

_WHOLE = 2**31  # more than any text has


class TextLengths(BaseModel):
    """Tokens per utterance of a split."""

    min: int
    median: float
    max: int
    cut: int
    """Utterances whose text is longer than the limit."""
    utterances: int


def text_lengths(dataset: Dataset, language_model: str, limit: int, splits: Iterable[str]) -> dict[str, TextLengths]:
    """Count the tokens of each split that has utterances.

    Args:
        dataset: The dataset; token ids are kept beside it, as training does.
        language_model: What ``model.language_model`` would be.
        limit: ``model.max_text_len``, in tokens.
        splits: Those to be read.

    Raises:
        DataError: If a split is torn.
        LanguageModelError: If the language model is not on this machine.
    """
    tokenizer = load_tokenizer(language_model)
    found = {}
    for split in splits:
        counts = np.array([len(ids) for ids in token_ids(dataset, split, tokenizer, _WHOLE)])
        if len(counts):
            found[split] = TextLengths(
                min=int(counts.min()),
                median=float(np.median(counts)),
                max=int(counts.max()),
                cut=int((counts > limit).sum()),
                utterances=len(counts),
            )
    return found


def cut_texts(dataset: Dataset, language_model: str, limit: int, splits: Iterable[str]) -> str | None:
    """One line on the texts that a limit cuts, if it cuts any; arguments and errors as of `text_lengths`."""
    lengths = text_lengths(dataset, language_model, limit, splits)
    cut = [f"{of.cut} of {of.utterances} texts of {split}" for split, of in lengths.items() if of.cut]
    if not cut:
        return None
    longest = max(of.max for of in lengths.values())
    return (
        f"{', '.join(cut)} are cut at model.max_text_len={limit} tokens of {language_model} (the longest has "
        f"{longest}); raise it, or choose a language model made for the texts' language"
    )
