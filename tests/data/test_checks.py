"""What no single row shows: leaks between splits, labels of something else, features that a few values scale."""

from dataclasses import replace

import numpy as np
import pytest

from deepmlf.data.checks import check_labels, tell_oddities
from deepmlf.data.dataset import SplitData
from deepmlf.data.task import KNOWN
from deepmlf.errors import DataError


def split(tag: str, count: int = 30) -> SplitData:
    generator = np.random.default_rng(sum(tag.encode()))
    frames = {name: [generator.normal(size=(8, 3)).astype(np.float32) for _ in range(count)] for name in ("a", "v")}
    return SplitData(
        [f"{tag}{row}" for row in range(count)], ["okay"] * count, np.zeros(count), frames["a"], frames["v"]
    )


def splits() -> dict[str, SplitData]:
    return {name: split(name) for name in ("train", "valid", "test")}


def told_of(data: dict[str, SplitData]) -> list[str]:
    told: list[str] = []
    tell_oddities(data, (3, 3), told.append)
    return told


def told_of_labels(dataset: str, *values: float) -> list[str]:
    told: list[str] = []
    check_labels(KNOWN[dataset], {"train": np.array(values, np.float32), "valid": np.array([values[0]])}, told.append)
    return told


def test_nothing_odd_is_nothing_told() -> None:
    assert told_of(splits()) == []


def test_utterances_of_two_splits_are_told_by_id() -> None:
    data = splits()
    data["test"] = replace(data["test"], ids=["new", *data["train"].ids[1:]])
    assert told_of(data) == [
        "29 of 30 utterances of 'test' are in 'train', too, by their ids (the first is 'train1'): results on 'test' "
        "would be of data that is not new"
    ]


def test_utterances_of_two_splits_are_told_by_content_under_new_ids() -> None:
    data = splits()
    data["valid"] = replace(data["train"], ids=data["valid"].ids)
    assert told_of(data)[0].startswith(
        "30 of 30 utterances of 'valid' are in 'train', too, by their texts and features, under other ids (the first"
    )
    silent = [np.zeros((0, 3), np.float32)] * 30  # a text like "okay" occurs again
    data = {name: replace(one, audio=silent, vision=silent) for name, one in splits().items()}
    assert told_of(data) == []


@pytest.mark.parametrize(("lacking", "having"), [(["test"], "train and valid"), (["train"], "valid and test")])
def test_a_modality_that_a_split_lacks_is_told(lacking: list[str], having: str) -> None:
    data = splits()
    for name in lacking:
        data[name] = replace(data[name], vision=[np.zeros((0, 3), np.float32)] * 30)
    assert told_of(data) == [f"no utterance of {lacking[0]} has vision, though those of {having} have"]


@pytest.mark.parametrize("outlier", [1e18, -3e5, 1e4])
@pytest.mark.parametrize("count", [1, 30])
def test_one_value_that_scales_a_feature_is_told(outlier: float, count: int) -> None:
    data = splits()
    data["train"] = split("train", count * 10)
    data["train"].audio[7][5, 2] = outlier
    told = told_of(data)
    assert len(told) == 1
    assert told[0].startswith(
        f"split 'train', audio, row 7, frame 5, feature 2: {outlier:g} makes the feature's standard"
    )


def test_heavy_tails_and_rare_features_are_not_told() -> None:
    data = splits()
    generator = np.random.default_rng(0)
    for one in data.values():
        for frames in one.audio:
            frames[:, 0] = generator.lognormal(sigma=2, size=8)  # a loudness
            frames[:, 1] = 0
        one.audio[3][2, 1] = 1  # active in one frame of all
        for frames in one.vision:
            frames[:, 0] = generator.standard_t(2, size=8)
    assert told_of(data) == []


def test_a_value_far_from_all_of_train_is_told() -> None:
    data = splits()
    data["valid"].vision[4][1, 0] = 1e9
    (line,) = told_of(data)
    assert line.startswith("split 'valid', vision, row 4, frame 1, feature 0: 1e+09 is 1")
    assert line.endswith("standard deviations of train from its mean; mend or clip it")


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_classes_are_no_labels(values: tuple[float, ...]) -> None:
    with pytest.raises(
        DataError,
        match=f"whole numbers from {values[0]} to {values[-1]} alone, as classes are; --task classification takes",
    ):
        told_of_labels("mosi", *values * 4)


@pytest.mark.parametrize("values", [(-1, 1), (-1, 0, 1), (-3, -2, 0, 2), (0, 0.4, 2), (0, 0, 0), (3, 1.5)])
def test_labels_of_mosi_are_labels(values: tuple[float, ...]) -> None:
    told = told_of_labels("mosi", *values * 4)
    assert [line for line in told if "every label" not in line] == []


def test_labels_of_sims_under_another_name_are_told() -> None:
    assert told_of_labels("mosi", -1, -0.6, 0.2, 1) == [
        "no label is beyond 1 and all are steps of 0.2: if this is CH-SIMS, import it with --dataset sims; metrics "
        "depend on it"
    ]
    assert told_of_labels("mosei", -0.33, 0.5) == [
        "no label is beyond 1: if this is CH-SIMS, import it with --dataset sims; metrics depend on it"
    ]
    assert told_of_labels("sims", -1, -0.6, 0.2, 1) == []


def test_constant_labels_are_told() -> None:
    assert told_of_labels("mosi", -2, -2, -2) == ["split 'train': every label is -2; Corr is 0 by definition there"]
