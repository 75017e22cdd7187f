"""What the frozen language model reaches by itself, against Hugging Face's own model and scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM

from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.model.language_model import Family, LanguageModel, tiny_random
from deepmlf.model.lm.tokenizer import ByteTokenizer
from deepmlf.training import model_baselines
from deepmlf.training.baselines import mean_frames
from deepmlf.training.model_baselines import language_model_baselines, mean_states
from deepmlf.training.stores.token_ids import token_ids
from tests.training.planted import MOODS, made

BOTH = ["language model", "language model, audio and vision"]


def loaders(dataset: Dataset, judged: str = "valid") -> tuple[Loader, Loader]:
    def tokens_of(split: str) -> list[np.ndarray]:
        return list(token_ids(dataset, split, ByteTokenizer(), 16))

    train, other = (Loader(dataset, split, tokens_of, 0, 8, standardize=True) for split in ("train", judged))
    return train, other


@torch.no_grad()
def by_hugging_face(language_model: LanguageModel, tokens: list[np.ndarray]) -> np.ndarray:
    """Mean states of Hugging Face's own model with the same weights, one text at a time."""
    config = type(language_model.config).from_dict(
        language_model.config.to_dict() | {"num_hidden_layers": language_model.num_layers}
    )
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    model.base_model.load_state_dict(language_model.decoder.module.state_dict(), strict=False)
    texts = [torch.from_numpy(ids.astype(np.int64))[None] for ids in tokens]
    return np.array([model.base_model(input_ids=ids).last_hidden_state[0].mean(0).numpy() for ids in texts])


@pytest.mark.parametrize("layers", [4, 2])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_states_are_those_of_hugging_faces_own_model(small_data: Path, family: Family, layers: int) -> None:
    language_model = tiny_random(family).first_layers(layers)
    tokens = [*loaders(Dataset.open(small_data))[1].tokens, np.array([5], np.int32)]
    found = mean_states(language_model, tokens)
    expected = by_hugging_face(language_model, tokens)
    assert found.std(0).min() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_numbers_are_those_of_a_ridge_regression_on_them(own_home: Path, small_data: Path) -> None:
    dataset, language_model = Dataset.open(small_data), tiny_random()
    train, test = loaders(dataset, "test")
    found = language_model_baselines(language_model, dataset, train, test)
    assert list(found) == BOTH
    states = [by_hugging_face(language_model, of.tokens) for of in (train, test)]
    frames = [mean_frames(dataset.split(split)) for split in ("train", "test")]
    for name, (ours, theirs) in zip(BOTH, [states, map(np.hstack, zip(states, frames, strict=True))], strict=True):
        scaler = StandardScaler().fit(ours)
        model = RidgeCV(np.logspace(0, 5, 11)).fit(scaler.transform(ours), dataset.split("train").labels)
        said = np.clip(model.predict(scaler.transform(theirs)), -3, 3)
        assert found[name]["MAE"] == pytest.approx(np.abs(said - dataset.split("test").labels).mean(), abs=1e-5)


def test_it_learns_from_words_that_tell(own_home: Path, tmp_path: Path) -> None:
    dataset = made(tmp_path / "data", words=True, frames=False)
    found = language_model_baselines(tiny_random(), dataset, *loaders(dataset))
    assert list(found) == BOTH[:1]  # there are no frames
    assert found["language model"]["Has0_acc_2"] == 1.0


def test_classes_have_it_too(own_home: Path, tmp_path: Path) -> None:
    dataset = made(tmp_path / "data", words=False, frames=True, task=MOODS)
    found = language_model_baselines(tiny_random(), dataset, *loaders(dataset))
    assert found["language model"]["accuracy"] < 0.8
    assert found["language model, audio and vision"]["accuracy"] == 1.0
    assert found["language model, audio and vision"]["cross_entropy"] < found["language model"]["cross_entropy"]


def test_it_is_computed_once_for_each_language_model_depth_and_split(own_home: Path, small_data: Path) -> None:
    dataset, language_model = Dataset.open(small_data), tiny_random()
    found = language_model_baselines(language_model, dataset, *loaders(dataset))
    (kept,) = (own_home / "baselines").glob("*.json")
    kept.write_text(json.dumps({"language model": {"MAE": 7.0}}))
    assert language_model_baselines(language_model, dataset, *loaders(dataset)) == {"language model": {"MAE": 7.0}}
    for other, split in ((language_model.first_layers(2), "valid"), (tiny_random(seed=1), "valid"),
                         (language_model, "test")):  # fmt: skip
        assert language_model_baselines(other, dataset, *loaders(dataset, split)) != found
    assert len(list((own_home / "baselines").glob("*.json"))) == 4
    kept.write_text("{")  # torn
    assert language_model_baselines(language_model, dataset, *loaders(dataset)) == found


def test_who_dies_at_it_leaves_nothing_behind(
    own_home: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, language_model = Dataset.open(small_data), tiny_random()
    with monkeypatch.context() as patch:
        patch.setattr(model_baselines, "measured", lambda *parts: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            language_model_baselines(language_model, dataset, *loaders(dataset))
    assert not list((own_home / "baselines").glob("*.json"))
    assert list(language_model_baselines(language_model, dataset, *loaders(dataset))) == BOTH


def test_a_home_that_cannot_be_written_is_no_obstacle(own_home: Path, small_data: Path) -> None:
    own_home.write_text("a file")
    dataset = Dataset.open(small_data)
    assert list(language_model_baselines(tiny_random(), dataset, *loaders(dataset))) == BOTH
