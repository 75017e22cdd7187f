"""Processes of Ray that start warm are what they would have been (`tests/warm_starts`)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.warm_starts import ON_PATH, SERVER

pytestmark = [
    pytest.mark.slow,  # starts the server
    pytest.mark.skipif(sys.platform != "linux", reason="what is forked is waited for by a file descriptor: Linux only"),
]

SCRIPT = """
import os, resource, sys
from pathlib import Path
parent = Path(f"/proc/{os.getppid()}/cmdline").read_text()
print("warm_starts/server.py" in parent, "torch" in sys.modules, sys.argv[1:], os.getcwd(), os.environ.get("PLANTED"))
print(sys.path[:3])
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.nice(0), os.umask(0), sys.stdin.read())
"""
WAITS = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
print(os.getpid())
time.sleep(60)
"""


def script_of_ray(folder: Path, text: str) -> list[str]:
    """The command of one that its path makes one of Ray's."""
    path = folder / "ray" / "script.py"
    path.parent.mkdir()
    path.write_text(text)
    return [sys.executable, "-u", str(path)]


def test_it_has_the_folder_environment_files_and_limits_of_who_asked(tmp_path: Path) -> None:
    command = ["bash", "-c", 'ulimit -n 512; umask 27; exec "$@"', "-", *script_of_ray(tmp_path, SCRIPT), "a", "b c"]
    environment = os.environ | {"PLANTED": "here", "PYTHONPATH": f"{ON_PATH}{os.pathsep}{tmp_path}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, input="from here", capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"True True ['a', 'b c'] {tmp_path} here",
        str([str(tmp_path / "ray"), str(ON_PATH), str(tmp_path)]),
        f"512 0 {0o27} from here",
    ]
    assert done.returncode == 0
    assert "PLANTED" not in os.environ


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("import sys; sys.exit('no way')", 1, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM, ""),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    ],
)
def test_its_end_is_that_of_who_asked(tmp_path: Path, text: str, code: int, error: str) -> None:
    done = subprocess.run(script_of_ray(tmp_path, text), capture_output=True, text=True)
    assert done.returncode == code
    assert error in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 7), (signal.SIGKILL, -signal.SIGKILL)])
def test_who_asked_is_signalled_and_it_is_meant(tmp_path: Path, sent: int, code: int) -> None:
    with subprocess.Popen(script_of_ray(tmp_path, WAITS), stdout=subprocess.PIPE, text=True) as asker:
        process = int(asker.stdout.readline())
        assert process != asker.pid
        asker.send_signal(sent)
        assert asker.wait(timeout=10) == code
    for _ in range(100):
        if not Path(f"/proc/{process}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("other", [{"OMP_NUM_THREADS": "2"}, {"WARM_STARTS": "/nowhere"}, {"HOME": "/nowhere"}])
def test_what_an_import_would_have_read_otherwise_starts_cold(tmp_path: Path, other: dict[str, str]) -> None:
    command = script_of_ray(tmp_path, SCRIPT)
    done = subprocess.run(command, env=os.environ | other, input="", capture_output=True, text=True)
    assert done.stdout.startswith("False False []")


@pytest.mark.ray
def test_a_worker_of_ray_is_one(ray_cluster: None) -> None:
    import ray

    @ray.remote
    def seen() -> tuple[str, str | None, str]:
        return Path(f"/proc/{os.getppid()}/cmdline").read_text(), os.environ.get("PLANTED"), os.environ["RAY_JOB_ID"]

    def with_variables(**variables: str) -> tuple[str, str | None, str]:
        return ray.get(seen.options(runtime_env={"env_vars": variables}).remote())

    parent, planted, job = with_variables(PLANTED="there")
    assert str(SERVER) in parent
    assert planted == "there"
    assert job == ray.get_runtime_context().get_job_id()
    parent, *_ = with_variables(OMP_NUM_THREADS="2")
    assert str(SERVER) not in parent
