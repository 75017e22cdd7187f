"""A real face is found, its landmarks lie where a person sees them, and features forget how a head is held."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmlf.data.extract.face import FaceFeatures
from deepmlf.data.extract.face_mesh import FaceMesh
from tests.data.extract.clips import FACE, GREY, face_picture

# Where a person sees them in the picture of 256 x 256 pixels, by vertex of the mesh.
SEEN = {
    "outer corner of the right eye": (33, (96, 86)),
    "outer corner of the left eye": (263, (149, 88)),
    "under the nose": (2, (122, 112)),
    "right corner of the mouth": (61, (105, 120)),
    "left corner of the mouth": (291, (141, 120)),
    "chin": (152, (120, 150)),
}
POSE = FaceFeatures.names.index("jaw_0_x")
"""Features before the landmarks."""


@pytest.fixture(scope="module")
def mesh(models: Path) -> FaceMesh:
    return FaceMesh(models)


@pytest.fixture(scope="module")
def features(models: Path) -> FaceFeatures:
    return FaceFeatures(models)


def test_landmarks_lie_where_a_person_sees_them(mesh: FaceMesh) -> None:
    found = mesh.find(Image.open(FACE))
    assert found is not None
    assert found.shape == (468, 3)
    for name, (vertex, place) in SEEN.items():
        assert np.hypot(*(found[vertex, :2] - place)) < 4, name
    assert found[1, 2] < found[[33, 263, 234, 454], 2].min()  # the tip of the nose is nearer than eyes and ears


@pytest.mark.parametrize(
    ("width", "height", "side"), [(320, 240, 256), (240, 320, 200), (1280, 720, 500), (1280, 720, 300), (640, 480, 480)]
)
def test_landmarks_follow_the_face(mesh: FaceMesh, width: int, height: int, side: int) -> None:
    """A picture of any shape, a face of 7 to 30 percent of its width."""
    found = mesh.find(face_picture(width, height, x=20, y=10, side=side))
    assert found is not None
    places = np.array([place for _, place in SEEN.values()]) * side / 256 + (20, 10)
    away = np.hypot(*(found[[vertex for vertex, _ in SEEN.values()], :2] - places).T)
    assert away.max() < 0.03 * side


def test_the_largest_face_is_taken(mesh: FaceMesh) -> None:
    for left, right in ((160, 300), (300, 160)):
        picture = face_picture(640, 320, x=0, y=10, side=left)
        picture.paste(face_picture(side=right, x=0, y=0, width=right, height=right), (330, 10))
        found = mesh.find(picture)
        assert found is not None
        assert (found[:, 0].mean() > 320) == (right > left)


def test_what_is_no_face_is_none(mesh: FaceMesh, features: FaceFeatures) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))
    for picture in (Image.new("RGB", (320, 240), GREY), noise, Image.new("RGB", (1, 1)), face_picture(x=250)):
        assert mesh.find(picture) is None
        assert not features.of(picture).any()


@pytest.mark.parametrize("angle", [-20, 15])
def test_how_a_head_is_held_changes_the_first_six_features_alone(features: FaceFeatures, angle: int) -> None:
    straight = features.of(face_picture(640, 480, x=100, y=60, side=320))
    turned = features.of(face_picture(640, 480, x=180, y=90, side=380, angle=angle))
    roll = features.names.index("roll")
    assert turned[roll] - straight[roll] == pytest.approx(-np.radians(angle), abs=0.05)
    assert turned[POSE - 1] / straight[POSE - 1] == pytest.approx(380 / 320, rel=0.05)
    assert abs(turned[POSE:] - straight[POSE:]).max() < 0.12
    assert abs(straight[POSE:]).max() > 0.7


def test_features_have_their_names(features: FaceFeatures) -> None:
    row = dict(zip(features.names, features.of(face_picture()), strict=True))
    assert len(row) == len(features.names) == 210
    assert row["right_eye_0_x"] == pytest.approx(-0.5, abs=1e-6)
    assert row["left_eye_3_x"] == pytest.approx(0.5, abs=1e-6)
    assert row["jaw_8_y"] > row["outer_lips_9_y"] > row["nose_6_y"] > 0 > row["left_brow_2_y"]
    assert row["jaw_0_x"] < row["right_brow_0_x"] < row["left_brow_4_x"] < row["jaw_16_x"]
    assert row["inner_lips_2_y"] < row["inner_lips_6_y"]  # she smiles with her mouth open


def test_a_clip_without_any_face_has_no_frames(features: FaceFeatures) -> None:
    face, nothing = features.of(face_picture()), features.of(Image.new("RGB", (320, 240), GREY))
    assert features.frames([]).shape == features.frames([nothing] * 3).shape == (0, 210)
    assert features.frames([nothing, face]).any(axis=1).tolist() == [False, True]
