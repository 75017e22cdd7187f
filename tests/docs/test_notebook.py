"""The notebook of the docs runs from its first cell to its last, in a kernel."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def test_it_is_stored_without_what_it_printed() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells if cell.cell_type == "code")


@pytest.mark.ray
@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [output for cell in code for output in cell.outputs if output.output_type == "stream"] == []
    shown = {cell.source.splitlines()[0]: cell.outputs[-1].data for cell in code if cell.outputs}
    assert "<table>" in shown["experiment = deepmlf.search("]["text/html"]
    assert shown["experiment.report()"]["text/html"].startswith("<iframe")
    assert (tmp_path / "runs" / "notebook" / "report" / "index.html").is_file()
    assert (tmp_path / "runs" / "model" / "README.md").is_file()
