"""What trials hold and train on: what was asked for, or a share of the GPUs that there are; never another than said."""

import subprocess
import sys
from pathlib import Path

import pytest

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError, PlaceError, SearchError
from deepmlf.tune.cluster import devices
from deepmlf.tune.cluster.devices import Devices, check_asked, settle_devices
from deepmlf.tune.messages import SearchHalted
from deepmlf.tune.plan import plan_search
from deepmlf.tune.space.base import check_drawn
from deepmlf.tune.worker.trainable import halt_of, reachable
from tests.tune.experiments import settings
from tests.tune.parts import TERMS, order

ROOT = Path(__file__).resolve().parents[3]
TOO_OLD = "The NVIDIA driver on your system is too old"


def fake_cluster(monkeypatch: pytest.MonkeyPatch, *gpus: float, fault: str | None = None) -> None:
    """A fake cluster of nodes with so many GPUs each, and what torch says of them there."""
    monkeypatch.setattr(devices, "nodes_gpus", lambda: [count for count in gpus if count])
    monkeypatch.setattr(devices, "check_room", lambda cpus, gpus, *, may_grow: None)
    monkeypatch.setattr(devices, "_probe", lambda: (fault, "" if fault else "NVIDIA H100"))


def settle(gpus: float | None, device: str = "auto", concurrent: int = 1, may_grow: bool = False) -> Devices:
    return settle_devices(gpus, device, cpus=1, concurrent=concurrent, may_grow=may_grow)


@pytest.mark.parametrize(
    ("gpus", "concurrent", "share", "line"),
    [
        ([1], 1, 1, "each trial takes 1 of 1 GPU, NVIDIA H100; --gpus-per-trial 0 trains on CPUs"),
        ([1], 4, 0.25, "each trial takes 0.25 of 1 GPU, NVIDIA H100; --gpus-per-trial 0 trains on CPUs"),
        ([1], 3, 0.3333, "each trial takes 0.3333 of 1 GPU, NVIDIA H100; --gpus-per-trial 0 trains on CPUs"),
        ([2, 2], 4, 1, "each trial takes 1 of 4 GPUs, NVIDIA H100; --gpus-per-trial 0 trains on CPUs"),
        ([2], 3, 0.5, "each trial takes 0.5 of 2 GPUs, NVIDIA H100; --gpus-per-trial 0 trains on CPUs"),
        ([4, 0], 1, 1, "each trial takes 1 of 4 GPUs, NVIDIA H100; --gpus-per-trial 0 trains on CPUs; --concurrent 4 "
                       "would use all of them"),
    ],
)  # fmt: skip
def test_the_default_takes_the_gpus_that_there_are_and_says_so(
    monkeypatch: pytest.MonkeyPatch, gpus: list[float], concurrent: int, share: float, line: str
) -> None:
    fake_cluster(monkeypatch, *gpus)
    assert settle(None, concurrent=concurrent) == Devices(share, line)
    assert settle(0.0, concurrent=concurrent) == Devices(0.0)


def test_the_default_without_a_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cluster(monkeypatch, 0)
    assert settle(None) == Devices(0.0)
    assert "no node has a GPU, so trials train on CPUs" in str(settle(None, may_grow=True).line)
    fake_cluster(monkeypatch, 1)
    assert settle(None, "cpu") == Devices(0.0)


def test_gpus_that_torch_cannot_use_are_refused_if_asked_for_and_else_left_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_cluster(monkeypatch, 1, fault=TOO_OLD)
    assert settle(None) == Devices(0.0, f"trials train on CPUs, as torch cannot use the GPU ({TOO_OLD})")
    for gpus, device in ((1.0, "auto"), (0.5, "cuda"), (None, "cuda")):
        with pytest.raises(SearchError) as refused:
            settle(gpus, device)
        assert f"torch cannot use the GPU ({TOO_OLD}); mend that, or train on CPUs with --gpus-per-trial 0" in str(
            refused.value
        )


def test_gpus_that_no_node_has_are_refused_with_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(cpus: float, gpus: float, *, may_grow: bool) -> None:
        raise SearchError("no node has them")

    fake_cluster(monkeypatch, 0)
    monkeypatch.setattr(devices, "check_room", no_room)
    monkeypatch.setattr(devices, "fault_of", lambda name: TOO_OLD)
    for gpus, device in ((1.0, "auto"), (None, "cuda")):
        with pytest.raises(SearchError) as refused:
            settle(gpus, device)
        assert str(refused.value) == f"no node has them (torch cannot use a GPU here: {TOO_OLD})"
    with pytest.raises(SearchError, match="^no node has them$"):
        settle(0.0)


