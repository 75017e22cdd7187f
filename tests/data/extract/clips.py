"""Clips made on the spot: a face that moves, a tone, encoded as people's own are."""

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from PIL import Image

FACE = Path(__file__).resolve().parents[2] / "fixtures" / "face" / "face.jpg"
GREY = (120, 130, 125)


def face_picture(
    width: int = 320, height: int = 240, *, x: int = 32, y: int = -8, side: int = 256, angle: float = 0
) -> Image.Image:
    """A picture of a face.

    Args:
        width: Of the picture, in pixels like all that follow.
        height: Of the picture.
        x: Left edge of a square with the face in its middle.
        y: Its upper edge.
        side: Its side; the face takes about a third of it.
        angle: By which the square is turned against the clock, in degrees.
    """
    with Image.open(FACE) as face:
        square = face.resize((side, side)).rotate(angle, Image.Resampling.BILINEAR, fillcolor=GREY)
    picture = Image.new("RGB", (width, height), GREY)
    picture.paste(square, (x, y))
    return picture


def tone(seconds: float, hertz: float = 150, rate: int = 44_100) -> np.ndarray:
    """A voice-like sound: a pulse train of a pitch, softened, [samples] float32."""
    time = np.arange(round(seconds * rate)) / rate
    pulses = sum(np.cos(2 * np.pi * hertz * harmonic * time) / harmonic for harmonic in range(1, 20))
    return (0.1 * pulses).astype(np.float32)


def write_clip(
    path: Path,
    pictures: Iterable[Image.Image] = (),
    sound: np.ndarray | None = None,
    *,
    rate: int = 44_100,
    fps: int = 10,
    rotation: int = 0,
    index_first: bool = False,
) -> Path:
    """Write a clip, in the form that its name says.

    Args:
        path: The file.
        pictures: Of the film, all of one size; none for a file of sound.
        sound: [samples] or [samples, channels] float32; None for a silent film.
        rate: Samples per second.
        fps: Pictures per second.
        rotation: By which a player turns the film against the clock, in degrees.
        index_first: The index of an .mp4 file stands at its beginning, so that a part of the file can be played.
    """
    pictures = list(pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_first else {}) as container:
        film = heard = None
        if pictures:
            film = container.add_stream("mpeg4", rate=fps)
            film.width, film.height = pictures[0].size
            film.pix_fmt, film.bit_rate = "yuv420p", 2_000_000
            if rotation:
                film.set_display_rotation(rotation)
        if sound is not None:
            codec = "pcm_s16le" if path.suffix == ".wav" else "aac"
            heard = container.add_stream(codec, rate=rate, layout="mono" if sound.ndim == 1 else "stereo")
        for picture in pictures:
            container.mux(film.encode(av.VideoFrame.from_image(picture)))
        if film is not None:
            container.mux(film.encode(None))
        if heard is not None:
            channels = np.atleast_2d(sound.T).astype(np.float32)
            layout = "mono" if len(channels) == 1 else "stereo"
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=layout)
            frame.sample_rate = rate
            container.mux(heard.encode(frame))
            container.mux(heard.encode(None))
    return path
