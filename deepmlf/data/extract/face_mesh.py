"""The face in a picture and its 468 landmarks, by the models of MediaPipe, run by LiteRT.

The detector is BlazeFace's full-range variant (arXiv:1907.05047), the landmarks are those of Face Mesh
(arXiv:1907.06724). Both are Google's, under the Apache licence 2.0.
"""

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

DETECTOR = "face_detection_full_range_sparse.tflite"
MESH = "face_landmark.tflite"
MODELS = (DETECTOR, MESH)

_DETECTOR_SIDE = 192  # pixels
_STRIDE = 4  # of the detector: one anchor in the middle of each 4 x 4 pixels
_MESH_SIDE = 192
_IS_FACE = 0.6  # MediaPipe's threshold for this detector
_IS_MESH = 0.5
_SAME_FACE = 0.3  # overlap from which on two boxes are of one face
_MARGIN = 1.5  # side of what the mesh is shown by that of the face's box
_RIGHT_EYE, _LEFT_EYE = 2, 3  # points of a detection, after its box's corners


class FaceMesh:
    """Finds the largest face of a picture and its landmarks."""

    def __init__(self, models: Path) -> None:
        """Load the two models from a folder."""
        # One thread: clips are what is done in parallel.
        self._detector = Interpreter(str(models / DETECTOR), num_threads=1)
        self._mesh = Interpreter(str(models / MESH), num_threads=1)
        for model in (self._detector, self._mesh):
            model.allocate_tensors()

    def find(self, picture: Image.Image) -> np.ndarray | None:
        """Landmarks of the largest face, [468, 3]: x and y in pixels, z in pixels before (-) or behind the face's
        middle; None if there is no face.

        Args:
            picture: RGB, of any size.
        """
        points = self._detect(picture)
        if points is None:
            return None
        low, high = points[0], points[1]
        eyes = points[_LEFT_EYE] - points[_RIGHT_EYE]
        length = np.hypot(*eyes) or 1.0
        cosine, sine = eyes / length
        scale = _MARGIN * (high - low).max() / _MESH_SIDE
        turn = np.array([[cosine, -sine], [sine, cosine]]) * scale  # of the crop's axes to those of the picture
        corner = (low + high) / 2 - turn @ np.full(2, _MESH_SIDE / 2)
        crop = picture.transform(
            (_MESH_SIDE, _MESH_SIDE),
            Image.Transform.AFFINE,
            (*turn[0], corner[0], *turn[1], corner[1]),
            Image.Resampling.BILINEAR,
        )
        mesh, presence = _run(self._mesh, np.asarray(crop, np.float32) / 255)
        if _sigmoid(presence.item()) < _IS_MESH:
            return None
        mesh = mesh.reshape(-1, 3)
        return np.concatenate([mesh[:, :2] @ turn.T + corner, mesh[:, 2:] * scale], axis=1)

    def _detect(self, picture: Image.Image) -> np.ndarray | None:
        """Corners of the largest face's box, its eyes, four other points, [8, 2] in pixels; None if there is none."""
        side = max(picture.size)
        corner = (np.array(picture.size) - side) / 2  # of a black square that has the picture in its middle
        square = ImageOps.pad(picture, (_DETECTOR_SIDE, _DETECTOR_SIDE), Image.Resampling.BILINEAR, color=0)
        raw, scores = _run(self._detector, np.asarray(square, np.float32) / 127.5 - 1)
        certain = _sigmoid(scores[0, :, 0])
        chosen = np.flatnonzero(certain >= _IS_FACE)
        if not len(chosen):
            return None
        cells = _DETECTOR_SIDE // _STRIDE
        anchors = (np.stack([chosen % cells, chosen // cells], axis=1) + 0.5) * _STRIDE  # [faces, 2]
        found = raw[0, chosen].reshape(-1, 8, 2)  # middle, size, six points; all but the size from the anchor
        sizes = found[:, 1:2] / 2
        points = np.concatenate([found[:, :1] - sizes, found[:, :1] + sizes, found[:, 2:]], axis=1) + anchors[:, None]
        return _largest(points, certain[chosen]) * (side / _DETECTOR_SIDE) + corner


def _largest(points: np.ndarray, certain: np.ndarray) -> np.ndarray:
    """The largest of several faces: the mean of its detections, by how certain they are, [8, 2].

    Args:
        points: Detections, several of each face, [detections, 8, 2].
        certain: How certain each is, [detections].
    """
    low, high = points[:, 0], points[:, 1]
    areas = (high - low).prod(axis=1)
    best = areas.argmax()
    shared = (np.minimum(high, high[best]) - np.maximum(low, low[best])).clip(0).prod(axis=1)
    same = shared / (areas + areas[best] - shared) > _SAME_FACE
    return np.average(points[same], axis=0, weights=certain[same])


def _run(model: Interpreter, picture: np.ndarray) -> list[np.ndarray]:
    """What a model says of one picture [height, width, 3]."""
    model.set_tensor(model.get_input_details()[0]["index"], picture[None])
    model.invoke()
    return [model.get_tensor(output["index"]) for output in model.get_output_details()]


def _sigmoid(values: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -50, 50)))