@pytest.mark.parametrize(
    ("gpus", "device", "message"),
    [
        (1.5, "auto", r"--gpus-per-trial 1\.5: must be at most 1 or a whole number"),
        (1e-5, "auto", r"--gpus-per-trial 1e-05: must be 0 or at least 0\.001"),
        (1.0, "cpu", r"training\.device=cpu: uses no GPU, but --gpus-per-trial is 1"),
        (0.0, "cuda", r"training\.device=cuda: needs a GPU, but --gpus-per-trial is 0"),
        (None, "cuda:1", r"training\.device=cuda:1: Ray gives each trial its GPU; .* CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_contradicts_itself_is_refused(gpus: float | None, device: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        check_asked(gpus, device)


def test_a_search_is_refused_before_it_starts(small_data: Path, tmp_path: Path) -> None:
    asked = settings(small_data, tmp_path, gpus_per_trial=1.0, overrides={"training.device": "cpu"})
    with pytest.raises(SearchError, match=r"training\.device=cpu: uses no GPU, but --gpus-per-trial is 1"):
        plan_search(asked)
    with pytest.raises(ConfigError, match=r"^training\.device: is one for all trials of a search; use --gpus-per"):
        check_drawn({"training.device": "cuda"}, ["tiny-random"])


def test_a_worker_trains_on_what_its_trial_holds(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has: a fake GPU that torch can use must not be taken by a trial that holds none."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("deepmlf.tune.worker.trainable.fault_of", lambda name: None)
    overrides = {"data.path": str(small_data), "model.language_model": "tiny-random"}

    def device(gpus: float, **named: str) -> str:
        terms = TERMS.model_copy(update={"device": devices.device_with(gpus, "auto")})
        ordered = order(0, overrides | {f"training.{name}": value for name, value in named.items()}, terms=terms)
        return reachable(ordered).training.device

    assert (device(0), device(0.5), device(1)) == ("cpu", "cuda", "cuda")
    assert (device(0, device="mps"), device(1, device="cuda")) == ("mps", "cuda")
    assert TrialConfig().training.device == "auto"  # what a trial's own config keeps


def test_a_worker_whose_gpu_cannot_be_used_stops_the_search_instead_of_failing_trials(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepmlf.tune.worker.trainable.fault_of", lambda name: TOO_OLD)
    overrides = {"data.path": str(small_data), "model.language_model": "tiny-random"}
    with pytest.raises(PlaceError, match=f"torch cannot use cuda, on which trials train .{TOO_OLD}.") as refused:
        reachable(order(0, overrides, terms=TERMS.model_copy(update={"device": "cuda"})))
    assert isinstance(halt_of(refused.value), SearchHalted)


GPU_THAT_TORCH_CANNOT_USE = """
import sys, ray
from deepmlf.errors import SearchError
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
asked = dict(data=sys.argv[1], space="demo", lm="tiny-random", trials=1, epochs=1, storage=sys.argv[2],
             train_function="fake_training:train")
try:
    run_search(SearchSettings(**asked, name="asked", gpus_per_trial=1.0, quiet=True))
except SearchError as error:
    print(error)
run_search(SearchSettings(**asked, name="default"))
print(open_experiment(sys.argv[2] + "/default").manifest.settings.gpus_per_trial)
"""


@pytest.mark.ray
@pytest.mark.skipif(devices.fault_of("cuda") is None, reason="torch can use CUDA here")
def test_a_gpu_that_only_ray_counts_is_not_taken_for_one(small_data: Path, tmp_path: Path) -> None:
    """Ray is told of a GPU that is none: what a machine looks like whose torch or driver does not fit its card."""
    command = [sys.executable, "-c", GPU_THAT_TORCH_CANNOT_USE, str(small_data), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    refused, *_, gpus = ended.stdout.splitlines()
    reason = devices.fault_of("cuda")
    assert refused.startswith(f"--gpus-per-trial 1: torch cannot use the GPU ({reason})"), ended.stderr
    assert not (tmp_path / "asked").exists()
    assert f"deepmlf: trials train on CPUs, as torch cannot use the GPU ({reason})" in ended.stderr
    assert gpus == "0.0"
