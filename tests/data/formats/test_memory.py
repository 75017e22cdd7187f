"""An import holds little of its source, however large that is."""

from pathlib import Path

import pytest

from benchmarks.import_memory import FORMS, measured

HOLDS_ALL = "pickle, lists of numbers"  # as objects of Python, which have no place in the file to be left at
FIRST = "pickle, protocol 4"


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [pytest.param(form, marks=[] if form == FIRST else pytest.mark.long) for form in FORMS if form != HOLDS_ALL],
)
def test_memory_does_not_grow_with_the_source(form: str, tmp_path: Path) -> None:
    found = measured(form, 0.4, tmp_path)
    # Compression leaves the source smaller than what is in it.
    assert found["bytes"] < (0.75 if "gzip" in form else 0.5) * 1e9 * found["gigabytes"]
