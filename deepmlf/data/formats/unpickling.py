"""Reading of pickles that are not trusted: numpy arrays and plain containers, and nothing else."""

import pickle
from pathlib import Path
from typing import Any

from deepmlf.data.formats.foreign import open_pickle
from deepmlf.errors import DataError, first_line

# What numpy's own pickles name, in its old and new module layout; dict, list, str and numbers need no name at all.
_NUMPY = {
    "numpy": {"ndarray", "dtype"},
    "core.multiarray": {"_reconstruct", "scalar"},
    "core.numeric": {"_frombuffer"},
}
_PLAIN = {
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    *(("builtins", name) for name in ("list", "dict", "set", "frozenset", "bytes", "bytearray", "int", "float", "str")),
}
_ALLOWED = _PLAIN | {
    (f"numpy.{prefix}{module}" if module != "numpy" else module, name)
    for module, names in _NUMPY.items()
    for prefix in (("", "_") if module != "numpy" else ("",))
    for name in names
}
_INSTEAD = {
    "torch": "torch tensors must be stored as tensor.numpy()",
    "pandas": "pandas objects must be stored as .to_numpy()",
    "numpy.ma": "masked arrays must be stored as .filled(0)",
    "joblib": "what joblib.dump wrote must be read with joblib.load and written again with the pickle module",
    "scipy": "sparse arrays must be stored as .toarray()",
    "tensorflow": "tensors must be stored as tensor.numpy()",
    "jax": "jax arrays must be stored as np.asarray(array)",
}
"""What to do about a package's objects."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "__builtin__":  # Python 2's
            module = "builtins"
        if (module, name) not in _ALLOWED:
            packages = (package for package in _INSTEAD if f"{module}.".startswith(f"{package}."))
            instead = "".join(f" {_INSTEAD[package]};" for package in packages)
            raise DataError(
                f"the pickle names {module}.{name};{instead} only numpy arrays and plain containers are admitted, "
                "because a pickle can run any code that it names"
            )
        return super().find_class(module, name)


def load_pickle(path: Path) -> Any:
    """What a pickle holds, also one of Python 2 (whose ``str`` comes as bytes) or a compressed one.

    Raises:
        DataError: If it is no pickle or not a whole one, or names anything but numpy arrays and plain containers.
    """
    try:
        with open_pickle(path) as file:
            return _ArrayUnpickler(file, encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or first_line(error)}") from None
    except MemoryError:
        raise DataError(
            f"{path}: does not fit into memory, of which its import needs as much as the pickle has, or it is damaged"
        ) from None
    except Exception as error:  # a torn or foreign file can raise nearly anything
        is_cut = isinstance(error, EOFError) or "truncated" in str(error)
        why = "it ends too early" if is_cut else f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{path}: not a whole pickle ({why}); fetch or write it again") from None
