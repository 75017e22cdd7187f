"""Learning curves that were measured, and surrogates that were trained, by third parties; read where they lie.

What they are, their licences and which of them are for developing stands in ``search/README.md`` of the shared folder.
Regret is 0 at the best that is known and 1 at the median of random settings that are fully trained.
"""

import functools
import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.problems import Curve

SHARED = Path(os.environ.get("DEEPMLF_SHARED", Path(__file__).resolve().parents[3] / "shared"))
LCBENCH_TASKS = ("3945", "7593", "126026", "146212", "167104", "168330", "189354", "189862")
XGBOOST_TASKS = ("12", "1040", "1049", "1050")
TASKSET_TASKS = ("patch32_LSTM128_bs128", "patch32_VRNN128_tanh_bs128", "patch32_IRNN64_relu_last_bs128")
"""Those to develop on; the others are held out."""
_RANDOM, _STEPS, _NEIGHBOURS = 2000, 20, 100  # of the search for the best that is known


class _Scaled:
    """Regret between the best and the median of fully trained settings."""

    best: float
    median: float

    def regret(self, worth: float) -> float:
        """See `Problem.regret`."""
        return max(0.0, worth - self.best) / (self.median - self.best)


class _Surrogate(_Scaled, ABC):
    """A surrogate of YAHPO Gym's; parameters are searched between 0 and 1 here when its best setting is looked for."""

    FILE: str
    FLOATS: dict[str, tuple[float, float, bool]]
    """Range of each, and whether it is logarithmic."""
    INTS: dict[str, tuple[int, int, bool]]

    def __init__(self, task: str) -> None:
        self.task, self.name = task, f"{self.FILE} {task}"
        self._codes = json.loads((SHARED / "search" / f"{self.FILE}.enc.json").read_text())
        self.best, self.median = _scale(type(self), task)

    @abstractmethod
    def errors(self, settings: list[dict[str, Any]], steps: list[int]) -> np.ndarray:
        """The error of each setting at each step, (settings, steps)."""

    def curve(self, setting: dict[str, Any], number: int) -> Curve:
        """See `Problem.curve`; the surrogate has no noise."""
        values = self.errors([setting], list(range(1, self.epochs + 1)))[0]
        return Curve(values.tolist(), np.minimum.accumulate(values).tolist())

    epochs: int

    @abstractmethod
    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """See `Problem.space`."""

    def _draw(self, trial: optuna.Trial, names: tuple[str, ...]) -> dict[str, Any]:
        setting: dict[str, Any] = {}
        for name in names:
            if name in self.FLOATS:
                low, high, log = self.FLOATS[name]
                setting[name] = trial.suggest_float(name, low, high, log=log)
            else:
                first, last, log = self.INTS[name]
                setting[name] = trial.suggest_int(name, first, last, log=log)
        return setting


class LCBench(_Surrogate):
    """Networks on tabular data, trained for up to 52 epochs: validation error in percent."""

    FILE, epochs = "lcbench", 52
    FLOATS = {
        "learning_rate": (1e-4, 0.1, True),
        "momentum": (0.1, 0.99, False),
        "weight_decay": (1e-5, 0.1, False),
        "max_dropout": (0.0, 1.0, False),
    }
    INTS = {"batch_size": (16, 512, True), "num_layers": (1, 5, False), "max_units": (64, 1024, True)}
    _ORDER = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """See `Problem.space`."""
        return self._draw(trial, self._ORDER)

    def errors(self, settings: list[dict[str, Any]], steps: list[int]) -> np.ndarray:
        """See `_Surrogate.errors`."""
        floats = [[step, *(setting[name] for name in self._ORDER)] for setting in settings for step in steps]
        code = self._codes["OpenML_task_id"][self.task]
        found = _run(self.FILE, np.full((len(floats), 1), code), np.array(floats))[:, 1]
        return 100.0 - found.reshape(len(settings), len(steps))


class XGBoost(_Surrogate):
    """Boosted trees on 5 % to all of a data set, which stands for 20 epochs: validation error in percent."""

    FILE, epochs = "rbv2_xgboost", 20
    FLOATS = {
        "eta": (0.001, 1.0, True),
        "gamma": (4.54e-5, 7.389, True),
        "lambda": (0.001, 1096.0, True),
        "alpha": (0.001, 1096.0, True),
        "subsample": (0.1, 1.0, False),
        "min_child_weight": (2.72, 148.0, True),
        "colsample_bytree": (0.01, 1.0, False),
        "colsample_bylevel": (0.01, 1.0, False),
        "rate_drop": (0.0, 1.0, False),
        "skip_drop": (0.0, 1.0, False),
    }
    INTS = {"nrounds": (7, 2980, True), "max_depth": (1, 15, False)}
    _ORDER = (
        "nrounds", "eta", "gamma", "lambda", "alpha", "subsample", "max_depth", "min_child_weight",
        "colsample_bytree", "colsample_bylevel", "rate_drop", "skip_drop",
    )  # fmt: skip
    _OF_TREES = ("eta", "gamma", "max_depth", "min_child_weight", "colsample_bytree", "colsample_bylevel")

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """See `Problem.space`."""
        setting = {
            "booster": trial.suggest_categorical("booster", ["gblinear", "gbtree", "dart"]),
            "imputation": trial.suggest_categorical("imputation", ["impute.mean", "impute.median", "impute.hist"]),
            **self._draw(trial, ("nrounds", "lambda", "alpha", "subsample")),
        }
        if setting["booster"] != "gblinear":
            setting |= self._draw(trial, self._OF_TREES)
        if setting["booster"] == "dart":
            setting |= self._draw(trial, ("rate_drop", "skip_drop"))
        return setting

    def errors(self, settings: list[dict[str, Any]], steps: list[int]) -> np.ndarray:
        """See `_Surrogate.errors`."""
        codes = self._codes
        choices, floats = [], []
        for setting in settings:
            for step in steps:
                choices.append(
                    [
                        codes["task_id"][self.task],
                        codes["booster"][setting["booster"]],
                        codes["num.impute.selected.cpo"][setting["imputation"]],
                    ]
                )
                floats.append([*(setting.get(name, 0.0) for name in self._ORDER), step / self.epochs, 10])
        found = _run(self.FILE, np.array(choices), np.array(floats))[:, 0]
        return 100.0 * (1.0 - found.reshape(len(settings), len(steps)))


