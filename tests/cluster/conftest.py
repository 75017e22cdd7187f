"""The files of cluster/, and the command lines in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
PROGRAMS = ("deepmlf", "ray")


@pytest.fixture(scope="session")
def cluster() -> Path:
    """The folder of cluster files."""
    return CLUSTER


@pytest.fixture(scope="session")
def commands() -> dict[str, list[list[str]]]:
    """The `deepmlf` and `ray` command lines of each file, in words."""
    return {path.name: list(commands_of(path)) for path in sorted(CLUSTER.iterdir())}


def commands_of(path: Path) -> Iterator[list[str]]:
    """The `deepmlf` and `ray` command lines of one file, in words, those inside of others too."""
    text = path.read_text()
    if path.suffix == ".yaml":
        for value in _strings(yaml.safe_load(text)):
            yield from _programs(value)
    elif path.suffix == ".md":
        fenced = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
        for block in fenced.findall(text):
            yield from _programs(block)
        for inline in re.findall(r"`(deepmlf [^`\n]+)`", fenced.sub("", text)):
            yield from _programs(inline)
    else:
        yield from _programs(text)


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)


def _programs(shell: str) -> Iterator[list[str]]:
    for words in _simple_commands(shell):
        words = [word for word in words if word]
        if "-m" in words and "deepmlf" in words[words.index("-m") + 1 :][:1]:
            words[words.index("-m") : words.index("-m") + 2] = ["deepmlf"]
        names = [word.rsplit("/", 1)[-1] for word in words]
        # A program is followed by one of its commands; `COPY deepmlf deepmlf` and `secret deepmlf -o` are none.
        for i, (name, following) in enumerate(zip(names, words[1:], strict=False)):
            if name in PROGRAMS and following not in PROGRAMS and re.fullmatch("[a-z][a-z-]*", following):
                yield [name, *words[i + 1 :]]
                break
        inner = words[words.index("--") + 1 :] if "--" in words else []
        yield from _programs(shlex.join(inner)) if inner else ()
        for word in words:
            if any(word.startswith(f"{program} ") for program in PROGRAMS):
                yield from _programs(word)


def _simple_commands(shell: str) -> Iterator[list[str]]:
    pending = ""
    for line in shell.replace("\\\n", " ").splitlines():
        pending += line + "\n"
        lexer = shlex.shlex(pending, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quotation that goes on in the next line
            continue
        pending = ""
        command: list[str] = []
        for word in words:
            if set(word) <= set("();<>|&"):
                yield command
                command = []
            else:
                command.append(word)
        yield command
    assert not pending.strip(), f"unclosed quotation: {pending}"
