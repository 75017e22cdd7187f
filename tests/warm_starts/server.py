"""A process that has imported what is slow to import, and forks for each script of Ray that it is asked to run.

`python server.py SOCKET`; it ends, with all that it started, when its standard input does. Ray itself is not imported
here: it reads its settings from the environment at its import, and each process has its own.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from sitecustomize import surroundings

SLOW_ONES = (
    *("torch", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama"),
    *("aiohttp", "jsonschema", "pandas", "pyarrow.dataset", "pyarrow.parquet", "requests", "rich.progress"),
)
"""What the workers import, and what Ray does."""
LAST_ON_PATH = sys.path[1 + len(os.environ["PYTHONPATH"].split(os.pathsep)) :]
"""Of the path of modules what is the same for all: the library and the environment."""


def import_slow_ones() -> None:
    for name in SLOW_ONES:
        importlib.import_module(name)
    if "ray" in sys.modules:
        raise AssertionError("Ray reads its settings at its import, which is each process's own")


@dataclass
class Fork:
    """One process that runs a script of Ray, and who asked for it."""

    process: int
    asker: socket.socket


class Server:
    """Forks on demand; one thread, which waits for whatever comes first."""

    def __init__(self, address: str, told: dict[str, object]) -> None:
        self.told = json.dumps(told).encode() + b"\n"
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(address)
        self.door.listen(64)
        self.events = selectors.DefaultSelector()
        self.events.register(sys.stdin, selectors.EVENT_READ, self.end)
        self.events.register(self.door, selectors.EVENT_READ, self.serve)
        self.forks: dict[int, Fork] = {}
        """By the file descriptor of their end."""

    def run(self) -> None:
        while True:
            for key, _ in self.events.select():
                key.data()

    def end(self) -> None:
        for fork in self.forks.values():
            os.kill(fork.process, signal.SIGKILL)
        os._exit(0)

    def serve(self) -> None:
        asker, _ = self.door.accept()
        try:
            asker.sendall(self.told)
            _, files, _, _ = socket.recv_fds(asker, 1, 3)
            order = json.loads(asker.makefile("rb").readline())
        except (OSError, ValueError):  # its surroundings are others, or it was killed
            asker.close()
            return
        process = os.fork()
        if process == 0:
            self.forget()
            asker.close()
            become(order, files)
        for file in files:
            os.close(file)
        end = os.pidfd_open(process)
        self.forks[end] = Fork(process, asker)
        self.events.register(end, selectors.EVENT_READ, lambda: self.ended(end))
        self.events.register(asker, selectors.EVENT_READ, lambda: self.left(end))
        self.tell(asker, process)

    def forget(self) -> None:
        """In a fork: what is the server's alone."""
        self.events.close()
        self.door.close()
        for end, fork in self.forks.items():
            os.close(end)
            fork.asker.close()

    def left(self, end: int) -> None:
        """Who asked was killed, and means the process in its place."""
        self.events.unregister(self.forks[end].asker)
        os.kill(self.forks[end].process, signal.SIGKILL)

    def ended(self, end: int) -> None:
        fork = self.forks.pop(end)
        self.events.unregister(end)
        if fork.asker.fileno() in self.events.get_map():
            self.events.unregister(fork.asker)
        os.close(end)
        self.tell(fork.asker, os.waitpid(fork.process, 0)[1])
        fork.asker.close()

    def tell(self, asker: socket.socket, number: int) -> None:
        try:
            asker.sendall(f"{number}\n".encode())
        except OSError:
            pass  # killed; `left` follows


def become(order: dict, files: list[int]) -> None:
    """Be the process asked for, from its start to its end."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["folder"])
    os.umask(order["mask"])
    os.nice(order["nice"] - os.nice(0))
    for kind, limits in order["limits"]:
        resource.setrlimit(kind, limits)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["arguments"]
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [str(Path(sys.argv[0]).parent), *filter(None, own), *LAST_ON_PATH]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    mine = surroundings(os.environ)  # an import may set a variable
    import_slow_ones()
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page that it looks at
    Server(sys.argv[1], mine).run()
