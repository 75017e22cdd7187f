"""Where an utterance's frames lie among its padding, and what they may hold."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepmlf.data.features import read_frames
from deepmlf.data.paging import Pages
from deepmlf.errors import DataError

TOTAL, DIM = 9, 2
LENGTHS = [4, 6, 3, 9]
GENERATOR = np.random.default_rng(0)
SPEECH = [GENERATOR.normal(3, 1, (length, DIM)) for length in LENGTHS]


def padded(in_front: list[bool], padding: float = 0.0) -> np.ndarray:
    """[N, TOTAL, DIM], each utterance's speech at one of the ends."""
    array = np.full((len(SPEECH), TOTAL, DIM), padding)
    for row, frames in enumerate(SPEECH):
        part = slice(TOTAL - len(frames), None) if in_front[row] else slice(len(frames))
        array[row, part] = frames
    return array


PAGES = Pages(Path(tempfile.gettempdir()))


def read(audio: Any, lengths: Any = None, told: list[str] | None = None) -> list[np.ndarray]:
    data = {"audio": audio, "audio_lengths": lengths}
    say = [].append if told is None else told.append
    return list(read_frames("train", "audio", data, len(audio), {}, say, PAGES))


def assert_speech(found: list[np.ndarray]) -> None:
    for frames, speech in zip(found, SPEECH, strict=True):
        assert frames.dtype == np.float32
        np.testing.assert_array_equal(frames, speech.astype(np.float32))


BEHIND, FRONT, SOME = [False] * 4, [True] * 4, [False, True, False, True]
FORMS = [
    LENGTHS,
    tuple(LENGTHS),
    np.array(LENGTHS),
    np.array(LENGTHS, float)[:, None],
    [np.int64(length) for length in LENGTHS],
    [str(length) for length in LENGTHS],
]


@pytest.mark.parametrize("in_front", [BEHIND, FRONT, SOME])
@pytest.mark.parametrize("padding", [0.0, np.nan])
@pytest.mark.parametrize("lengths", [None, *FORMS])
def test_padding_is_found_at_either_end(in_front: list[bool], padding: float, lengths: Any) -> None:
    assert_speech(read(padded(in_front, padding), lengths))


def test_padding_in_front_is_told() -> None:
    told: list[str] = []
    read(padded(SOME), None, told)
    read(padded(SOME), LENGTHS, told)
    assert told == [
        "split 'train', audio: 1 of 4 rows begin with frames of zeros, left out as padding",
        "split 'train', audio: 1 of 4 rows are padded in front; their last frames are taken, as many as "
        "'audio_lengths' says",
    ]


def test_silence_at_the_ends_of_speech_belongs_to_it_where_lengths_say_so() -> None:
    """Speech that begins and ends with zeros: its own row does not show where the padding is, the others do."""
    for in_front in (BEHIND, FRONT):
        array = padded(in_front)
        speech = slice(TOTAL - LENGTHS[0], None) if in_front[0] else slice(LENGTHS[0])
        array[0, speech] = [[0, 0], [1, 2], [0, 0], [0, 0]]
        np.testing.assert_array_equal(read(array, LENGTHS)[0], [[0, 0], [1, 2], [0, 0], [0, 0]])


def test_lengths_decide_against_frames_beyond_them_and_that_is_told() -> None:
    told: list[str] = []
    array = padded(BEHIND)
    array[1, 7] = 5
    assert_speech(read(array, LENGTHS, told))
    assert told == [
        "split 'train', audio: 1 of 4 rows have frames other than zero beyond their length (the first is row 1), left "
        "out because 'audio_lengths' decides"
    ]


def test_lengths_that_count_the_padding_are_told() -> None:
    told: list[str] = []
    found = read(padded(FRONT), [TOTAL] * 4, told)
    assert [len(frames) for frames in found] == [TOTAL] * 4
    assert told == [
        "split 'train', audio: 'audio_lengths' counts all frames, though 3 of 4 rows begin or end with zeros; if those "
        "are padding, leave 'audio_lengths' out"
    ]


@pytest.mark.parametrize(
    "empty",
    [None, [], np.array([]), np.zeros((0, DIM)), np.zeros((4, DIM)), np.full((4, DIM), np.nan), float("nan"), [[]]],
)
def test_a_row_may_have_no_frames(empty: Any) -> None:
    told: list[str] = []
    found = read([*SPEECH, empty], None, told)
    assert_speech(found[:4])
    assert len(found[4]) == 0
    assert told[-1] == "split 'train', audio: 1 of 5 utterances have no frames"


