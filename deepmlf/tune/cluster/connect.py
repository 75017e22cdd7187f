"""The Ray cluster that a search or a confirmation runs on."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from deepmlf.errors import SearchError
from deepmlf.files import why_unwritable

_ANSWER_SECONDS = 5
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
_SOCKET = "ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store.99"
"""The longest path of a socket in Ray's temporary folder."""


@contextlib.contextmanager
def connected(address: str | None, *, verbose: bool = False) -> Iterator[None]:
    """Be connected to a cluster: the one at `address`, one of this machine's own, or one that is connected already.

    Args:
        address: Of a running cluster. None takes that of RAY_ADDRESS, which Ray sets for submitted jobs; without it a
            cluster of this machine's own is started, whatever else runs there.
        verbose: Show what Ray and the workers print.

    Raises:
        SearchError: If nothing answers at the address, it does not let this process in, or Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    address = _given(address) or "local"
    _check_address(address)
    temporary = temporary_folder() if address == "local" else None
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=verbose,
            logging_level="INFO" if verbose else "ERROR",
            **({} if temporary is None else {"_temp_dir": str(temporary)}),
        )
    except Exception as error:  # for some Ray has no type of its own
        fault = _fault_of_start(error)
        if fault is None:
            raise
        raise SearchError(f"--address {address}: {fault}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _fault_of_start(error: Exception) -> str | None:
    """What is to be said of an error of ``ray.init``; None of one that is not known."""
    told, text = _first_sentence(error), str(error)
    if isinstance(error, (AuthenticationError, ConnectionError)):
        # Ray says the same of a refused token and of a port that is not its own.
        return (
            f"no Ray cluster lets this process in ({told}); if it is the right address, set RAY_AUTH_MODE=token and "
            "put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
    if "Version mismatch" in text:
        return f"cluster and driver must have the same Ray and Python ({told})"
    if "timed out during startup" in text or "Timed out waiting for node info" in text:
        return (
            f"Ray did not start in the time that it gives itself ({told}); if the machine is merely busy, ask again; "
            "`deepmlf doctor` says what else may be wrong"
        )
    return None


def can_grow(address: str | None) -> bool:
    """Whether the cluster that :func:`connected` takes may get more nodes: not if it is this machine's own."""
    return _given(address) not in (None, "local")


def temporary_folder() -> Path | None:
    """Where a cluster of this machine's own keeps its sockets and logs; None: where Ray would by itself.

    The whole path of a socket holds 107 bytes at most, and a batch system's ``TMPDIR`` may be longer than that.

    Raises:
        SearchError: If there is no folder that can be used.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    if variable is None:
        return None
    asked = os.environ[variable]
    fault = _fault_of_temporary(Path(asked))
    if fault is None:
        return None
    short = Path(f"/tmp/ray-{os.getuid()}")
    if variable == "RAY_TMPDIR" or _fault_of_temporary(short) is not None:
        raise SearchError(f"{variable}={asked}: Ray's sockets cannot be there ({fault}); set RAY_TMPDIR to another")
    return short


def _fault_of_temporary(folder: Path) -> str | None:
    size = len(os.fsencode(str(folder.absolute() / _SOCKET)))
    if size > _SOCKET_BYTES:
        return f"the path is {size - _SOCKET_BYTES} characters too long"
    return why_unwritable(folder)


def _given(address: str | None) -> str | None:
    return address or os.environ.get("RAY_ADDRESS") or None


def _check_address(address: str) -> None:
    """Refuse what cannot be an address, and one where nobody listens: Ray would try for minutes."""
    if address.startswith("ray://"):
        raise SearchError(
            f"--address {address}: the driver runs on a node of the cluster; send it there with "
            "`ray job submit --address http://HOST:8265 -- deepmlf search …`"
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SearchError(f"--address {address}: expected HOST:PORT, e.g. 127.0.0.1:6379, or auto")
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise SearchError(f"--address {address}: nothing answers there ({error}); is the cluster up?") from None


def check_room(cpus: float, gpus: float, *, may_grow: bool) -> str | None:
    """Whether a trial fits on some node of the connected cluster.

    Args:
        cpus: CPUs of a trial.
        gpus: GPUs of a trial.
        may_grow: Whether nodes may come that are larger than those that are there.

    Returns:
        None if it does; what is missing if it may yet.

    Raises:
        SearchError: If it never will.
    """
    nodes = [(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in _alive_nodes()]
    if any(has_cpus >= cpus and has_gpus >= gpus for has_cpus, has_gpus in nodes):
        return None
    largest = ", ".join(f"{has_cpus:g} CPUs and {has_gpus:g} GPUs" for has_cpus, has_gpus in sorted(set(nodes)))
    missing = f"a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, which no node has (there are nodes of {largest})"
    if may_grow:
        return missing
    raise SearchError(f"{missing}; lower --cpus-per-trial or --gpus-per-trial")


def nodes_gpus() -> list[float]:
    """GPUs of each node of the connected cluster that has any."""
    gpus = (node["Resources"].get("GPU", 0.0) for node in _alive_nodes())
    return [count for count in gpus if count]


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0]
