"""The command line, run in the test's own process."""

import contextlib
import io
import subprocess
from pathlib import Path

from deepmlf.cli import main


def deepmlf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command as its process would end, in this one, which has imported everything already."""
    words, status = list(map(str, arguments)), 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(words)
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
