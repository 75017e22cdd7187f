"""A private PostgreSQL server."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

SECRET = "s3cr3t%2Fword"
"""The password of its user, as it stands in a URL."""


def programs() -> Path | None:
    """Where PostgreSQL's server programs are; Debian keeps them out of PATH."""
    found = shutil.which("pg_ctl")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if found is None else [Path(found).resolve().parent]
    return places[-1] if places else None


@contextlib.contextmanager
def serve(programs: Path, folder: Path) -> Iterator[str]:
    """The URL of a server that asks for a password, on loopback and a free port; its folder must not exist."""
    folder.mkdir()
    word = folder / "word"
    word.write_text("s3cr3t/word")
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
        shutil.chown(word, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, timeout=60)

    options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
    try:
        call("initdb", "-U", "me", "-A", "scram-sha-256", f"--pwfile={word}", "--no-sync")
        call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql://me:{SECRET}@127.0.0.1:{port}/postgres"
        call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
