"""A PostgreSQL and an S3 server of the tests' own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.parts.s3 import S3
from tests.tune.postgres import programs, serve


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a private PostgreSQL."""
    found = programs()
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with serve(found, Path("/tmp") / f"deepmlf_postgres_{os.getpid()}") as url:  # the server's own user must reach it
        yield url


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def elsewhere(own_home: Path) -> Path:
    """A home of this process's own: workers have another one, as on another machine."""
    return own_home
