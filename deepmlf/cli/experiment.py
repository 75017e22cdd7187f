"""`deepmlf stop` and `copy`: experiments as they are, whoever runs them."""

import click

from deepmlf.cli.completion import folders
from deepmlf.cli.options import experiment_argument
from deepmlf.cli.output import as_json, emit, tell


@click.command()
@experiment_argument
@as_json
def stop(experiment: str, json_output: bool) -> None:
    """Have the search that runs, here or on another machine, save and leave; waits until it has."""
    from deepmlf.places import Place
    from deepmlf.tune.experiment.stop_request import stop_driver

    place = Place.of(experiment)
    was_running = stop_driver(place, lambda: tell(f"waiting until the search has saved and left {place}"))
    emit({"experiment": str(place), "was_running": was_running}, json_output)
    click.echo(f"stopped; go on with `deepmlf resume {place}`" if was_running else f"{place}: nothing runs it")


@click.command()
@experiment_argument
@click.argument("target", metavar="TARGET", shell_complete=folders)
@as_json
def copy(experiment: str, target: str, json_output: bool) -> None:
    """Copy an experiment, with all it takes to go on, to a folder or URI that is not there yet."""
    from rich.console import Console
    from rich.progress import Progress

    from deepmlf.places import Place
    from deepmlf.tune.experiment.copying import copy_experiment
    from deepmlf.tune.experiment.stored import open_experiment

    opened, place, console = open_experiment(experiment), Place.of(target), Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("files")
        files = copy_experiment(opened, place, lambda done, total: bar.update(task, completed=done, total=total))
    emit({"experiment": str(place), "files": files}, json_output)
    click.echo(f"{files} files; go on with `deepmlf resume {place}`, and not with {opened.place} any more")