class TaskSet(_Scaled):
    """Settings of Adam for small text models: validation loss at 51 points; a setting has its nearest row's curve."""

    _LOGS = {
        "learning_rate": (1e-8, 10.0),
        "beta1": (1e-4, 1.0),
        "beta2": (1e-6, 1.0),
        "epsilon": (1e-10, 1e3),
        "l1": (1e-8, 10.0),
        "l2": (1e-8, 10.0),
        "linear_decay": (1e-7, 1e-4),
        "exponential_decay": (1e-6, 1e-3),
    }
    """Of the betas what is short of 1 is drawn."""

    def __init__(self, task: str) -> None:
        self.name = f"taskset {task}"
        with np.load(SHARED / "search" / f"FixedTextRNNClassification_imdb_{task}.npz") as table:
            settings, self._values = table["X"], table["Y"].astype(float)
            names = [str(name) for name in table["hp"]]
        short = [name.startswith("beta") for name in names]
        self._names, self.epochs = names, self._values.shape[1]
        self._rows = self._scaled(np.where(short, 1.0 - settings, settings))
        final = self._values[:, -1][np.isfinite(self._values[:, -1])]
        self.best = float(np.nanmin(self._values))
        self.median = float(np.median(final))

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        low, high = np.log(np.array([self._LOGS[name] for name in self._names])).T
        return (np.log(np.maximum(values, 1e-12)) - low) / (high - low)

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """See `Problem.space`."""
        return {name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in self._LOGS.items()}

    def curve(self, setting: dict[str, Any], number: int) -> Curve:
        """See `Problem.curve`."""
        place = self._scaled(np.array([setting[name] for name in self._names]))
        values = self._values[np.argmin(((self._rows - place) ** 2).sum(axis=1))]
        good = np.isfinite(values)
        last = len(values) if good.all() else int(np.argmin(good))
        failed = None if last == len(values) else "the loss became nan"
        return Curve(values[:last].tolist(), np.minimum.accumulate(values[:last]).tolist(), failed)


@functools.cache
def _session(name: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(SHARED / "search" / f"{name}.onnx", options)


def _run(name: str, choices: np.ndarray, floats: np.ndarray) -> np.ndarray:
    inputs = {"x_cat": choices.astype(np.int32), "x_cont": floats.astype(np.float32)}
    return np.asarray(_session(name).run(None, inputs)[0], dtype=float)


@functools.cache
def _scale(kind: type[_Surrogate], task: str) -> tuple[float, float]:
    """The best error that a long search finds, and the median of random settings, both fully trained."""
    problem = kind.__new__(kind)
    problem.task, problem._codes = task, json.loads((SHARED / "search" / f"{kind.FILE}.enc.json").read_text())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [problem.space(study.ask()) for _ in range(_RANDOM)]
    random = problem.errors(settings, [problem.epochs])[:, 0]
    generator = np.random.default_rng(0)
    best = settings[int(random.argmin())]
    lowest = float(random.min())
    for step in range(_STEPS):
        width = 0.3 * 0.85**step
        near = [_moved(problem, best, width, generator) for _ in range(_NEIGHBOURS)]
        errors = problem.errors(near, [problem.epochs])[:, 0]
        if errors.min() < lowest:
            best, lowest = near[int(errors.argmin())], float(errors.min())
    return lowest, float(np.median(random))


def _moved(
    problem: _Surrogate, setting: dict[str, Any], width: float, generator: np.random.Generator
) -> dict[str, Any]:
    """A setting with about two of its numbers moved."""
    moved = dict(setting)
    for name in setting:
        if generator.random() > 2 / len(setting) or name not in problem.FLOATS | problem.INTS:
            continue
        low, high, log = (problem.FLOATS | problem.INTS)[name]
        places = np.log([low, high, setting[name]]) if log else np.array([low, high, setting[name]], dtype=float)
        place = np.clip(places[2] + generator.normal(0.0, width) * (places[1] - places[0]), places[0], places[1])
        value = float(np.exp(place)) if log else float(place)
        moved[name] = min(high, max(low, round(value))) if name in problem.INTS else min(high, max(low, value))
    return moved
