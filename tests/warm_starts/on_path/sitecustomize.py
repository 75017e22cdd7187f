"""Read by each Python that starts with this folder on its path: a process of Ray asks `server.py` for a fork.

What asked stays in the process table in the place of what it asked for, waits for its end, passes on the signals that
it gets and ends as that did. Where anything is in the way the process starts as it always does.
"""

import os
import sys
from collections.abc import Mapping

SOCKET = "WARM_STARTS"
"""The variable with the address of the server."""
READ_AT_IMPORT = ("OMP_", "MKL_", "OPENBLAS_", "LD_", "TORCH", "PYTORCH_", "HF_", "TRANSFORMERS_", "XDG_", "HOME")
"""How the variables begin that the imported packages look at but once. Not Ray's: it is not imported; nor the path of
modules: what is imported comes from the environment, whose prefix is the same."""


def surroundings(environment: Mapping[str, str]) -> dict[str, object]:
    """What a fork has of its server, and a process that starts has of who starts it: the two have to agree."""
    with open("/proc/self/cgroup") as file:
        cgroup = file.read()
    return {
        "prefix": sys.prefix,
        "user": [os.getuid(), os.getgid()],
        "cgroup": cgroup,
        "spaces": [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "pid", "user", "uts")],
        "environment": {key: value for key, value in environment.items() if key.startswith(READ_AT_IMPORT)},
    }


def asked_for() -> tuple[list[str], dict[str, str]] | None:
    """The script of Ray, with its arguments, that this process is to run, and its environment; None: another one."""
    arguments = sys.orig_argv[1:]
    while arguments and arguments[0].startswith("-"):
        arguments.pop(0)
    environment = dict(os.environ)
    if not arguments or not arguments[0].endswith(".py") or f"{os.sep}ray{os.sep}" not in arguments[0]:
        return None
    if os.path.basename(arguments[0]) == "setup_worker.py":  # which only makes an environment, and runs what follows
        import json

        own = ("--serialized-runtime-env-context=", "--language=")
        given = {name: next((one.removeprefix(name) for one in arguments if one.startswith(name)), "") for name in own}
        made = json.loads(given[own[0]] or "{}")
        if made.get("command_prefix") or made.get("py_executable", sys.executable) != sys.executable:
            return None
        environment |= {key: os.path.expandvars(value) for key, value in (made.get("env_vars") or {}).items()}
        arguments = [one for one in arguments[1:] if not one.startswith(own)]
    return arguments, environment


def start_warm() -> None:
    """Be the process asked for, started by the server; return where that cannot be."""
    if (asked := asked_for()) is None:
        return
    import json
    import resource
    import signal
    import socket

    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(os.environ[SOCKET])
        replies = server.makefile("rb")
        if json.loads(replies.readline()) != surroundings(asked[1]):
            return
    except (OSError, ValueError):  # not there yet, or no more
        return
    mask = os.umask(0)
    os.umask(mask)
    kinds = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    order = {
        "arguments": asked[0],
        "environment": asked[1],
        "folder": os.getcwd(),
        "mask": mask,
        "nice": os.nice(0),
        "limits": [(kind, resource.getrlimit(kind)) for kind in kinds],
    }
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps(order).encode() + b"\n")
    process = int(replies.readline())
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT"):
        signal.signal(getattr(signal, name), lambda number, _: os.kill(process, number))
    line = replies.readline()
    code = os.waitstatus_to_exitcode(int(line)) if line else -signal.SIGKILL
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if os.environ.get(SOCKET):
    start_warm()
