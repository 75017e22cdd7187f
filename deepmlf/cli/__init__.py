"""The command line: parse, build a config, call one function. Heavy imports happen inside commands."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from deepmlf.cli.board import tensorboard, watch
from deepmlf.cli.data import data, lm
from deepmlf.cli.doctor import doctor
from deepmlf.cli.experiment import copy, stop
from deepmlf.cli.model import explain, export, predict
from deepmlf.cli.search import analyze, confirm, resume, search
from deepmlf.cli.trial import evaluate, import_reference_command, train
from deepmlf.errors import DeepMLFError, first_line
from deepmlf.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show stack traces.")
def cli(debug: bool) -> None:
    """Find the best DeepMLF for your data: how deep to fuse, with how many tokens, under which curriculum."""


def refusal(error: OSError) -> str:
    """What the system has refused, on one line: the file, why, and what to do if nobody has named the file."""
    from deepmlf.files import why_unwritable
    from deepmlf.places import home

    if error.filename is None:
        return first_line(error)
    path, line = Path(str(error.filename)), f"{error.filename}: {error.strerror}"
    for variable, folder in (("DEEPMLF_HOME", home()), ("HOME", Path.home())):
        if path.is_relative_to(folder) and why_unwritable(folder) is not None:
            return f"{line}; set {variable} to a folder that can be written"
    return line


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors meant for users are one line on stderr and exit status 2.

    Args:
        arguments: Of the command; None takes those of the process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        cli.main(words, standalone_mode=False)
    except DeepMLFError as error:
        if "--debug" in words:
            traceback.print_exc()
        click.echo(f"deepmlf: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if "--debug" in words:
            traceback.print_exc()
        click.echo(f"deepmlf: {refusal(error)}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("deepmlf: interrupted", err=True)
        sys.exit(130)


for command in (
    data, lm, train, search, resume, stop, copy, confirm, analyze, watch, tensorboard, evaluate, export, predict,
    explain, import_reference_command, doctor,
):  # fmt: skip
    cli.add_command(command)
