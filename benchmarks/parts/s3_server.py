"""A real S3 API on loopback (moto's) that can be told to fail: ``python -m benchmarks.parts.s3_server PORT FLAG``.

As long as the file FLAG exists, every request is answered with 500.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def failing_while(flag: Path, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The application behind a switch."""

    def switched(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if flag.exists():
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"told to fail"]
        return app(environ, start_response)

    return switched


if __name__ == "__main__":
    app = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(sys.argv[1]), failing_while(Path(sys.argv[2]), app), threaded=True)
