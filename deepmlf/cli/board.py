"""`deepmlf tensorboard`: watch a search."""

import click

from deepmlf.cli.options import as_json, emit, experiment_argument


@click.command()
@experiment_argument
@click.option("--port", default=6006, type=click.IntRange(0, 65535), show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all of them.")
@as_json
def tensorboard(experiment: str, port: int, host: str, json_output: bool) -> None:
    """Show an experiment, running or finished, in TensorBoard until Ctrl-C."""
    from deepmlf.analysis.board import Board

    try:
        board = Board(experiment, host, port)
        if not board.has_trials():
            click.echo(f"deepmlf: {experiment}: no trials yet; they appear as they start", err=True)
        click.echo(f"TensorBoard: {board.url}")
        emit({"url": board.url}, json_output)
        board.watch()
    except KeyboardInterrupt:
        pass  # the way to end it
