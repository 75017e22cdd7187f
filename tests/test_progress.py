"""Bars and steps: on a terminal they are drawn, in a file nothing but plain lines appears."""

import io

import pytest
from rich.console import Console

from deepmlf import progress


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def console(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Console:
    made = Console(file=io.StringIO(), force_terminal=request.param, color_system=None, width=80)
    monkeypatch.setattr(progress, "Console", lambda stderr: made)
    return made


def test_a_bar_passes_items_on_and_shows_on_terminals_alone(console: Console) -> None:
    assert list(progress.bar([1, 2, 3], "reading")) == [1, 2, 3]
    assert list(progress.bar(iter("ab"), "reading", total=2)) == ["a", "b"]
    assert ("reading" in console.file.getvalue()) == console.is_terminal


def test_steps_are_said(console: Console) -> None:
    with progress.steps() as say:
        say("converting [x].gguf")
    if not console.is_terminal:
        assert console.file.getvalue() == "converting [x].gguf\n"
    else:
        assert "converting" in console.file.getvalue()
