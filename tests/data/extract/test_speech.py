"""openSMILE hears the pitch that was made."""

import numpy as np
import pytest

from deepmlf.data.extract.decoding import SAMPLING_RATE
from deepmlf.data.extract.speech import SpeechFeatures
from tests.data.extract.clips import tone


@pytest.fixture(scope="module")
def speech() -> SpeechFeatures:
    return SpeechFeatures()


def column(speech: SpeechFeatures, sound: np.ndarray, name: str) -> np.ndarray:
    return speech.of([sound])[:, speech.names.index(name)]


@pytest.mark.parametrize("hertz", [110, 220])
def test_pitch_is_heard(speech: SpeechFeatures, hertz: int) -> None:
    semitones = column(speech, tone(1.0, hertz, SAMPLING_RATE), "F0semitoneFrom27.5Hz_sma3nz")
    assert len(semitones) == pytest.approx(100, abs=6)
    assert np.median(semitones) == pytest.approx(12 * np.log2(hertz / 27.5), abs=0.3)


def test_loudness_is_heard(speech: SpeechFeatures) -> None:
    sound = tone(1.0, 150, SAMPLING_RATE)
    quiet, loud = (column(speech, sound * gain, "Loudness_sma3").mean() for gain in (0.1, 1.0))
    assert 0 < quiet < 0.6 * loud


def test_pieces_are_one_sound(speech: SpeechFeatures) -> None:
    sound = tone(0.5, 150, SAMPLING_RATE)
    np.testing.assert_array_equal(speech.of([sound[:1000], sound[1000:1001], sound[1001:]]), speech.of([sound]))


def test_silence_is_numbers_and_too_short_a_sound_has_no_frames(speech: SpeechFeatures) -> None:
    silence = np.zeros(SAMPLING_RATE, np.float32)
    assert np.isfinite(speech.of([silence])).all()
    assert speech.of([silence[:959]]).shape == speech.of([]).shape == (0, 25)
    assert len(speech.of([silence[:960]])) > 0
