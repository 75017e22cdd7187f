"""An experiment of any number of trials without training: study, manifest and trials' files as a search writes them.

Settings come from a real space, early stopping from the real scheduler; only the learning curves are made up. Their
floor depends on fusion depth, fusion tokens and curriculum, so that analyses have something to find.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.training.reports import EpochReport, Seconds, line_of
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.decide.scheduler import make_scheduler
from deepmlf.tune.driver.recorder import ExperimentRecorder
from deepmlf.tune.driver.screen import SearchScreen
from deepmlf.tune.experiment.layout import RAY, trial_folder
from deepmlf.tune.experiment.manifest import Manifest, write_manifest
from deepmlf.tune.experiment.study import BEST_VALUES, FAIL_REASON, OVERRIDES, RESTARTS, WARM_START, create_study
from deepmlf.tune.material import Material
from deepmlf.tune.messages import SearchTerms
from deepmlf.tune.objective import Objective, make_objectives, values_of
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.base import Base
from deepmlf.tune.space.bound import BoundSpace
from deepmlf.tune.space.load import load_space
from deepmlf.tune.worker.wire import bare_config, config_of

FAILURE = "NonFiniteLossError: the loss became <nan> & the trial ended in epoch 2"
REFUSAL = "ConfigError: model.fusion_depth: 40 blocks do not fit into 30 layers"
LM = LanguageModelFacts(num_layers=30, width=576)  # as deep as a small real one, so that every depth fits
_TERMS = SearchTerms(place="", experiment_id="", name="", objectives=(), train="", threads=1, cache_gb=0.0, keep=1)
_FLOORS = {"joint": 0.10, "av_first": 0.0, "av_frozen": 0.05, "unimodal_first": 0.02, "grow_depth": 0.06}


@dataclass(eq=False)
class _RayTrial:
    """What scheduler and recorder look at in a trial of Ray's."""

    trial_id: str
    config: dict[str, Any]


