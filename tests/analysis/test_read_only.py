"""An experiment of somebody else's, that can be read and not written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.experiment import Experiment
from deepmlf.errors import SearchError
from tests.command import deepmlf
from tests.read_only import folder_for_all, read_only


@pytest.fixture
def experiment() -> Iterator[Path]:
    with folder_for_all() as theirs:
        yield make_experiment(theirs, 12, scheduler="none", epochs=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_printed_and_what_could_not_be_written_is_told(experiment: Path) -> None:
    before = contents(experiment)
    with read_only(experiment):
        told, scripted = deepmlf("analyze", experiment), deepmlf("analyze", experiment, "--json")
    assert told.returncode == 0, told.stderr
    assert "states: 12 COMPLETE" in told.stdout
    assert "report:" not in told.stdout
    assert told.stderr == (
        f"deepmlf: {experiment}: cannot be written (Permission denied), so there is no report; --out FOLDER writes it "
        "elsewhere\n"
    )
    assert json.loads(scripted.stdout.splitlines()[-1])["report"] is None
    assert contents(experiment) == before


def test_its_report_is_written_elsewhere(experiment: Path) -> None:
    before = contents(experiment)
    out, other = experiment.parent / "mine", experiment.parent / "other"
    for folder in (out, other):
        folder.mkdir()
        folder.chmod(0o777)
    with read_only(experiment):
        told = deepmlf("analyze", experiment, "--out", out)
        page = Experiment(experiment).report(other)
        with pytest.raises(SearchError, match="cannot be written, so there is no report"):
            Experiment(experiment).report()
    assert (told.returncode, told.stderr) == (0, "")
    assert f"report: {out / 'report' / 'index.html'}" in told.stdout
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["report/index.html", "results.parquet"]
    assert page == str(other / "report" / "index.html")
    assert (out / "report" / "index.html").read_text() == Path(page).read_text()
    assert contents(experiment) == before
    assert Experiment(experiment).report() == str(experiment / "report" / "index.html")


@pytest.mark.parametrize("command", ["resume", "confirm"])
def test_what_would_write_into_it_is_refused_on_one_line(experiment: Path, command: str) -> None:
    with read_only(experiment):
        told = deepmlf(command, experiment)
    assert told.returncode == 2
    assert told.stderr.startswith(f"deepmlf: {experiment}: cannot be written (Permission denied)")
    assert told.stderr.count("\n") == 1
