"""The KubeRay files fit KubeRay's schemas, where Kubernetes would drop what it does not know without a word."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

SCHEMAS = {"kuberay-rayjob.yaml": "ray.io_v1_rayjobs.json", "kuberay-raycluster.yaml": "ray.io_v1_rayclusters.json"}
METADATA = {"type": "object", "properties": {name: {} for name in ("name", "namespace", "labels", "annotations")}}


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that refuses the fields it does not name."""
    closed = {name: _closed(value) for name, value in schema.items()}
    closed["properties"]["metadata"] = _closed(METADATA)
    closed["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return closed


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {name: _closed(value) for name, value in node.items()}
    if node.get("type") == "object":
        node.setdefault("additionalProperties", False)
    return node


def load(folder: Path, name: str) -> dict[str, Any]:
    resource: dict[str, Any] = yaml.safe_load((folder / name).read_text())
    return resource


def ray_cluster(resource: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = resource["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return cluster


@pytest.fixture
def validator(shared: Path, name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(strict(json.loads((shared / "schemas" / SCHEMAS[name]).read_text())))


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_fits_the_schema(cluster: Path, validator: jsonschema.Draft202012Validator, name: str) -> None:
    resource = load(cluster, name)
    validator.validate(resource)
    assert resource["apiVersion"] == "ray.io/v1"
    assert SCHEMAS[name] == f"ray.io_v1_{resource['kind'].lower()}s.json"


@pytest.mark.parametrize("name", SCHEMAS)
def test_misspelt_fields_are_refused(cluster: Path, validator: jsonschema.Draft202012Validator, name: str) -> None:
    """At every depth: in the spec, a worker group, a container, its resources, a volume."""
    right = load(cluster, name)
    for spoil in (
        lambda cluster: cluster.update(authOption={"mode": "token"}),
        lambda cluster: cluster["authOptions"].update(secretname="x"),
        lambda cluster: cluster["workerGroupSpecs"][0].update(maxReplica=4),
        lambda cluster: _worker(cluster).update(nodeSelectors={}),
        lambda cluster: _worker(cluster)["containers"][0].update(imagepullpolicy="Always"),
        lambda cluster: _worker(cluster)["containers"][0]["resources"].update(limit={}),
        lambda cluster: _worker(cluster)["volumes"][-1]["emptyDir"].update(size="4Gi"),
    ):
        wrong = copy.deepcopy(right)
        spoil(ray_cluster(wrong))
        with pytest.raises(jsonschema.ValidationError, match="Additional properties are not allowed"):
            validator.validate(wrong)


def _worker(cluster: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = cluster["workerGroupSpecs"][0]["template"]["spec"]
    return pod


@pytest.mark.parametrize("name", SCHEMAS)
def test_wrong_types_are_refused(cluster: Path, validator: jsonschema.Draft202012Validator, name: str) -> None:
    wrong = load(cluster, name)
    ray_cluster(wrong)["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError, match="0 is not of type 'string'"):
        validator.validate(wrong)


@pytest.mark.parametrize("name", SCHEMAS)
def test_trials_run_on_gpu_workers_that_go_when_idle(cluster: Path, name: str) -> None:
    spec = ray_cluster(load(cluster, name))
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    assert 0 < spec["autoscalerOptions"]["idleTimeoutSeconds"] <= 900
    [group] = spec["workerGroupSpecs"]
    assert group["minReplicas"] == 0 < group["maxReplicas"]
    pod = group["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "spot" in str(pod["nodeSelector"])
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_asks_for_the_ray_in_the_image(cluster: Path, name: str) -> None:
    constraints = (cluster.parent / "constraints.txt").read_text().splitlines()
    assert f"ray=={ray_cluster(load(cluster, name))['rayVersion']}" in constraints


def test_the_job_ends_its_cluster(cluster: Path) -> None:
    spec = load(cluster, "kuberay-rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["activeDeadlineSeconds"] > 0
