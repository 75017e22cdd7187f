"""The docs as a site: it builds strictly, has all pages and public names, and asks no network."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import deepmlf
from deepmlf.cli.schemas.commands import BY_COMMAND
from deepmlf.config.trial import TrialConfig
from deepmlf.tune.settings import SearchSettings

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


class Loads(HTMLParser):
    """Addresses that a browser asks for by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and "canonical" not in str(values.get("rel")):
            self.found.append(str(values.get("href")))
        elif tag != "a" and values.get("src"):
            self.found.append(str(values["src"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_it_has_all_docs_and_every_public_name(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page
    for page in ("index", "changelog", "benchmarks", "cluster", "notebook"):
        assert (site / f"{page}.html").is_file()
    reference = (site / "reference" / "python.html").read_text()
    named = {f"deepmlf.{name}" for name in deepmlf.__all__} - {"deepmlf.DeepMLFError"} | {"deepmlf.errors.DeepMLFError"}
    assert named <= set(re.findall(r'id="([^"]+)"', reference))
    said = (site / "reference" / "json.html").read_text()
    assert all(f'id="{schema.__module__}.{schema.__name__}"' in said for schema in BY_COMMAND.values())
    settings = (site / "reference" / "settings.html").read_text()
    fields = [name.rpartition(".")[2] for name in TrialConfig().flat()] + list(SearchSettings.model_fields)
    assert [name for name in fields if f'.{name}"' not in settings] == []


def test_no_page_asks_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text())
        assert loads.found
        assert [address for address in loads.found if re.match(r"(https?:)?//", address)] == [], page
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//[^)\s]*", styles) == []


def test_links_of_the_readme_lead_to_pages(site: Path) -> None:
    index = (site / "index.html").read_text()
    for page in ("tutorial.html", "cluster.html", "benchmarks.html", "scripting.html"):
        assert f'href="{page}"' in index
    assert 'src="images/report.png"' in index
    assert (site / "cluster" / "slurm.sbatch").is_file()
    cells = json.loads((site / "notebook.ipynb").read_text())["cells"]
    assert len(cells) > 10
