"""What the site takes from outside of docs/: README, changelog, the READMEs of folders, the notebook."""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "cluster/README.md": "cluster.md",
}
"""Files of the repository, and the pages that they become."""
NOTEBOOK = "notebook"
_LINK = re.compile(r"(?<=\]\()(?!https?://|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the files that the one on clusters links to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "cluster").iterdir()):
        if f"cluster/{path.name}" not in PAGES:
            files.append(File.generated(config, f"cluster/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, f"{NOTEBOOK}.md", content=notebook_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links between files of the repository lead to their pages."""
    here = page.file.src_uri
    source = {site: path for path, site in PAGES.items()}.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        site = PAGES.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(site, posixpath.dirname(here) or ".")

    return _LINK.sub(moved, markdown)


def notebook_page() -> str:
    """The notebook as Markdown."""
    cells = json.loads((ROOT / "docs" / f"{NOTEBOOK}.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
    return "\n\n".join(f"```python\n{text}\n```" if is_code else text for text, is_code in texts)