@pytest.mark.parametrize("data", [{}, {"audio": None}, {"audio": None, "audio_lengths": None}])
def test_a_modality_may_be_absent(data: dict[str, Any]) -> None:
    assert [len(frames) for frames in read_frames("train", "audio", data, 3, {}, print, PAGES)] == [0, 0, 0]


def test_what_could_not_be_computed_becomes_zero_and_is_counted() -> None:
    told: list[str] = []
    array = padded(BEHIND)
    array[0, 1, 0], array[1, :2] = -np.inf, np.nan
    array[2, LENGTHS[2] :] = np.nan  # padding
    found = read(array, LENGTHS, told)
    assert (found[0][1, 0], found[0][1, 1]) == (0, np.float32(SPEECH[0][1, 1]))
    assert (len(found[1]), found[1][:2].any()) == (6, False)
    assert told == [
        "split 'train', audio: 4 values of NaN became 0 (in 1 of 4 rows)",
        "split 'train', audio: 1 values of -inf became 0 (in 1 of 4 rows)",
    ]
    told.clear()
    assert_speech(read(padded(BEHIND, np.nan), None, told))
    assert told == ["split 'train', audio: 28 values of NaN became 0 (in 3 of 4 rows)"]
    told.clear()
    read([[[1, None], [2, 3]]], None, told)
    assert told == ["split 'train', audio: 1 values of NaN became 0 (in 1 of 1 rows)"]


@pytest.mark.parametrize("value", [1e300, -1e300, 3e38, -2e19])
def test_what_float32_cannot_calculate_with_is_named(value: float) -> None:
    array = padded(BEHIND)
    array[1, 4, 1] = value
    message = rf"split 'train', audio, row 1, frame 4, feature 1: {value:g} is too large to calculate with".replace(
        "+", r"\+"
    )
    with pytest.raises(DataError, match=message):
        read(array)
    array[1, 4, 1], array[0, 8, 0] = 1, value
    assert_shape = [len(frames) for frames in read(array, LENGTHS)]
    assert assert_shape == LENGTHS  # beyond the length it is nobody's


@pytest.mark.parametrize(
    ("audio", "lengths", "message"),
    [
        (
            np.ones((2, 6)),
            None,
            r"row 0: must be \[frames, features\], but has 1 axes; one vector .*audio\[:, None, :\]",
        ),
        (np.ones((2, 1, 6, 2)), None, r"row 0: must be \[frames, features\], but has 3 axes$"),
        ([np.ones((2, 3)), np.ones((2, 4))], None, "row 1: 4 features, but 3 before"),
        ([np.ones((2, 3)), [["x"] * 3]], None, "row 1: must hold numbers, but holds a list of 1"),
        (
            np.full((1, 3, 2), np.inf),
            None,
            r"row 0, frame 0: holds 6 values of \+inf; put .*audio\[np.isposinf\(audio\)\] = 0",
        ),
        (np.ones((2, 6, 2)), [3], "split 'train': 2 ids, but 1 entries in 'audio_lengths'"),
        (np.ones((2, 6, 2)), 6, "split 'train': 'audio_lengths' must hold a value per utterance, but holds one int"),
        (np.ones((2, 6, 2)), [3, 7], "row 1: length 7 is outside 0 to 6; mend 'audio_lengths', or leave it out"),
        (np.ones((2, 6, 2)), [3, -1], "row 1: length -1 is outside 0 to 6"),
        (np.ones((2, 6, 2)), [3, 2.5], "audio_lengths, row 1: 2.5 is no number of frames"),
        (np.ones((2, 6, 2)), [3, None], "audio_lengths, row 1: is None or NaN, though it has frames; give 0 for none"),
        (np.ones((2, 6, 2)), [3, np.nan], "audio_lengths, row 1: is None or NaN, though it has frames"),
        (np.ones((2, 6, 2)), [3, "x"], "audio_lengths, row 1: must hold numbers, but holds 'x'"),
    ],
)
def test_refusals_name_the_place(audio: Any, lengths: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(audio, lengths)


def test_an_unknown_length_of_a_row_without_frames_is_none() -> None:
    array = padded(BEHIND)
    array[3] = 0
    assert [len(frames) for frames in read(array, [4, 6, 3, None])] == [4, 6, 3, 0]
