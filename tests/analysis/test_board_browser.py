"""TensorBoard on a search, as a browser shows it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.parts.served import Served, one_more, served
from deepmlf.events.writer import TrialWriter, step_of
from deepmlf.training.reports import read_reports
from deepmlf.tune.experiment.layout import trial_folder
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import OVERRIDES

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# What TensorBoard's own page and Chromium warn of on any data.
NOISE = (
    "Multiple instances of Three.js",  # TensorBoard bundles the library twice
    "is deprecated. Please use app-layout",  # the HParams tab is built of old Polymer elements
    "fallback to software WebGL",  # no GPU here
    "GPU stall due to ReadPixels",  # the same
)
EVERYWHERE = """
const all = (selector, root = document) => [
  ...root.querySelectorAll(selector),
  ...[...root.querySelectorAll('*')].filter(node => node.shadowRoot).flatMap(node => all(selector, node.shadowRoot)),
];
"""
TICK_ALL = """
all('tf-hparams-query-pane').flatMap(pane => all('paper-checkbox', pane.shadowRoot || pane))
  .forEach(box => box.checked || box.click());
"""
TABLE = """
const text = cell => cell.querySelector('slot').assignedNodes().map(node => node.textContent.trim()).join(' ');
return all('vaadin-grid').flatMap(grid => ['#header', '#items'].flatMap(part =>
  [...grid.shadowRoot.querySelectorAll(part + ' tr')].filter(row => !row.hidden)
    .map(row => [...row.children].map(text))));
"""
LINES = """
return all('vz-line-chart2').map(chart => all('path', chart.shadowRoot).length);
"""


def ask(browser: webdriver.Chrome, script: str, until: Callable[[Any], bool]) -> Any:
    """What a script returns of the page once it is as it must become."""
    seen: list[Any] = []

    def is_there(_: webdriver.Chrome) -> bool:
        seen.append(browser.execute_script(EVERYWHERE + script))
        return until(seen[-1])

    WebDriverWait(browser, 60, 0.5).until(is_there, lambda: f"last seen: {seen[-1:]}")
    return seen[-1]


def show(browser: webdriver.Chrome, url: str, tab: str) -> None:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.set_window_size(1200, 3000)
    browser.get(f"{url}#{tab}")


def assert_quiet(browser: webdriver.Chrome) -> None:
    """Nothing in the console but what TensorBoard says on any data."""
    said = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in said if not any(noise in message for noise in NOISE)] == []


def table(browser: webdriver.Chrome, rows: int) -> dict[str, dict[str, str]]:
    """The HParams table with all its columns: cells by trial and title."""
    ask(browser, TABLE, lambda lines: len(lines) > 1)
    browser.execute_script(EVERYWHERE + TICK_ALL)
    titles, *lines = ask(
        browser, TABLE, lambda lines: len(lines) == rows + 1 and {"training.weight_decay", "last Corr"} <= set(lines[0])
    )
    return {line[0]: dict(zip(titles, line, strict=False)) for line in lines}


def assert_shown(cells: dict[str, str], title: str, value: Any) -> None:
    if isinstance(value, str | bool):
        assert cells[title] == (value if isinstance(value, str) else str(value).lower())
    else:
        assert float(cells[title]) == pytest.approx(value, rel=1e-4), title  # five digits are shown


def test_hparams_show_every_trial_with_its_settings_and_metrics(
    chromium: webdriver.Chrome, shown_experiment: Path, server: Served
) -> None:
    trials = open_experiment(shown_experiment).study.get_trials()
    show(chromium, server.url, "hparams")
    rows = table(chromium, len(trials))
    assert rows.keys() == {trial_folder(shown_experiment, trial.number).name for trial in trials}
    for trial in trials:
        folder = trial_folder(shown_experiment, trial.number)
        cells, setting = rows[folder.name], json.loads(trial.user_attrs[OVERRIDES])
        for name, value in setting.items():
            assert_shown(cells, name, value)
        assert {cells[title] for title in cells if "." in title and title not in setting} <= {""}
        errors = [report.valid["MAE"] for report in read_reports(folder) if report.fidelity is not None]
        assert_shown(cells, "best MAE", min(errors))
        assert_shown(cells, "last MAE", errors[-1])
        assert_shown(cells, "fusion epochs", len(errors))
    assert_quiet(chromium)


def test_hparams_show_unasked_what_matters(chromium: webdriver.Chrome, shown_experiment: Path, server: Served) -> None:
    rows = len(open_experiment(shown_experiment).study.get_trials())
    show(chromium, server.url, "hparams")
    titles, *_ = ask(chromium, TABLE, lambda lines: len(lines) == rows + 1 and len(lines[0]) > 5)
    assert titles[2:] == [
        "curriculum.name", "model.fusion_depth", "model.gate_init", "model.num_fusion_tokens", "training.lr_fusion",
        "best MAE", "state (0 RUNNING, 1 COMPLETE, 2 PRUNED, 3 FAIL)", "fusion epochs", "training.lr_av", "last MAE",
    ]  # fmt: skip


def test_scalars_and_the_custom_layout_are_drawn(chromium: webdriver.Chrome, server: Served) -> None:
    show(chromium, server.url, "scalars")
    ask(chromium, LINES, lambda lines: len(lines) >= 3 and min(lines) > 0)
    assert_quiet(chromium)
    show(chromium, server.url, "custom_scalars")
    layout = server.get("custom_scalars", "layout")["category"]
    charts = [chart["title"] for category in layout for chart in category["chart"]]
    lines = ask(chromium, LINES, lambda lines: len(lines) == len(charts) and lines.count(0) <= 3)
    # The made-up curves lack what these show.
    empty = {chart for chart, count in zip(charts, lines, strict=True) if count == 0}
    assert empty == {"Gates of the FFN over epochs", "Phases of an epoch", "MM blocks in use"}
    assert_quiet(chromium)


def test_a_running_search_grows_on_the_page(chromium: webdriver.Chrome, shown_experiment: Path, tmp_path: Path) -> None:
    running = tmp_path / "running"
    shutil.copytree(shown_experiment, running)
    trials = len(open_experiment(running).study.get_trials())
    late = trial_folder(running, trials - 1)
    shutil.move(late, tmp_path / late.name)
    with served(running) as server:
        server.until(lambda: len(server.get("text", "tags")) == trials - 1)
        show(chromium, server.url, "hparams")
        assert late.name not in table(chromium, trials - 1)
        shutil.move(tmp_path / late.name, late)
        later = one_more(read_reports(late)[-1], **{"valid/MAE": 0.25})
        TrialWriter(late, purge_step=step_of(later)).write(later, {"MAE": 0.25})
        server.until(lambda: len(server.steps(late.name, "train/loss")) == step_of(later))
        show(chromium, server.url, "hparams")
        cells = table(chromium, trials)[late.name]
        assert_shown(cells, "best MAE", 0.25)
        assert_shown(cells, "last MAE", 0.25)
        assert_quiet(chromium)
