"""The page of one prediction on a phone."""

import re
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from deepmlf.analysis.report.explain_page import explain_page
from deepmlf.inference.explain import Explanation


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole(explanation: Explanation, chromium: Chrome, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(explain_page(explanation))
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    chromium.get(path.as_uri())
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= 360
    assert chromium.execute_script("return performance.getEntriesByType('resource').length") == 0
    colours = "e => getComputedStyle(e)"
    page, text, label = (
        chromium.execute_script(f"return ({colours})(document.querySelector('{where}')).{what}")
        for where, what in (("body", "backgroundColor"), ("body", "color"), (".xtick text", "fill"))
    )
    assert contrast(page, text) >= 7
    assert label == text


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two CSS colours, by WCAG."""
    lights = []
    for colour in (first, second):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)
