"""The report in a real browser, offline: it draws, says what results.parquet says, and fits a phone."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.report.page import analyze
from deepmlf.tune.experiment.stored import open_experiment

pytestmark = [pytest.mark.browser, pytest.mark.slow]
DRAWN = "return [...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
CELLS = """
const names = [...document.querySelectorAll('#all thead th')].map(cell => cell.dataset.column || cell.textContent);
return [...document.querySelectorAll('#all tbody tr')].map(row => Object.fromEntries([...row.cells].map(
  (cell, i) => [names[i], cell.querySelector('data')?.value ?? cell.textContent])));
"""
HEADINGS = "return [...document.querySelectorAll('#all thead th')].map(cell => cell.textContent)"
NOTHING_SIDEWAYS = "const page = document.documentElement; return page.scrollWidth === page.clientWidth"
EPOCHS = """
return [...document.querySelectorAll('#epochs tbody tr')].map(
  row => [...row.cells].slice(1).map(cell => cell.querySelector('data')?.value ?? null));
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough complete trials for every plot, one setting that stands out among them, and one failure."""
    rungs = {"grace_period": 10, "reduction_factor": 2}
    folder = make_experiment(tmp_path_factory.mktemp("shown"), 110, seed=4, failed=(5,), **rungs)
    analyze(folder, quiet=True)
    return folder


@pytest.fixture
def offline(chromium: Chrome) -> Iterator[Chrome]:
    chromium.execute_cdp_cmd("Network.enable", {})
    without = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", without)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    yield chromium
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", without | {"offline": False})


def show(browser: Chrome, experiment: Path, *, width: int, scheme: str) -> None:
    """Open the report and wait until all plots are drawn."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    preference = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
    browser.get((experiment / "report" / "index.html").as_uri())
    WebDriverWait(browser, 60).until(lambda _: browser.execute_script(DRAWN))


