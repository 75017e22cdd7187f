"""`deepmlf tensorboard` and `deepmlf watch`: a search in a browser, while it runs."""

import click

from deepmlf.cli.completion import folders
from deepmlf.cli.options import experiment_argument, study_storage_option
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


@click.command()
@experiment_argument
@click.option("--port", default=6007, type=click.IntRange(0, 65535), show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; any but this machine's own asks for a token.")  # fmt: skip
@click.option("--token", help="What the address must carry; made where it is needed, if none is given.")
@click.option("--every", default=5.0, type=click.FloatRange(1), show_default=True, help="Seconds between looks.")
@study_storage_option
@as_json
def watch(
    experiment: str, port: int, host: str, token: str | None, every: float, study_storage: str | None,
    json_output: bool,
) -> None:  # fmt: skip
    """Serve the report of `analyze`, renewed as the search goes on, until Ctrl-C."""
    from deepmlf.analysis.report.live import LivePage
    from deepmlf.analysis.report.served import ReportServer

    try:
        page = LivePage(experiment, study_storage, every=every)
        with ReportServer(page, host, port, token) as server:
            if not json_output:
                click.echo(f"report: {server.url}")
            emit({"url": server.url}, json_output)
            server.wait()
    except KeyboardInterrupt:
        pass  # the way to end it
