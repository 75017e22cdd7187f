"""A sampler that learns from every point of every learning curve, see `curve_model`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.spatial.distance import cdist
from scipy.special import log_ndtr, ndtri
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from deepmlf.tune.decide.candidates import Nearby
from deepmlf.tune.decide.curve_model import CurveModel, Points
from deepmlf.tune.decide.distinct import IsNew, Space, WholeSampler, no_effect_within
from deepmlf.tune.decide.encoding import Encoding
from deepmlf.tune.decide.learning import in_use, used

_STARTUP_TRIALS = 5
_FITTED, _TAKEN_IN = 200, 350  # points
_PER_CURVE = 3
_BEST = 40  # trials of a long search that stay in view, whatever their age
_NEAR = 8  # best trials that candidates are drawn near to
_RANDOM, _LOCAL, _REFINED = 200, 200, 60  # candidates
_BASES = 5  # best candidates that further ones are drawn near to
_ALL_MOVE, _LEAST_MOVE = 0.4, 0.15  # of the local ones: how often all parameters move, and what share at least
_WIDTHS = (0.15, 0.07, 0.03)  # of the candidates near the best candidates, one round each
_PROBES = 20  # draws before a space is said to draw no candidates
_WORST = 2.0  # beyond the median, in distances of the best from it: values are cut there


@dataclass(frozen=True)
class _Drawn:
    """A candidate."""

    params: dict[str, Any]
    overrides: dict[str, Any]
    """What the space made of them."""
    used: dict[str, Any]
    """The parameters as they took effect."""


class CurveSampler(WholeSampler):
    """Takes the setting of which a model of all curves expects most at full fidelity.

    Candidates come from the search space itself, at random and near the best trials. Of these it takes the one with
    the greatest expected improvement on the best trial, as the model sees that; trials that run are taken to come to
    what the model expects of them, and those that failed to be as bad as the worst. Where settings side by side have
    turned out to train the same (see `distinct`), it keeps that far from all that it knows.

    Args:
        space: Where settings come from.
        epochs: Fusion epochs of full fidelity.
        seed: Of the trial.
        is_new: Whether a setting would train other than all trials before; others are not taken.
    """

    def __init__(self, space: Space, epochs: int, seed: int, is_new: IsNew = lambda overrides: True) -> None:
        super().__init__(RandomSampler(seed=seed))
        self._space, self._epochs, self._is_new = space, epochs, is_new
        self._generator = np.random.default_rng(seed)

    def _choose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """The best candidate; nothing as long as there is little to learn from."""
        # Matrices are small, and trials may hold all cores: a second thread would be waited for at each of them.
        with threadpool_limits(limits=1, user_api="blas"):
            return self._best_expected(study, trial)

    def _best_expected(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        number = trial.number
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        trials = [other for other in study.get_trials(deepcopy=False) if other.params and other.number != number]
        learnt = [trial for trial in trials if trial.intermediate_values and trial.state != TrialState.FAIL]
        if sum(trial.state.is_finished() for trial in learnt) < _STARTUP_TRIALS:
            return {}
        learnt = _in_view(learnt, sign)
        pending = [trial for trial in trials if trial.state == TrialState.RUNNING]
        # One that failed before it was drawn whole says nothing of where it would have been.
        whole = {frozenset(trial.params) for trial in learnt}
        failed = [t for t in trials if t.state == TrialState.FAIL and frozenset(t.params) in whole][-_BEST:]
        encoding = Encoding(trial.distributions for trial in [*learnt, *pending])
        known = [in_use(trial) for trial in learnt]
        places = encoding.encode(known)
        points = self._points(learnt, places, sign)
        model = CurveModel(encoding.groups)
        model.fit(points.take(self._some(len(points), _FITTED)))
        model.condition(points)
        own, _ = model.predict(places, np.arange(len(learnt)))
        taken = places
        if pending or failed:
            more = encoding.encode([in_use(trial) for trial in [*pending, *failed]])
            expected, _ = model.predict(more)
            expected[len(pending) :] = points.values.max()
            model.condition(points.with_more(more, expected))
            taken = np.vstack([places, more])
        best = float(own.min())
        apart = no_effect_within(places, [trial.intermediate_values for trial in learnt])

        def worth(candidates: list[_Drawn]) -> np.ndarray:
            found = encoding.encode([candidate.used for candidate in candidates])
            mean, deviation = model.predict(found)
            improvement = _log_expected_improvement((best - mean) / deviation) + np.log(deviation)
            if apart:
                improvement[cdist(found, taken).min(axis=1) < apart] = -math.inf
            return improvement

        return self._best_candidate(number, [known[index] for index in np.argsort(own)[:_NEAR]], worth)

    def _best_candidate(
        self, number: int, leading: list[dict[str, Any]], worth: Callable[["list[_Drawn]"], np.ndarray]
    ) -> dict[str, Any]:
        """The new setting of greatest worth: first of those at random and near the leading ones, then near the best."""
        candidates = self._first_candidates(number, leading)
        best, most = dict[str, Any](), -math.inf
        for width in (*_WIDTHS, None):
            if not candidates:
                break
            worths = worth(candidates)
            order = np.argsort(-worths, kind="stable")
            chosen = next((index for index in order if self._is_new(candidates[index].overrides)), None)
            if chosen is not None and worths[chosen] > most:
                best, most = candidates[chosen].params, float(worths[chosen])
            if width is not None:
                top = [candidates[index].used for index in order[:_BASES]]
                candidates = self._drawn(number, [(near, width, _share(near)) for near in top * (_REFINED // _BASES)])
        return best

    def _first_candidates(self, number: int, leading: list[dict[str, Any]]) -> "list[_Drawn]":
        """At random, and at all distances from the leading settings."""
        draw = self._generator
        wanted: list[tuple[dict[str, Any], float, float]] = [({}, 0.0, 1.0)] * _RANDOM
        for _ in range(_LOCAL):
            near = leading[min(len(leading) - 1, int(draw.exponential(2.0)))]
            share = 1.0 if draw.random() < _ALL_MOVE else _share(near)
            wanted.append((near, 10.0 ** draw.uniform(-2.0, -0.5), share))
        return self._drawn(number, wanted)

    def _drawn(self, number: int, wanted: list[tuple[dict[str, Any], float, float]]) -> "list[_Drawn]":
        """Candidates near settings, each with a width and a share of parameters that move; see `Nearby`."""
        drawn = []
        for near, width, share in wanted:
            candidate = Nearby(self._generator, number, near, width, share)
            try:
                overrides = self._space(candidate)
            except Exception:  # a user's space may refuse what it has drawn
                continue
            drawn.append(
                _Drawn(candidate.params, overrides, used(candidate.params, overrides, candidate.distributions))
            )
        return drawn

    def _points(self, trials: list[FrozenTrial], settings: np.ndarray, sign: float) -> Points:
        """Some points of each curve, its last one among them."""
        rows, steps, values = [], [], []
        for row, trial in enumerate(trials):
            for step in _spread(sorted(trial.intermediate_values)):
                rows.append(row)
                steps.append(step)
                values.append(sign * trial.intermediate_values[step])
        fidelity = np.log(steps) / math.log(self._epochs) if self._epochs > 1 else np.ones(len(steps))
        return Points(settings[rows], np.minimum(fidelity, 1.0), np.array(rows), _even(np.array(values)))

    def _some(self, count: int, wanted: int) -> np.ndarray:
        return np.sort(self._generator.choice(count, min(count, wanted), replace=False))


def fault_of(space: Space, seed: int) -> str | None:
    """Why a space cannot be asked for candidates; None if it can, for once at least.

    One that asks a trial for more than parameters and its number, such as its study, draws trials but no candidates.
    """
    generator, fault = np.random.default_rng(seed), None
    for number in range(_PROBES):
        try:
            space(Nearby(generator, number))
        except Exception as error:  # a user's space may raise anything
            fault = f"{type(error).__name__}: {error}"
        else:
            return None
    return fault


def _in_view(trials: list[FrozenTrial], sign: float) -> list[FrozenTrial]:
    """Of a long search the best trials and the latest ones, in their order."""
    latest = _TAKEN_IN // _PER_CURVE - _BEST
    if len(trials) <= latest + _BEST:
        return trials
    older = sorted(trials[:-latest], key=lambda trial: min(sign * v for v in trial.intermediate_values.values()))
    return sorted(older[:_BEST], key=lambda trial: trial.number) + trials[-latest:]


def _share(setting: Mapping[str, Any]) -> float:
    """A share of parameters of which about two move."""
    return max(_LEAST_MOVE, 2.0 / len(setting))


def _spread(steps: list[int]) -> list[int]:
    """A few of a curve's steps, the first and the last included, about as far apart on a logarithmic scale."""
    if len(steps) <= _PER_CURVE:
        return steps
    wanted = np.geomspace(steps[0], steps[-1], _PER_CURVE)
    return sorted({min(steps, key=lambda step: abs(step - place)) for place in wanted})


def _even(values: np.ndarray) -> np.ndarray:
    """Values as a Gaussian process likes them: half what they are, cut where they are bad, half their normal ranks.

    Ranks alone would lose by how much the best ones are better; values alone, of losses that may be anything, all else.
    """
    best, median = values.min(), float(np.median(values))
    cut = np.minimum(values, median + _WORST * (median - best)) if median > best else values
    scaled = (cut - cut.mean()) / (cut.std() + 1e-12)
    ranks = ndtri((rankdata(values) - 0.5) / len(values))
    return np.asarray(0.5 * scaled + 0.5 * ranks)


def _log_expected_improvement(distance: np.ndarray) -> np.ndarray:
    """Logarithm of the expected improvement of a standard normal variable on what is so far above its mean."""
    density = np.exp(-0.5 * distance**2) / math.sqrt(2.0 * math.pi)
    near = np.maximum(density + distance * np.exp(log_ndtr(distance)), 1e-300)
    far = -0.5 * distance**2 - 0.5 * math.log(2.0 * math.pi) - 2.0 * np.log(np.maximum(-distance, 1.0))
    return np.where(distance > -5.0, np.log(near), far)  # beyond, the difference is lost in rounding
