"""Special tokens are the tokenizer's own, or none."""

from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer as Core
from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from deepmlf.model.language_model import load_tokenizer
from deepmlf.model.lm.identity import tokenizer_files
from deepmlf.model.lm.tokenizer import Tokenizer
from tests.model.small_lm import make_folder

WORDS = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "good": 4, "bad": 5}


def make(folder: Path, template: str | None) -> Path:
    core = Core(models.WordLevel(WORDS, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if template is not None:
        used = [(word, WORDS[word]) for word in template.split() if word in WORDS]
        core.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("template", "expected", "ending"),
    [
        (None, [[4, 5], []], ()),
        ("[CLS] $A [SEP]", [[1, 4, 5, 2], [1, 2]], (2,)),
        ("[CLS] $A", [[1, 4, 5], [1]], ()),
        ("$A [SEP]", [[4, 5, 2], [2]], (2,)),
        ("$A [SEP] [CLS]", [[4, 5, 2, 1], [2, 1]], (2, 1)),
    ],
)
def test_texts_have_the_tokenizers_own(
    tmp_path: Path, template: str | None, expected: list[list[int]], ending: tuple[int, ...]
) -> None:
    folder = make(tmp_path / "t", template)
    whole, bare = Tokenizer(folder), Tokenizer(folder, special_tokens="none")
    assert whole.encode_all(["good bad", ""]) == expected
    assert whole.ending == ending
    assert bare.encode_all(["good bad", ""]) == [[4, 5], []]
    assert bare.ending == ()
    assert (whole.identity == bare.identity) == (template is None)
    assert whole.vocab_size == 6
    whole.save(tmp_path / "saved")
    assert Tokenizer(tmp_path / "saved", alone=True).encode_all(["good bad", ""]) == expected


def test_a_tokenizer_without_any_is_the_same_either_way(tmp_path: Path) -> None:
    """As those of GPT-2 and SmolLM2: what was stored for them stays of use."""
    folder = str(make_folder(tmp_path / "lm"))
    first, second = load_tokenizer(folder), load_tokenizer(folder, "none")
    assert first.identity == second.identity
    assert first.encode_all(["good bad"]) == second.encode_all(["good bad"]) == [[1, 2]]


def test_a_sentencepiece_model_is_a_tokenizer(tmp_path: Path) -> None:
    """As Llama 2, Mistral and Gemma came: a ``tokenizer.model`` and nothing that was made of it."""
    texts = ["the film was good", "a terrible, boring movie", "not bad at all"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(tmp_path / "tokenizer"), vocab_size=60, model_type="bpe",
        byte_fallback=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
    )  # fmt: skip
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    tokenizer = Tokenizer(tmp_path)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in ("the film was bad", "boring"):
        assert tokenizer.encode_all([text])[0][-3:] == reference.encode(text)[-3:]
    assert "tokenizer.model" in {path.name for path in tokenizer_files(tmp_path)}
