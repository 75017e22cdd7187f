"""What is heard, frame by frame: the low-level descriptors of eGeMAPS, by openSMILE."""

import numpy as np
from opensmile import FeatureLevel, FeatureSet, Smile

from deepmlf.data.extract.decoding import SAMPLING_RATE

_SHORTEST = 960  # samples: openSMILE's longest window is one of 60 ms


class SpeechFeatures:
    """Loudness, spectrum, pitch, voice quality and formants, 25 features each 10 ms.

    They are the low-level descriptors of eGeMAPSv02 (Eyben et al., IEEE Transactions on Affective Computing 2016,
    "The Geneva Minimalistic Acoustic Parameter Set").
    """

    kind = "openSMILE eGeMAPSv02, low-level descriptors"
    frames_per_second = 100.0

    def __init__(self) -> None:
        self._smile = Smile(FeatureSet.eGeMAPSv02, FeatureLevel.LowLevelDescriptors)

    @property
    def names(self) -> list[str]:
        """Of the features, in their order."""
        return list(self._smile.feature_names)

    def of(self, sound: list[np.ndarray]) -> np.ndarray:
        """The features of an utterance, [frames, 25] float32; no frames if it is shorter than 60 ms.

        Args:
            sound: Pieces of mono sound of 16,000 samples per second, [samples] float32 each.
        """
        samples = np.concatenate([*sound, np.zeros(0, np.float32)])
        if len(samples) < _SHORTEST:
            return np.zeros((0, len(self.names)), np.float32)
        return self._smile.process_signal(samples, SAMPLING_RATE).to_numpy(np.float32)
