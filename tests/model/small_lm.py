"""A language model's folder as transformers saves it, made in a moment."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast


def make_folder(folder: Path, width: int = 8) -> Path:
    """A real GPT-2 of one layer with a real tokenizer of three words, as transformers saves them."""
    words = Tokenizer(WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    config = GPT2Config(vocab_size=3, n_embd=width, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
