"""Texts in tokens, and how many are cut."""

from pathlib import Path

from deepmlf.data.dataset import Dataset
from deepmlf.training.stores.text_lengths import cut_texts, text_lengths


def test_tokens_are_those_of_the_tokenizer(small_data: Path) -> None:
    dataset = Dataset.open(small_data)
    sizes = sorted(len(text.encode()) for text in dataset.split("valid").texts)  # the tiny model reads bytes
    found = text_lengths(dataset, "tiny-random", sizes[20], ["valid"])
    assert list(found) == ["valid"]
    lengths = found["valid"]
    assert (lengths.min, lengths.max, lengths.utterances) == (sizes[0], sizes[-1], 24)
    assert lengths.cut == sum(size > sizes[20] for size in sizes)


def test_only_what_is_cut_is_worth_a_line(small_data: Path) -> None:
    dataset = Dataset.open(small_data)
    assert cut_texts(dataset, "tiny-random", 1000, ["train", "valid"]) is None
    line = cut_texts(dataset, "tiny-random", 1, ["valid"])
    assert line is not None
    assert line.startswith("24 of 24 texts of valid are cut at model.max_text_len=1 tokens of tiny-random (the longest")
