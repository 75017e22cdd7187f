"""Options that several commands share."""

from pathlib import Path

import click

from deepmlf.cli.completion import devices, folders, settings
from deepmlf.cli.output import tell
from deepmlf.config.recipe import RECIPES

PATH = click.Path(path_type=Path)

address_option = click.option("--address", help="Address of a running Ray cluster; resume may take another one.")
time_budget_option = click.option("--time-budget", metavar="2h", help="Stop after so many s, m or h; resumable.")
study_storage_option = click.option(
    "--study-storage",
    metavar="URL",
    help="Database of the Optuna study; resume takes its password from here or from DEEPMLF_STUDY_STORAGE.",
)
cache_option = click.option(
    "--cache-gb",
    default=10.0,
    type=click.FloatRange(0),
    show_default=True,
    help="Disk for the frozen part of texts, on each node; 0: none.",
)
keep_option = click.option(
    "--keep",
    default=1,
    type=click.IntRange(1),
    show_default=True,
    help="Newest checkpoints that stay on disk per trial.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    shell_complete=devices,
    help="cpu, cuda, cuda:1, …; auto: a GPU, if any.",
)
verbose_option = click.option("--verbose", is_flag=True, help="Show what Ray and the workers print, too.")
experiment_argument = click.argument("experiment", metavar="EXPERIMENT", shell_complete=folders)
set_option = click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="K=V",
    shell_complete=settings,
    help="Override a setting by its dotted name.",
)

recipe_option = click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    help="Where nothing else is said, train as the authors' code does on this dataset.",
)


def usable_device(name: str) -> str:
    """The name of the device that `--device` asks for; says so if ``auto`` leaves a GPU of this machine unused.

    Raises:
        ConfigError: If it cannot be used.
    """
    from deepmlf.training.machine.device import device_line, pick_device, unused_gpu

    device = pick_device(name, f"--device {name}")
    if unused_gpu(name) is not None:
        tell(f"on {device_line(device, name)}")
    return str(device)
