"""Fixtures shared by all tests."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# On tensors as small as these a second thread only waits for the first: on a busy machine that made tests 20 times
# slower. Read when torch is imported, hence here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers are nicer than all else by default: next to other work they would get a few percent of a core.
os.environ.setdefault("RAY_worker_niceness", "0")
# The S3 server of the tests takes any; Ray's workers inherit them.
os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = "planted-key", "planted-secret"
# Ray's workers and driver processes import the mock trainer by name.
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, HERE / "tune")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material: ../shared beside the project, or DEEPMLF_SHARED."""
    folder = Path(os.environ.get("DEEPMLF_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"reference material not found at {folder}; set DEEPMLF_SHARED")
        pytest.skip(f"reference material not found at {folder}; set DEEPMLF_SHARED")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic dataset."""
    from deepmlf.data.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(folder, seed=1, sizes=(49, 24, 24))
    return folder


@pytest.fixture(scope="session")
def small_trial(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """A finished trial on it, of a language model in a folder with a tokenizer."""
    from tests.model.small_lm import make_folder
    from tests.training.small_trial import run

    folder = tmp_path_factory.mktemp("trials") / "small"
    name = str(make_folder(folder.with_name("lm")))
    run(folder, small_data, model__language_model=name, model__fusion_depth=1, model__cross_attention_heads=2)
    return folder


@pytest.fixture(scope="session")
def small_export(small_trial: Path) -> Path:
    """The trial's best epoch, exported."""
    from deepmlf.inference.export import export_trial

    out = small_trial.with_name("export")
    export_trial(small_trial, out)
    return out


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this machine, one for all tests."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium that calls nobody by itself; ``get_log("browser")`` has the console since the last call,
    ``get_log("performance")`` the requests."""
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        reason = f"{'chromium' if program is None else 'chromedriver'} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    flags = (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    )  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
