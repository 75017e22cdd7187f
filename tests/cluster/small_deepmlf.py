"""The `deepmlf` of pretended machines: the installed one, with words of its command line replaced to make it small.

Run as a program; the file that SMALL names holds the replacements, as JSON: what follows an option, and what is added
to a command.
"""

import json
import os
import sys
from pathlib import Path


def shrunk(words: list[str], small: dict[str, dict[str, str]]) -> list[str]:
    """The words of a command with others after some options, and more at the end."""
    after = {word: small["replaced"][word] for word in words if word in small["replaced"]}
    words = [after.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return [*words, *small["added"].get(words[0], "").split()]


if __name__ == "__main__":
    from deepmlf.cli import main

    main(shrunk(sys.argv[1:], json.loads(Path(os.environ["SMALL"]).read_text())))