def make_experiment(
    storage: Path,
    trials: int = 20,
    *,
    space: str = "mosi",
    failed: tuple[int, ...] = (),
    refused: tuple[int, ...] = (),
    running: int = 0,
    events: bool = False,
    warm: int = 0,
    seed: int = 0,
    material: Material | None = None,
    **settings: Any,
) -> Path:
    """Write an experiment and return its folder.

    Args:
        storage: Folder of experiments.
        trials: Trials in all.
        space: Where their settings are drawn from, at random.
        failed: Numbers of those that fail in their second epoch, each after one restart.
        refused: Numbers of those whose setting cannot be trained.
        running: How many of the last ones are still running, half-way.
        events: Whether to write TensorBoard events, too.
        warm: So many trials of an earlier experiment, better than any here, come before the first one.
        seed: Of settings and curves.
        material: Data and language model of a search that can be gone on with; None: it can be looked at alone.
        **settings: Of the search, e.g. ``epochs``, ``objectives`` or ``scheduler``.
    """
    name = settings.pop("name", "synthetic")
    search = SearchSettings.model_validate(
        {"data": "set", "space": space, "name": name, "storage": str(storage),
         "trials": trials, "seed": seed} | settings
    )  # fmt: skip
    loaded, objectives = load_space(search.space), make_objectives(search.objectives)
    if len(objectives) > 1:
        search = search.model_copy(update={"scheduler": "none"})
    base = loaded.base | search.overrides | {"training.epochs": search.epochs}
    lm, prints = LM, {"data_fingerprint": "0" * 64}
    if material is not None:
        base |= {"data.path": search.data, "model.language_model": search.lm}
        lm = material.first.facts
        prints = {"data_fingerprint": material.dataset.info.fingerprint}
        prints["language_model_fingerprint"] = material.first.fingerprint
    experiment = storage / name
    experiment.mkdir(parents=True)
    if material is not None:
        _write_ray_records(experiment, trials)
    manifest = Manifest.now(
        search, space_source=loaded.source, base=base, language_model=lm, data_fingerprint="", secret=None
    )
    write_manifest(experiment, manifest.model_copy(update=prints))
    bound = BoundSpace(loaded, Base.of(base), {search.lm if material else "lm": lm})
    orders = Orders(bound, _TERMS.model_copy(update={"name": name}))
    drawn = _draw(bound, search)
    scheduler = make_scheduler(
        search.scheduler, optuna.create_study(), objectives[0],
        epochs=search.epochs, grace_period=search.first_rung, reduction_factor=search.reduction_factor, seed=seed,
    )  # fmt: skip
    study = create_study(experiment, name, None, objectives)
    for trial in drawn[:warm]:
        value = [0.0 if objective.direction == "minimize" else 1.0 for objective in objectives]
        known = {"params": trial.params, "distributions": trial.distributions, "user_attrs": {WARM_START: "earlier"}}
        study.add_trial(create_trial(values=value, **known))
    screen = SearchScreen(Console(quiet=True), name, objectives, trials=trials, ended=0, rungs=list)
    recorder = ExperimentRecorder(experiment, base, study, objectives, screen, Seconds())
    for number, trial in enumerate(drawn, start=warm):
        if number in refused:
            known = {"params": trial.params, "distributions": trial.distributions, "user_attrs": {FAIL_REASON: REFUSAL}}
            study.add_trial(create_trial(state=TrialState.FAIL, **known))
            continue
        overrides = json.loads(trial.user_attrs[OVERRIDES])
        ray_trial = _RayTrial(str(number), config_of(orders.again(number, overrides)))
        last = 1 if number in failed else search.epochs
        is_running = number >= warm + trials - running
        lines = _curve(overrides, search.epochs, np.random.default_rng((seed, number)))
        if number % 2 and overrides.get("curriculum.name") in ("av_first", "av_frozen"):
            lines = _reusing(lines)
        lines, is_stopped = _stop(lines, ray_trial, scheduler, max(1, last // 2) if is_running else last)
        state = TrialState.COMPLETE
        if is_running:
            state = TrialState.RUNNING
        elif number in failed:
            state = TrialState.FAIL
        elif is_stopped:
            state = TrialState.PRUNED
        else:
            lines[-1]["finished"] = "full"
        study.add_trial(_frozen(trial, lines, state, objectives))
        if events:
            recorder.on_trial_start(0, [], ray_trial)
            for line in lines:
                recorder.on_trial_result(0, [], ray_trial, line)
            if not is_running:
                recorder.on_trial_complete(0, [], ray_trial)
        else:
            folder = trial_folder(experiment, number)
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text("".join(map(line_of, lines)))
    return experiment


def _write_ray_records(experiment: Path, trials: int) -> None:
    """What a resume looks for in Ray's records: that all trials had ended there."""
    ended = [(json.dumps({"config": bare_config(number), "status": "TERMINATED"}), "{}") for number in range(trials)]
    (experiment / RAY).mkdir()
    (experiment / RAY / "experiment_state-1.json").write_text(json.dumps({"trial_data": ended}))


def _draw(space: BoundSpace, search: SearchSettings) -> list[FrozenTrial]:
    """Settings at random, as trials of a study in memory that are never told."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=search.seed))
    for _ in range(search.trials):
        trial = study.ask()
        trial.set_user_attr(OVERRIDES, json.dumps(space.sample(trial)))
    return study.trials


def _curve(overrides: dict[str, Any], epochs: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a trial would report epoch by epoch, of audiovisual stages first."""
    depth, tokens = overrides.get("model.fusion_depth", 5), overrides.get("model.num_fusion_tokens", 8)
    name = overrides.get("curriculum.name", "joint")
    floor = (
        0.7 + 0.02 * abs(depth - 5) + 0.15 * abs(math.log(max(1, tokens) / 12)) + _FLOORS[name] + rng.normal(0, 0.02)
    )
    parameters = 100_000 * depth + 64 * tokens
    alone = 2 if name in ("av_first", "av_frozen", "unimodal_first") else 0
    lines: list[dict[str, Any]] = []
    for epoch in range(1, alone + epochs + 1):
        seconds = 2.0 + depth * 0.5 + rng.uniform(0, 0.2)
        line: dict[str, Any] = {"stage": "fusion" if epoch > alone else "av_encoder", "epoch": epoch}
        line["curriculum/stage"] = int(alone > 0 and epoch > alone)
        if epoch > alone:
            mae = floor + 0.8 / (epoch - alone) + abs(rng.normal(0, 0.01))
            line |= {"fusion_epoch": epoch - alone, "valid/MAE": mae, "valid/Corr": 1 - mae / 2}
            line |= {"valid/Has0_acc_2": 1 - mae / 3, "model/trained_parameters": parameters}
            line |= {f"attention/{layer}": [0.5, 0.3, 0.2] for layer in range(depth)}
        else:
            line["unimodal/av_MAE"] = 1.4 - 0.1 * epoch
        line |= {"train/loss": 2.0 / epoch, "loss/task": 1.0 / epoch, "lr/fusion": 1e-4 / epoch, "lr/av": 1e-3 / epoch}
        line |= {f"gate/{layer}/attention": 0.02 + 0.001 * epoch for layer in range(depth)}
        line |= {"time/epoch_seconds": seconds, "speed/utterances_per_second": 1000 / seconds}
        lines.append(line)
    return lines


def _reusing(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same of a trial that took the first stage from the store: one line for it, without measurements."""
    *alone, last = (line for line in lines if line["stage"] == "av_encoder")
    kept = {name: value for name, value in last.items() if not name.startswith(("time/", "speed/"))}
    return [kept | {"curriculum/av_reused": 1}, *lines[len(alone) + 1 :]]


def _stop(
    lines: list[dict[str, Any]], trial: _RayTrial, scheduler: Any, last: int
) -> tuple[list[dict[str, Any]], bool]:
    """The lines up to where the scheduler stops the trial or its last fusion epoch is reached, and which it was."""
    scheduler.on_trial_add(None, trial)
    for count, line in enumerate(lines, start=1):
        epoch = line.get("fusion_epoch", 0)
        decision = scheduler.on_trial_result(None, trial, line) if epoch else scheduler.CONTINUE
        if epoch == last or decision == scheduler.STOP:
            return lines[:count], epoch < last
    return lines, False


def _frozen(
    trial: FrozenTrial, lines: list[dict[str, Any]], state: TrialState, objectives: tuple[Objective, ...]
) -> FrozenTrial:
    fusion = [line for line in lines if "fusion_epoch" in line]
    first = objectives[0]
    best = next(line for line in fusion if line[first.name] == first.best(line[first.name] for line in fusion))
    attrs = dict(trial.user_attrs)
    if len(objectives) > 1:
        attrs[BEST_VALUES] = values_of(objectives, EpochReport(best))
    if state == TrialState.FAIL:
        attrs |= {FAIL_REASON: FAILURE, RESTARTS: ["its worker died"]}
    values = values_of(objectives, EpochReport(best)) if state == TrialState.COMPLETE else None
    if state == TrialState.PRUNED:
        values = [fusion[-1][first.name]]  # as Optuna does it
    return create_trial(
        state=state,
        values=values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=attrs,
        intermediate_values={line["fusion_epoch"]: line[first.name] for line in fusion},
    )
