"""Bars and steps on standard error, for a person who waits; a file gets plain lines, or none."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def bar(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """The same items, with a bar on a terminal while they are gone through.

    Args:
        items: Anything.
        description: What is done with them.
        total: How many there are, if they do not know themselves.
    """
    console = Console(stderr=True)
    count = len(items) if total is None and isinstance(items, Sized) else total
    yield from track(items, description, count, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """A function that says what is being done: a spinner on a terminal, a line each elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: console.print(step, highlight=False, markup=False, soft_wrap=True)
        return
    with console.status("") as status:
        yield status.update
