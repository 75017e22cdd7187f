"""A real S3 API on loopback (moto's) with two switches: ``python -m benchmarks.parts.s3_server PORT FOLDER``.

As long as FOLDER has a file `fail`, requests are answered with 500; as long as it has one `dawdle`, two seconds late.
"""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

LATE_SECONDS = 2.0


def switched(folder: Path, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The application behind its switches."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if (folder / "fail").exists():
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"told to fail"]
        if (folder / "dawdle").exists():
            time.sleep(LATE_SECONDS)
        return app(environ, start_response)

    return answer


if __name__ == "__main__":
    app = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(sys.argv[1]), switched(Path(sys.argv[2]), app), threaded=True)
