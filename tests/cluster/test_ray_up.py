"""The ray up files are what the installed Ray's cluster launcher accepts."""

import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

FILES = ["ray-up-aws.yaml", "ray-up-gcp.yaml", "ray-up-onprem.yaml"]
CLOUDS = FILES[:2]


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` makes of a file before it speaks to the provider, checked as it checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    filled: dict[str, Any] = prepare_config(config)
    validate_config(filled)
    return filled


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_it(cluster: Path, name: str) -> None:
    prepared(load(cluster / name))


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_field_is_refused(cluster: Path, name: str) -> None:
    config = load(cluster / name)
    config["idle_timeout_minuets"] = 10
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuets"):
        prepared(config)


@pytest.mark.parametrize("name", FILES)
def test_commands_are_valid_shell(cluster: Path, name: str) -> None:
    commands = [c for phase, value in load(cluster / name).items() if phase.endswith("_commands") for c in value]
    assert len(commands) >= 4
    for command in commands:
        result = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}: {result.stderr}"


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_and_go_when_idle(cluster: Path, name: str) -> None:
    config = prepared(load(cluster / name))
    node = config["available_node_types"]["gpu"]
    spot = {
        "aws": node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot",
        "gcp": node["node_config"].get("scheduling", {}).get("provisioningModel") == "SPOT",
    }
    assert spot[config["provider"]["type"]]
    assert node["min_workers"] == 0
    assert 0 < node["max_workers"] == config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False, "stopped nodes go on paying for their disks"


@pytest.mark.parametrize("name", CLOUDS)
def test_no_default_of_ray_is_left_in_the_commands(cluster: Path, name: str) -> None:
    """Ray fills a missing list with its own: a nightly wheel, an unpinned client, a dashboard on all addresses."""
    config = load(cluster / name)
    for phase in ("setup_commands", "head_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert config[phase], phase
    assert "ray-wheels" not in str(prepared(config))


def test_gcp_workers_use_the_account_of_their_project(cluster: Path) -> None:
    config = load(cluster / "ray-up-gcp.yaml")
    [account] = config["available_node_types"]["gpu"]["node_config"]["serviceAccounts"]
    assert account["email"] == f"ray-autoscaler-sa-v1@{config['provider']['project_id']}.iam.gserviceaccount.com"
