"""What `deepmlf doctor` prints."""

from typing import Literal

from deepmlf.cli.schemas.base import Said


class Check(Said):
    """One thing that was looked at."""

    check: str
    """What it is, as `ray`."""
    status: Literal["ok", "warning", "problem"]
    """`problem`: something will not work; `warning`: something may not, or goes slower."""
    found: str
    """What is there, in words."""
    remedy: str | None
    """What to do; null where nothing is to be done."""


class Examined(Said):
    """`deepmlf doctor`."""

    ok: bool
    """Whether there is no problem; if there is one, the exit status is 1."""
    checks: list[Check]
    """In the order in which they were made."""
