"""Builds and loads `device.cpp`; must be called before PyTorch is imported, whose names it comes before."""

import ctypes
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")


def load() -> None:
    """Let this process have a CUDA device that computes nothing. Linux, with g++ and a PyTorch without CUDA.

    Raises:
        RuntimeError: If PyTorch is there already.
        subprocess.CalledProcessError: If it cannot be built.
    """
    if "torch" in sys.modules:
        raise RuntimeError("PyTorch is imported already; its own names would be taken")
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("there is no PyTorch")
    torch = Path(found.submodule_search_locations[0])
    headers = [f"-I{torch / 'include'}", f"-I{torch / 'include' / 'torch' / 'csrc' / 'api' / 'include'}"]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "device.so"
        command = ["g++", "-std=c++17", "-O0", "-shared", "-fPIC", *headers, str(SOURCE), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        ctypes.CDLL(str(torch / "lib" / "libc10.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
