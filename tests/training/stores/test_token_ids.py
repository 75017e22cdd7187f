"""Token ids on disk: the tokenizer's own, made once, and never those of a torn or foreign file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as CoreTokenizer
from tokenizers import processors

from deepmlf.data.dataset import Dataset
from deepmlf.data.synthetic import make_synthetic
from deepmlf.model.lm.tokenizer import ByteTokenizer, Tokenizer
from deepmlf.training.stores.token_ids import token_ids
from tests.model.small_lm import make_folder


class CountingTokenizer(Tokenizer):
    """Knows how often it was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked = 0

    def encode_all(self, texts: list[str]) -> list[list[int]]:  # type: ignore[override]
        self.asked += 1
        return super().encode_all(texts)


pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    make_synthetic(tmp_path / "data", seed=1, sizes=(9, 4, 4))
    return Dataset.open(tmp_path / "data")


@pytest.fixture
def tokenizer(tmp_path: Path) -> CountingTokenizer:
    return CountingTokenizer(make_folder(tmp_path / "lm"))


def expected(dataset: Dataset, tokenizer: Tokenizer, max_length: int, split: str = "train") -> list[list[int]]:
    """What the tokenizer says of each text alone."""
    return [
        tokenizer._tokenizer(text, add_special_tokens=False).input_ids[:max_length]
        for text in dataset.split(split).texts
    ]


def plain(ids: object) -> list[list[int]]:
    return [row.tolist() for row in ids]  # type: ignore[attr-defined]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("max_length", [1, 3, 1000])
def test_stored_ids_are_those_of_each_text_alone(
    dataset: Dataset, tokenizer: CountingTokenizer, max_length: int
) -> None:
    for split in ("train", "valid"):
        wanted = expected(dataset, tokenizer, max_length, split)
        for _ in range(2):  # made, then read
            assert plain(token_ids(dataset, split, tokenizer, max_length)) == wanted
    assert tokenizer.asked == 2


def test_ids_are_made_once_for_all_lengths_and_lie_beside_the_dataset(
    dataset: Dataset, tokenizer: CountingTokenizer, own_home: Path
) -> None:
    token_ids(dataset, "train", tokenizer, 2)
    assert plain(token_ids(dataset, "train", tokenizer, 5)) == expected(dataset, tokenizer, 5)
    assert tokenizer.asked == 1
    assert len(files(dataset.path / "tokens")) == 1
    assert not own_home.exists()
    ids = token_ids(dataset, "train", tokenizer, 5)
    with pytest.raises(ValueError, match="read-only"):
        ids[0][0] = 7  # memory-mapped, shared with other trials


def test_another_tokenizer_and_another_dataset_have_their_own(
    dataset: Dataset, tokenizer: CountingTokenizer, tmp_path: Path
) -> None:
    token_ids(dataset, "train", tokenizer, 9)
    other = make_folder(tmp_path / "other")
    vocabulary = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(vocabulary.replace('"good": 1', '"the": 1').replace('"good":1', '"the":1'))
    other_tokenizer = CountingTokenizer(other)
    assert other_tokenizer.identity != tokenizer.identity
    assert plain(token_ids(dataset, "train", other_tokenizer, 9)) == expected(dataset, other_tokenizer, 9)
    assert CountingTokenizer(make_folder(tmp_path / "same")).identity == tokenizer.identity
    make_synthetic(tmp_path / "data2", seed=2, sizes=(9, 4, 4))
    second = Dataset.open(tmp_path / "data2")
    shutil.copytree(dataset.path / "tokens", second.path / "tokens")  # foreign ones
    assert plain(token_ids(second, "train", tokenizer, 9)) == expected(second, tokenizer, 9)
    assert tokenizer.asked == 2


@pytest.mark.parametrize("harm", ["torn", "foreign", "of another split"])
def test_a_harmed_file_is_made_anew(dataset: Dataset, tokenizer: CountingTokenizer, harm: str) -> None:
    wanted = plain(token_ids(dataset, "train", tokenizer, 9))
    (path,) = files(dataset.path / "tokens")
    if harm == "torn":
        path.write_bytes(path.read_bytes()[:-40])
    elif harm == "foreign":
        shutil.copy(dataset.path / "train.arrow", path)
    else:
        token_ids(dataset, "test", tokenizer, 9)
        shutil.copy(next(p for p in files(dataset.path / "tokens") if "test" in p.name), path)
    for _ in range(2):
        assert plain(token_ids(dataset, "train", tokenizer, 9)) == wanted
    assert tokenizer.asked == 2 + (harm == "of another split")


def test_a_dataset_that_cannot_be_written_has_its_ids_in_the_cache(
    dataset: Dataset, tokenizer: CountingTokenizer, own_home: Path
) -> None:
    (dataset.path / "tokens").write_text("in the way")
    for _ in range(2):
        assert plain(token_ids(dataset, "train", tokenizer, 4)) == expected(dataset, tokenizer, 4)
    assert tokenizer.asked == 1
    assert len(files(own_home)) == 1


def test_without_any_place_ids_are_made_each_time(
    dataset: Dataset, tokenizer: CountingTokenizer, own_home: Path
) -> None:
    (dataset.path / "tokens").write_text("in the way")
    own_home.write_text("in the way")
    for _ in range(2):
        assert plain(token_ids(dataset, "train", tokenizer, 4)) == expected(dataset, tokenizer, 4)
    assert tokenizer.asked == 2


@pytest.mark.parametrize("max_length", [1, 2, 4, 1000])
def test_a_text_that_is_cut_keeps_the_special_tokens_that_end_it(
    dataset: Dataset, tmp_path: Path, max_length: int
) -> None:
    """As the authors' tokenizer cuts: ``[CLS] … [SEP]`` at any length."""
    folder = make_folder(tmp_path / "special")
    core = CoreTokenizer.from_file(str(folder / "tokenizer.json"))
    core.post_processor = processors.TemplateProcessing(
        single="[UNK] $A good bad", special_tokens=[("[UNK]", 0), ("good", 1), ("bad", 2)]
    )
    core.save(str(folder / "tokenizer.json"))
    tokenizer = CountingTokenizer(folder)
    assert tokenizer.ending == (1, 2)
    whole = tokenizer.encode_all(dataset.split("train").texts)
    for _ in range(2):  # made, then read
        ids = plain(token_ids(dataset, "train", tokenizer, max_length))
        for cut, ids_of_all in zip(ids, whole, strict=True):
            if len(ids_of_all) <= max_length:
                assert cut == ids_of_all
            else:
                assert cut == [*ids_of_all[: max(0, max_length - 2)], 1, 2][-max_length:]
    bare = Tokenizer(folder, special_tokens="none")
    assert plain(token_ids(dataset, "train", bare, 1000)) == [ids[1:-2] for ids in whole]


def test_bytes_are_not_stored(dataset: Dataset) -> None:
    ids = token_ids(dataset, "train", ByteTokenizer(), 5)
    assert plain(ids) == [list(text.encode()[:5]) for text in dataset.split("train").texts]
    assert {row.dtype for row in ids} == {np.dtype(np.int32)}
    assert not (dataset.path / "tokens").exists()
