"""One browser, and one experiment that TensorBoard shows, for all tests that look at them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.parts.served import Served, columns, served
from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.events.writer import TrialWriter, step_of
from deepmlf.training.reports import read_reports
from deepmlf.tune.experiment.layout import trial_folder

TRIALS = 8


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium that calls nobody by itself."""
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        reason = f"{'chromium' if program is None else 'chromedriver'} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver

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


@pytest.fixture
def chromium(browser: Any) -> Iterator[Any]:
    """The browser, without what another test has set; ``get_log("browser")`` has the console since the last call,
    ``get_log("performance")`` the requests."""
    yield browser
    browser.get("about:blank")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    for log in ("browser", "performance"):
        browser.get_log(log)


@pytest.fixture(scope="session")
def shown_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some trials of every state, of a space with conditional parameters; the first one is restarted."""
    folder = make_experiment(tmp_path_factory.mktemp("board"), TRIALS, epochs=4, failed=(1,), running=1, events=True)
    columns(folder)
    first = trial_folder(folder, 0)
    reports = read_reports(first)
    second = TrialWriter(first, purge_step=step_of(reports[-1]))
    second.write(reports[-1], {})
    second.close("COMPLETE", {})
    return folder


@pytest.fixture(scope="session")
def server(shown_experiment: Path) -> Iterator[Served]:
    """TensorBoard on it."""
    with served(shown_experiment) as server:
        server.until(lambda: len(server.get("text", "tags")) == TRIALS)
        yield server
