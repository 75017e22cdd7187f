"""Command lines, parsed as their programs would."""

from collections.abc import Sequence

import click


def resolve(command: click.Command, words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """The innermost command that words name, and the words left for it."""
    words = list(words)
    while isinstance(command, click.Group):
        name = words.pop(0)
        inner = command.get_command(click.Context(command), name)
        assert inner is not None, f"{name}: no such command of {command.name}"
        command = inner
    return command, words


def parse(program: click.Command, words: Sequence[str]) -> click.Context:
    """Parse a command line without running it."""
    command, words = resolve(program, words)
    return command.make_context(command.name, list(words))
