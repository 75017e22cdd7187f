"""`deepmlf tensorboard`: watch a search, or one trial."""

import click

from deepmlf.cli.completion import folders
from deepmlf.cli.output import as_json, emit


@click.command()
@click.argument("place", metavar="EXPERIMENT|TRIAL", shell_complete=folders)
@click.option("--port", default=6006, type=click.IntRange(0, 65535), show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all of them.")
@as_json
def tensorboard(place: str, port: int, host: str, json_output: bool) -> None:
    """Show an experiment or one trial, running or finished, in TensorBoard until Ctrl-C."""
    from deepmlf.analysis.board import Board

    try:
        board = Board(place, host, port)
        if not board.has_trials():
            click.echo(f"deepmlf: {place}: no trials yet; they appear as they start", err=True)
        click.echo(f"TensorBoard: {board.url}")
        emit({"url": board.url}, json_output)
        board.watch()
    except KeyboardInterrupt:
        pass  # the way to end it
