"""What an explanation tells is what the model did."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepmlf.data.dataset import Dataset
from deepmlf.errors import DataError
from deepmlf.inference.explain import explain
from deepmlf.inference.predictor import Predictor
from deepmlf.model.av_encoder import AudioVisualStates
from deepmlf.model.mm_block import GatedCrossAttention
from deepmlf.training.frame_attention import attention_over_frames


def test_the_weights_are_those_of_the_forward_pass() -> None:
    torch.manual_seed(0)
    attention = GatedCrossAttention(width=8, av_width=6, heads=2, dropout=0.1).eval()
    mask = torch.tensor([[True, True, False], [False, False, False]])
    av, fusion = AudioVisualStates(torch.randn(2, 3, 6) * mask[..., None], mask), torch.randn(2, 4, 8)
    weights = attention.attention_weights(fusion, av)
    assert weights.shape == (2, 2, 4, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4))
    assert not weights[0, ..., 2].any()
    values = attention.value(av.frames).unflatten(-1, (2, -1)).transpose(1, 2)
    expected = attention.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(fusion, av), expected)


def test_an_explanation_has_the_numbers_of_predict(small_export: Path, small_data: Path) -> None:
    predictor, dataset = Predictor.open(small_export), Dataset.open(small_data)
    row = predictor.predict(dataset, "valid").slice(5, 1).to_pylist()[0]
    explanation = explain(predictor, dataset, row["id"])
    heads = {head: f"sentiment_{head}" if head != "task" else "sentiment" for head in explanation.predictions}
    assert list(heads) == ["task", "text", "av", "fusion"]
    for head, column in heads.items():
        assert explanation.predictions[head] == pytest.approx(row[column], abs=1e-6)
    assert explanation.classes == {"task": row["sentiment_class"], "label": row["label_class"]}
    assert (explanation.split, explanation.text) == ("valid", row["text"])
    [block] = explanation.blocks
    assert block.layer == 0
    assert block.weights.shape == (3, 6)
    np.testing.assert_allclose(block.weights.sum(1), 1, atol=1e-6)
    assert block.attention_gate == predictor.model.gates()["gate/0/attention"]
    assert not predictor.model.mm_blocks["0"].attention._forward_pre_hooks


def test_an_unknown_id_is_answered_with_near_ones(small_export: Path, small_data: Path) -> None:
    predictor, dataset = Predictor.open(small_export), Dataset.open(small_data)
    with pytest.raises(DataError, match=r"--id tset_7: no such utterance in .*; near it are test_7, "):
        explain(predictor, dataset, "tset_7")
    with pytest.raises(DataError, match=r"--id ###: no such utterance in .*; ids look like test_0"):
        explain(predictor, dataset, "###")


def test_attention_over_frames_is_the_mean_of_what_the_blocks_give(small_export: Path, small_data: Path) -> None:
    predictor, dataset = Predictor.open(small_export), Dataset.open(small_data)
    loader = predictor.loader(dataset, "valid")
    shares = attention_over_frames(predictor.model.train(), loader, "float32")
    assert predictor.model.training
    predictor.model.eval()
    rows = dataset.split("valid")
    spread = np.linspace(0, len(rows) - 1, min(len(rows), loader.batch_size)).astype(int)
    blocks = [
        explain(predictor, dataset, rows.ids[row]).blocks[0].weights.mean(0)
        for row in spread.tolist()
        if len(rows.audio(row)) or len(rows.vision(row))
    ]
    assert list(shares) == ["attention/0"]
    np.testing.assert_allclose(shares["attention/0"], np.mean(blocks, axis=0), atol=1e-5)
