"""Every command line in cluster/ is one that the installed programs accept."""

import re
from pathlib import Path

import click
import pytest

from deepmlf.cli import cli
from tests.cluster.command_lines import parse, resolve

Commands = dict[str, list[list[str]]]


def test_commands_are_found(commands: Commands) -> None:
    """An extraction that finds nothing would let everything pass."""
    found = {name: {" ".join(words[:2]) for words in lines} for name, lines in commands.items()}
    assert found == {
        "Dockerfile": {"deepmlf lm"},
        "README.md": {
            "deepmlf copy", "deepmlf data", "deepmlf lm", "deepmlf resume", "deepmlf search", "deepmlf stop",
            "deepmlf tensorboard",
            "ray dashboard", "ray down", "ray exec", "ray get-auth-token", "ray job", "ray stop", "ray up",
        },
        "kuberay-raycluster.yaml": set(),
        "kuberay-rayjob.yaml": {"deepmlf search"},
        "ray-up-aws.yaml": {"deepmlf lm", "ray start", "ray stop"},
        "ray-up-gcp.yaml": {"deepmlf lm", "ray start", "ray stop"},
        "ray-up-onprem.yaml": {"ray start", "ray stop"},
        "slurm.sbatch": {"deepmlf resume", "deepmlf search", "ray get-auth-token", "ray symmetric-run"},
    }  # fmt: skip


def test_deepmlf_commands_parse(commands: Commands) -> None:
    for name, lines in commands.items():
        for program, *words in lines:
            if program == "deepmlf":
                try:
                    parse(cli, words)
                except click.ClickException as error:
                    pytest.fail(f"{name}: deepmlf {' '.join(words)}: {error.format_message()}")


def test_a_misspelt_option_is_found() -> None:
    with pytest.raises(click.NoSuchOption, match="--storrage"):
        parse(cli, ["search", "s3://BUCKET/mosi", "--storrage", "s3://BUCKET/runs"])


def test_searches_name_what_a_cluster_needs(commands: Commands) -> None:
    for name, lines in commands.items():
        for words in lines:
            if words[:2] == ["deepmlf", "search"] and any("://" in w or w.startswith("/shared") for w in words):
                assert {"--storage", "--name", "--address"} <= set(words), f"{name}: {' '.join(words)}"


def test_ray_commands_parse(commands: Commands) -> None:
    from ray.scripts.scripts import cli as ray

    for name, lines in commands.items():
        for program, *words in lines:
            if program != "ray":
                continue
            words = ["1" if re.fullmatch(r"\$\w+", word) else word for word in words]  # variables are numbers
            try:
                if words[0] == "symmetric-run":
                    own = parse(ray, words[: words.index("--")])
                    # What is left goes to `ray start` on every node.
                    parse(ray, ["start", "--address=head:6379", *own.params["ray_args_and_entrypoint"]])
                else:
                    parse(ray, words)
            except click.ClickException as error:
                pytest.fail(f"{name}: ray {' '.join(words)}: {error.format_message()}")


def test_clusters_end_with_commands_that_exist(commands: Commands) -> None:
    """`ray exec --stop` ends with `ray teardown`; where that is gone, workers outlive their head and are paid for."""
    from ray.scripts.scripts import cli as ray

    executed = [words for words in commands["README.md"] if words[:2] == ["ray", "exec"]]
    assert len(executed) == 2
    assert "teardown" in ray.commands or not any("--stop" in words for words in executed)
    assert all("ray down -y --workers-only ~/ray_bootstrap_config.yaml" in words[-1] for words in executed)


def test_ray_commands_named_in_the_text_exist(cluster: Path) -> None:
    """Named without all their arguments, so that only the command and its options can be looked up."""
    from ray.scripts.scripts import cli as ray

    named = re.findall(r"`ray ([^`\n]+)`", (cluster / "README.md").read_text())
    assert len(named) >= 8
    for line in named:
        command, words = resolve(ray, line.split())
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line
