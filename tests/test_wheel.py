"""The wheel: it brings all files, and works where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.warm_starts import ON_PATH

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
SEARCH = [
    "--space", "demo", "--lm", "tiny-random", "--trials", "2", "--epochs", "1", "--storage", "runs", "--name", "search",
    "--set", "model.max_text_len=8", "--set", "model.av_frames=6", "--set", "curriculum.av_epochs=1",
]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of what git tracks, where nothing else lies around."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, "."], cwd=source, check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_it_brings_spaces_templates_and_cluster_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    cluster = sorted(path.name for path in (ROOT / "cluster").iterdir())
    assert [Path(name).name for name in sorted(names) if "/share/deepmlf/cluster/" in name] == cluster
    spaces = [path.relative_to(ROOT).as_posix() for path in (ROOT / "search_spaces").rglob("*.py")]
    templates = [path.relative_to(ROOT).as_posix() for path in (ROOT / "deepmlf").glob("*/templates/*.jinja")]
    assert templates
    assert {*spaces, *templates} <= set(names)


@pytest.mark.ray
def test_from_search_to_predictions_outside_the_checkout(wheel: Path, small_data: Path, tmp_path: Path) -> None:
    installed, here = tmp_path / "installed", tmp_path / "here"
    subprocess.run([*PIP, "install", "--no-deps", "--target", installed, wheel], check=True)
    here.mkdir()
    path = os.pathsep.join((str(installed), str(ON_PATH)))
    environment = os.environ | {"PYTHONPATH": path, "DEEPMLF_HOME": str(tmp_path / "home")}

    def deepmlf(*arguments: object) -> str:
        command = [sys.executable, "-m", "deepmlf", *map(str, arguments)]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import deepmlf, search_spaces; print(deepmlf.__file__, *search_spaces.__path__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=here, env=environment, capture_output=True, text=True, check=True
    )
    assert all(place.startswith(str(installed)) for place in found.stdout.split())
    deepmlf("search", small_data, *SEARCH)
    assert "report: " in deepmlf("analyze", "runs/search")
    [best, *_] = sorted(path.parent for path in here.glob("runs/search/trials/*/best"))
    deepmlf("export", best, "model")
    assert "p.parquet: 24 utterances" in deepmlf("predict", "model", small_data, "--out", "p.parquet")
