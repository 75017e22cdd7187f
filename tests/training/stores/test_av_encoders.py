"""The store of audiovisual encoders: reused bit for bit, made once, never believed when torn or foreign."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import Timeout
from safetensors.torch import load_file, save_file

from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.seal import file_sum
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.curriculum import stages_of
from deepmlf.training.stores.av_encoders import StoredEncoder
from deepmlf.training.stores.av_key import key_of
from tests.sealed import content_of, edit, write
from tests.training.small_trial import config_of, run, without_times

REUSED = "curriculum/av_reused"
EARLIER = Path(__file__).resolve().parents[2] / "fixtures" / "experiment_0_1_0" / "small"


def entries(store: Path) -> list[Path]:
    return sorted(path for path in store.iterdir() if not path.name.startswith("."))


def key(data: Path, **settings: Any) -> dict[str, Any]:
    config = config_of(data, **settings)
    return key_of(config, stages_of(config)[0], Dataset.open(data).info.fingerprint)


def fusion(reports: list[dict]) -> list[dict]:
    return without_times([report for report in reports if "fusion_epoch" in report])


@pytest.mark.parametrize("curriculum", ["av_first", "av_frozen", "unimodal_first"])
def test_a_trial_that_takes_its_encoder_from_the_store_gives_the_same_numbers(
    tmp_path: Path, small_data: Path, curriculum: str
) -> None:
    settings = {"curriculum__name": curriculum, "model__av_batch_norm": "both", "model__softperm_av_features": 0.3}
    store = tmp_path / "store"
    # Made by a trial whose fusion, text and learning rates are others.
    maker = run(tmp_path / "maker", small_data, av_store=store, model__num_fusion_tokens=5, model__fusion_depth=1,
                model__max_text_len=4, training__lr_av=3e-4, training__epochs=1, **settings)  # fmt: skip
    assert not any(REUSED in report for report in maker)
    assert len(entries(store)) == 1
    user = run(tmp_path / "user", small_data, av_store=store, **settings)
    alone = run(tmp_path / "alone", small_data, **settings)
    assert [(report["epoch"], report["stage"], report.get(REUSED)) for report in user[:2]][0] == (2, "av", 1)
    assert without_times(user)[1:] == without_times(alone)[2:]
    assert {name: user[0][name] for name in ("loss/av", "unimodal/av_MAE", "lr/av")} == {
        name: alone[1][name] for name in ("loss/av", "unimodal/av_MAE", "lr/av")
    }
    for name in ("model", "optimizer"):
        mine, theirs = (
            load_file((latest_checkpoint(tmp_path / who) or tmp_path) / f"{name}.safetensors")
            for who in ("user", "alone")
        )
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[tensor], theirs[tensor]) for tensor in mine)


def test_the_key_holds_what_the_encoder_depends_on_and_nothing_else(small_data: Path) -> None:
    own = key(small_data)
    assert own == json.loads(json.dumps(own))
    for change in (
        {"model__av_width": 36}, {"model__av_dropout": 0.3}, {"model__softperm_av_features": 0.1},
        {"curriculum__av_epochs": 3}, {"curriculum__av_lr": 2e-3}, {"curriculum__av_share": 0.4, "training__epochs": 8},
        {"training__batch_size": 8}, {"training__accumulation_steps": 2}, {"training__weight_decay": 0.1},
        {"training__clip_value": 1.0}, {"training__warmup_epochs": 0.5}, {"training__min_lr": 1e-6},
        {"training__seed": 1}, {"data__standardize": False}, {"data__train_share": 0.5},
        {"model__av_batch_norm_on": "pooled"},
        {"training__accumulation": "sum"}, {"training__decayed": "all_but_biases"}, {"training__clip_av": False},
        {"curriculum__av_schedule": "plateau"}, {"curriculum__av_plateau": 3}, {"curriculum__av_patience": 8},
        {"curriculum__av_weights": "best"}, {"curriculum__av_readout": "last"},
    ):  # fmt: skip
        assert key(small_data, **change) != own, change
    for change in (
        {"model__num_fusion_tokens": 9}, {"model__fusion_depth": 1}, {"model__max_text_len": 8},
        {"model__softperm_text_features": 0.5}, {"curriculum__name": "unimodal_first"},
        {"curriculum__name": "av_frozen"}, {"training__epochs": 9}, {"training__lr_av": 0.1},
        {"training__lr_fusion": 0.1}, {"training__loss_av": 0.0}, {"training__patience": 3},
        {"training__cosine_epochs": 50},
    ):  # fmt: skip
        assert key(small_data, **change) == own, change


OWN = ("batch_size", 8), ("accumulation_steps", 2), ("weight_decay", 0.1)


@pytest.mark.parametrize(("name", "value"), OWN)
def test_what_the_stage_has_of_its_own_is_its_own_alone(small_data: Path, name: str, value: float) -> None:
    mine = key(small_data, **{f"curriculum__av_{name}": value})
    assert mine == key(small_data, **{f"training__{name}": value})
    assert mine == key(small_data, **{f"curriculum__av_{name}": value, f"training__{name}": 4})


def test_a_stage_of_its_own_settings_trains_as_one_of_a_trial_that_has_them(tmp_path: Path, small_data: Path) -> None:
    own = run(tmp_path / "own", small_data, **{f"curriculum__av_{name}": value for name, value in OWN})
    training = run(tmp_path / "training", small_data, **{f"training__{name}": value for name, value in OWN})
    neither = run(tmp_path / "neither", small_data)
    av = [report["stage"] for report in own].count("av")
    assert av == 2
    assert [r["loss/av"] for r in own[:av]] == [r["loss/av"] for r in training[:av]]
    assert [r["loss/av"] for r in own[:av]] != [r["loss/av"] for r in neither[:av]]
    fusion = [[r["train/loss"] for r in who if r["stage"] == "fusion"] for who in (own, training)]
    assert fusion[0] != fusion[1]  # there it has those of the training


def test_an_entry_of_an_earlier_version_has_the_key_that_its_trial_would_have_today(small_data: Path) -> None:
    (trial,) = EARLIER.glob("trials/0000_*")
    config = TrialConfig.from_dict(content_of(trial / "config.json"))
    info = Dataset.open(EARLIER.parent / "data").info
    (entry,) = entries(EARLIER / "av_encoders")
    expected = json.loads((entry / "state.json").read_text())["key"]
    found = key_of(config, stages_of(config)[0], info.fingerprint)
    assert found == expected
    assert StoredEncoder(EARLIER / "av_encoders", found).folder == entry


def tear_weights(entry: Path) -> None:
    content = (entry / "model.safetensors").read_bytes()
    (entry / "model.safetensors").write_bytes(content[: len(content) // 2])


def flip_a_byte(entry: Path) -> None:
    content = bytearray((entry / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (entry / "model.safetensors").write_bytes(content)


def tear_json(entry: Path) -> None:
    state = entry / "state.json"
    state.write_text(state.read_text()[:-5])


def lose_the_moments(entry: Path) -> None:
    (entry / "optimizer.safetensors").unlink()


def change_the_key(entry: Path) -> None:
    metadata = content_of(entry / "state.json")
    metadata["key"]["training"]["seed"] = 7
    write(entry / "state.json", metadata)


def change_a_shape(entry: Path) -> None:
    weights = load_file(entry / "model.safetensors")
    save_file(weights | {"av_head.weight": torch.zeros(1, 7)}, entry / "model.safetensors")
    sums = content_of(entry / "state.json")["sums"]
    edit(entry / "state.json", sums=sums | {"model.safetensors": file_sum(entry / "model.safetensors")})


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> tuple[Path, list[dict]]:
    """A store with one entry, and what the trial that made it reported."""
    store = tmp_path_factory.mktemp("av") / "store"
    return store, run(store.with_name("trial"), small_data, av_store=store, training__epochs=1)


@pytest.mark.parametrize(
    "spoil", [tear_weights, flip_a_byte, tear_json, lose_the_moments, change_the_key, change_a_shape]
)
def test_a_torn_or_foreign_entry_is_made_anew(
    stored: tuple[Path, list[dict]], tmp_path: Path, small_data: Path, spoil: Any
) -> None:
    store, first = shutil.copytree(stored[0], tmp_path / "store"), stored[1]
    (entry,) = entries(store)
    spoil(entry)
    second = run(tmp_path / "second", small_data, av_store=store, training__epochs=1)
    assert without_times(second) == without_times(first)
    third = run(tmp_path / "third", small_data, av_store=store, training__epochs=1)
    assert entries(store) == [entry]
    assert REUSED in third[0]
    assert fusion(third) == fusion(first)


def test_a_trial_killed_in_the_stage_goes_on_and_stores_it(tmp_path: Path, small_data: Path) -> None:
    store = tmp_path / "store"
    first = run(tmp_path / "trial", small_data, av_store=store, stop_after=1)
    assert entries(store) == []
    rest = run(tmp_path / "trial", small_data, av_store=store, resume_from=latest_checkpoint(tmp_path / "trial"))
    assert len(entries(store)) == 1
    assert without_times(first + rest[1:]) == without_times(run(tmp_path / "whole", small_data))


def test_a_trial_killed_in_the_stage_takes_what_another_has_stored_since(tmp_path: Path, small_data: Path) -> None:
    store = tmp_path / "store"
    run(tmp_path / "trial", small_data, av_store=store, stop_after=1)
    other = run(tmp_path / "other", small_data, av_store=store)
    rest = run(tmp_path / "trial", small_data, av_store=store, resume_from=latest_checkpoint(tmp_path / "trial"))
    assert [report["epoch"] for report in rest] == [1, 2, 3, 4, 5]
    assert rest[1][REUSED] == 1
    assert fusion(rest) == fusion(other)


HOLD = """
import sys, time, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_maker_is_free_again(tmp_path: Path) -> None:
    lock = StoredEncoder(tmp_path, {"seed": 0}).lock()
    maker = subprocess.Popen([sys.executable, "-c", HOLD, lock.lock_file], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    assert maker.stdout.readline() == "held\n"
    with pytest.raises(Timeout):
        lock.acquire(timeout=0)
    maker.kill()
    maker.communicate()
    with lock.acquire(timeout=5):
        pass


def test_other_keys_do_not_wait(tmp_path: Path) -> None:
    with StoredEncoder(tmp_path, {"seed": 0}).lock(), StoredEncoder(tmp_path, {"seed": 1}).lock().acquire(timeout=0):
        pass
