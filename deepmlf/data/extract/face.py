"""What is seen of a face, picture by picture: how the head is held, and where the parts of the face are in it."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from deepmlf.data.extract.face_mesh import FaceMesh

# Vertices of the mesh by the part of the face, in the order of the 68 landmarks of iBUG 300-W.
_PARTS = {
    "jaw": (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    "right_brow": (71, 63, 105, 66, 107),
    "left_brow": (336, 296, 334, 293, 301),
    "nose": (168, 197, 5, 4, 75, 97, 2, 326, 305),
    "right_eye": (33, 160, 158, 133, 153, 144),
    "left_eye": (362, 385, 387, 263, 373, 380),
    "outer_lips": (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    "inner_lips": (78, 82, 13, 312, 308, 317, 14, 87),
}
_RIGHT_CORNER, _LEFT_CORNER, _UNDER_NOSE = 33, 263, 2  # outer corners of the eyes; no expression moves them far
_VERTICES = [vertex for part in _PARTS.values() for vertex in part]
_AXES = "xyz"
_POSE = ("yaw", "pitch", "roll", "x", "y", "size")


class FaceFeatures:
    """The pose of the largest face of a picture, and 68 of its landmarks as the head itself sees them."""

    kind = "MediaPipe Face Mesh, pose and 68 landmarks"
    names = (
        *_POSE,
        *(f"{part}_{place}_{axis}" for part in _PARTS for place in range(len(_PARTS[part])) for axis in _AXES),
    )

    def __init__(self, models: Path) -> None:
        """Load the models from their folder."""
        self._mesh = FaceMesh(models)

    def of(self, picture: Image.Image) -> np.ndarray:
        """The features of a picture, [210] float32; zeros if it shows no face.

        ``yaw``, ``pitch``, ``roll`` are the head's angles in radians; ``x``, ``y`` the middle between its eyes, from
        the picture's middle, and ``size`` the distance of their outer corners, all three in heights of the picture.
        Landmarks are in distances of the eyes' corners from the middle between them: x to the left of the person, y
        down, z into the head. Turning or moving the head changes the first six alone.
        """
        vertices = self._mesh.find(picture)
        if vertices is None:
            return np.zeros(len(self.names), np.float32)
        middle, axes, distance = _head(vertices)
        roll, yaw, pitch = Rotation.from_matrix(axes.T).as_euler("ZYX")
        place = (middle[:2] - np.array(picture.size) / 2) / picture.height
        landmarks = (vertices[_VERTICES] - middle) @ axes.T / distance
        pose = (yaw, pitch, roll, *place, distance / picture.height)
        return np.concatenate([pose, landmarks.ravel()]).astype(np.float32)

    def frames(self, rows: list[np.ndarray]) -> np.ndarray:
        """The features of a clip's pictures, [pictures, 210]; no frames if none of them shows a face."""
        frames = np.stack([np.zeros(len(self.names), np.float32), *rows])[1:]
        return frames if frames.any() else frames[:0]


def _head(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The middle between the eyes [3], the head's axes in the picture, one a row [3, 3], and the eyes' distance."""
    right, left = vertices[_RIGHT_CORNER], vertices[_LEFT_CORNER]
    middle = (right + left) / 2
    distance = float(np.linalg.norm(left - right))
    across = (left - right) / distance
    down = vertices[_UNDER_NOSE] - middle
    down = down - down @ across * across
    down = down / np.linalg.norm(down)
    return middle, np.stack([across, down, np.cross(across, down)]), distance