def requests(browser: Chrome) -> list[str]:
    """Addresses that were asked for since the last look at the log."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def number(text: str | None) -> Any:
    """What a cell says: a number, None for a dash, or text."""
    try:
        return float(text) if text not in (None, "–") else None
    except ValueError:
        return text


def as_read(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) or value is None else float(value)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_offline_in_both_themes_and_fits_a_phone(offline: Chrome, experiment: Path, scheme: str) -> None:
    show(offline, experiment, width=360, scheme=scheme)
    plots, scripts = offline.execute_script(
        "return ['.plot', 'figure script'].map(name => document.querySelectorAll(name).length)"
    )
    assert (
        plots == scripts == 19
    )  # headline, 3 questions, history, 2 of importance, coordinates, 6 slices, pair; 4 below
    assert offline.execute_script("return document.querySelectorAll('.missing').length") == 0
    assert offline.execute_script("return document.documentElement.clientWidth") <= 360
    assert offline.execute_script(NOTHING_SIDEWAYS)
    sideways = "return [...document.querySelectorAll('.frame')].filter(f => f.scrollWidth > f.clientWidth).length"
    assert offline.execute_script(sideways) == 1  # parallel coordinates, in their own frame
    ink, paper = offline.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert (ink, paper) == {
        "light": ("rgb(27, 27, 27)", "rgb(255, 255, 255)"),
        "dark": ("rgb(232, 232, 232)", "rgb(18, 18, 18)"),
    }[scheme]
    axis = offline.execute_script("return getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert (sum(map(int, axis[4:-1].split(","))) > 3 * 128) == (scheme == "dark")
    assert offline.get_log("browser") == []
    assert {url.split(":")[0] for url in requests(offline)} <= {"file", "data", "blob"}


def test_the_first_screen_says_what_to_use_how_sure_and_what_next(offline: Chrome, experiment: Path) -> None:
    for width, height in ((1400, 900), (800, 1200), (390, 1400)):
        show(offline, experiment, width=width, scheme="light")
        bottom = offline.execute_script("return document.querySelector('.first').getBoundingClientRect().bottom")
        assert bottom < height
        assert offline.execute_script(NOTHING_SIDEWAYS)
    standing = analyze(experiment, quiet=True)
    first = offline.find_element("class name", "first").text
    assert f"{standing['value']:.4f} valid/MAE: trial {standing['best_trial']}, fusion epoch" in first
    assert "How many fusion tokens?" in first
    assert "the paper: 8 to 20 tokens" in first
    assert (
        "? It was trained with one seed and leads trial" in first.replace("\n", " ")
        or "seeds alone may do as much" in first
    )
    assert f"deepmlf confirm {experiment}" in first.replace("\n", " ")


def test_a_link_to_a_trial_shows_what_is_known_of_it(offline: Chrome, experiment: Path) -> None:
    show(offline, experiment, width=390, scheme="light")
    shared = offline.find_element("id", "shared")
    assert not shared.is_displayed()
    row = offline.find_element("id", "trial-7")
    row.find_element("tag name", "a").click()
    WebDriverWait(offline, 10).until(lambda _: shared.is_displayed())
    assert shared.find_element("tag name", "h2").text == "Trial 7"
    names, values = ([one.text for one in shared.find_elements("tag name", tag)] for tag in ("dt", "dd"))
    told = dict(zip(names, values, strict=True))
    own = [row for row in pq.read_table(experiment / "results.parquet").to_pylist() if row["trial"] == 7]
    assert told["state"] == own[0]["state"]
    assert told["valid/MAE"] == f"{min(row['valid/MAE'] for row in own):.4f}"
    assert offline.execute_script(NOTHING_SIDEWAYS)
    address = offline.current_url
    assert address.endswith("#trial-7")
    offline.get("about:blank")
    offline.get(address)  # as who is sent it opens it
    assert offline.find_element("id", "shared").find_element("tag name", "h2").text == "Trial 7"
    assert offline.get_log("browser") == []


def test_it_prints_whole(offline: Chrome, experiment: Path) -> None:
    offline.get((experiment / "report" / "index.html").as_uri())
    preference = {"name": "prefers-color-scheme", "value": "dark"}
    offline.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
    printed = offline.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert offline.execute_script(DRAWN)
    assert offline.execute_script("return [...document.querySelectorAll('details')].every(one => one.open)")
    assert offline.get_log("browser") == []


def test_names_that_look_like_html_are_shown_not_run(offline: Chrome, tmp_path: Path) -> None:
    name = "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    space = tmp_path / "hostile.py"
    space.write_text(
        f"def space(trial):\n    trial.suggest_categorical({name!r}, ['<b>', '</script>'])\n"
        "    return {'model.fusion_depth': trial.suggest_int('model.fusion_depth', 1, 8)}\n"
    )
    experiment = make_experiment(tmp_path, 12, space=str(space), scheduler="none", epochs=2, name="<i>hostile")
    analyze(experiment, quiet=True)
    show(offline, experiment, width=1000, scheme="light")
    assert offline.title == "<i>hostile: deepmlf report"
    assert name in offline.execute_script(HEADINGS)
    assert offline.get_log("browser") == []


def test_a_change_of_theme_redraws_the_plots(offline: Chrome, experiment: Path) -> None:
    show(offline, experiment, width=1000, scheme="light")
    fill = "return getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = offline.execute_script(fill)
    preference = {"name": "prefers-color-scheme", "value": "dark"}
    offline.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
    WebDriverWait(offline, 60).until(lambda _: offline.execute_script(fill) != light)


def test_every_number_of_the_tables_is_that_of_the_results(offline: Chrome, experiment: Path) -> None:
    show(offline, experiment, width=1000, scheme="light")
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in pq.read_table(experiment / "results.parquet").to_pylist():
        rows.setdefault(row["trial"], []).append(row)
    trials = open_experiment(experiment).study.get_trials()
    shown = offline.execute_script(CELLS)
    assert [int(cells["trial"]) for cells in shown] == list(rows)
    for cells in shown:
        own = rows[int(cells["trial"])]
        best = min(own, key=lambda row: row["valid/MAE"])
        assert cells["state"] == best["state"]
        assert cells["failed because"] == (best["fail_reason"] or "")
        assert number(cells["fusion epochs"]) == own[-1]["fusion_epoch"]
        assert number(cells["best epoch"]) == best["fusion_epoch"]
        assert number(cells["seconds"]) == own[-1]["seconds"]
        rates = [1 / row["speed/utterances_per_second"] for row in own]
        assert number(cells["seconds per utterance"]) == pytest.approx(sum(rates) / len(rates), rel=1e-12)
        columns = [name for name in cells if name in best and name not in ("trial", "state", "seconds")]
        assert len(columns) > 20
        for name in columns:
            # What a trial did not draw, such as settings of another curriculum, has its default in the results.
            is_shown = "/" in name or name in trials[best["trial"]].params
            assert number(cells[name]) == (as_read(best[name]) if is_shown else None), name
    curves = offline.execute_script(EPOCHS)
    for number_, curve in zip(rows, curves, strict=True):
        assert [float(value) for value in curve if value] == [row["valid/MAE"] for row in rows[number_]]
