"""What a command prints: its result on stdout, all else for people on stderr; `--json` and `--quiet`."""

import contextlib
import functools
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

import click


@dataclass(frozen=True)
class Output:
    """Where a command's words go."""

    is_json: bool
    is_quiet: bool
    result: TextIO
    """Takes the JSON object."""
    errors: TextIO
    """Takes what must be said even with ``--quiet``."""


_output: ContextVar[Output | None] = ContextVar("output", default=None)


def as_json(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--json`` and ``--quiet``, and keep what it prints apart; it is told ``json_output``."""

    @click.option("--json", "json_output", is_flag=True, help="Print one JSON object on stdout and nothing else.")
    @click.option("--quiet", is_flag=True, help="Print nothing but errors and the result.")
    @functools.wraps(command)
    def run(*arguments: Any, json_output: bool, quiet: bool, **options: Any) -> None:
        with _printing(is_json=json_output, is_quiet=quiet):
            command(*arguments, json_output=json_output, **options)

    return run


def tell(message: str) -> None:
    """One line for people, on stderr."""
    click.echo(f"deepmlf: {message}", err=True)


def hint(line: str) -> None:
    """What to do next, after a result; nothing with ``--quiet``."""
    if not is_quiet():
        click.echo(line)


def complain(line: str) -> None:
    """Why a command has not done what it was asked for, on stderr, with ``--quiet``, too."""
    output = _output.get()
    click.echo(line, file=sys.stderr if output is None else output.errors)


def is_quiet() -> bool:
    """Whether ``--quiet`` was asked for."""
    output = _output.get()
    return output is not None and output.is_quiet


def emit(result: dict[str, Any], json_output: bool) -> None:
    """Print the result for a script, if it was asked for: one line, as strict JSON; NaN and infinities are null.

    Args:
        result: As :mod:`deepmlf.cli.schemas` describes it.
        json_output: Whether ``--json`` was given.
    """
    if not json_output:
        return
    output = _output.get()
    stream = sys.stdout if output is None else output.result
    stream.write(json.dumps(_strict(result), allow_nan=False) + "\n")
    stream.flush()


def _strict(value: Any) -> Any:
    """The same, of what JSON knows."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _printing(*, is_json: bool, is_quiet: bool) -> Iterator[None]:
    """Send what is printed from here on where the two options want it."""
    with contextlib.ExitStack() as stack:
        result, errors = sys.stdout, sys.stderr
        if is_quiet:
            stack.enter_context(contextlib.redirect_stderr(_nowhere()))
        if is_json:
            result = stack.enter_context(_own_stdout())
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        token = _output.set(Output(is_json, is_quiet, result, errors))
        stack.callback(_output.reset, token)
        yield


@contextlib.contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Stdout as a stream of our own; what anybody else writes to the process's stdout goes to `sys.stderr` meanwhile.

    Below Python, libraries and child processes write to descriptor 1 itself.
    """
    stdout = sys.stdout
    if _descriptor(stdout) != 1:  # a test's or a caller's own stream, which nobody below Python knows
        yield stdout
        return
    stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding=stdout.encoding, closefd=True) as own:
        other = _descriptor(sys.stderr)
        os.dup2(2 if other is None else other, 1)
        try:
            yield own
        finally:
            os.dup2(own.fileno(), 1)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, ValueError, io.UnsupportedOperation):
        return None


@functools.cache
def _nowhere() -> TextIO:
    """A stream that forgets; never closed, as loggers may hold it after the command."""
    return open(os.devnull, "w", encoding="utf-8")
