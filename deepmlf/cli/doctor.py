"""`deepmlf doctor`: whether this machine has what a search needs."""

import sys

import click

from deepmlf.cli.options import address_option
from deepmlf.cli.output import as_json, emit


@click.command()
@click.option("--storage", default="runs", show_default=True, help="Folder or URI of experiments.")
@click.option("--min-disk", "min_disk_gb", default=5.0, type=click.FloatRange(0), show_default=True, metavar="GB",
              help="Free gigabytes that a disk must have.")  # fmt: skip
@address_option
@as_json
def doctor(storage: str, min_disk_gb: float, address: str | None, json_output: bool) -> None:
    """Look at versions, devices, disks, language models, Ray, ports, caches, folders and the clock.

    Exit status 1 if there is a problem.
    """
    from deepmlf.tune.health import examine

    findings = []
    for finding in examine(storage, min_disk_gb=min_disk_gb, address=address):
        findings.append(finding)
        if not json_output:
            click.echo(str(finding))
    has_problem = any(finding.status == "problem" for finding in findings)
    emit({"ok": not has_problem, "checks": [finding.to_dict() for finding in findings]}, json_output)
    if has_problem:
        sys.exit(1)
