"""A Gaussian process over settings and fidelities, which learns from every point of every learning curve.

Its covariance of two reported values is

    c + s·F + (p·K(x, x') + Σ w_j·k_j(x_j, x'_j))·(1 + r·F)/(1 + r) + t·[same trial] + n·[same value]

where F compares the fidelities, K is a Matérn kernel (5/2) over all parameters, each with a length of its own, and k_j
compares one parameter alone: most of what hyperparameters do they do one by one, and to see that takes far fewer trials
than to see how they go together. What a trial does beyond what its setting explains is t, so that a curve that has
begun well is expected to go on well.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

_CONSTANT = 1.0  # variance of the mean
_LENGTH = 0.3  # of a parameter alone, its range is 1
_FIDELITY_LENGTH = 0.5  # of log fidelity, whose range is 1
_SCALES = 5  # parameters of the covariance that are no parameter's of a setting
_JITTER = 1e-6
_STEPS = 20  # of the optimiser
_PRIOR_DEVIATIONS = 4.0  # how far from its prior a logarithm may be


@dataclass(frozen=True)
class Points:
    """Reported values."""

    settings: np.ndarray
    """Of the trial that reported each, encoded [points, columns]."""
    fidelity: np.ndarray
    """Where each was reported: log epochs over log of all epochs, [points]; 1 is a full training."""
    trials: np.ndarray
    """Which trial reported each [points]."""
    values: np.ndarray
    """Of mean 0 and variance 1 or so, [points]."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, which: np.ndarray) -> "Points":
        """Some of them."""
        return Points(self.settings[which], self.fidelity[which], self.trials[which], self.values[which])

    def with_more(self, settings: np.ndarray, values: np.ndarray) -> "Points":
        """These and one full training of each of further settings."""
        new = self.trials.max(initial=0) + 1 + np.arange(len(values))
        return Points(
            np.vstack([self.settings, settings]),
            np.concatenate([self.fidelity, np.ones(len(values))]),
            np.concatenate([self.trials, new]),
            np.concatenate([self.values, values]),
        )


class CurveModel:
    """The process; see the module.

    Args:
        groups: Which parameter each column of an encoded setting belongs to [columns]: 0, 1, …
    """

    def __init__(self, groups: np.ndarray) -> None:
        self._groups, self._parameters = groups, int(groups.max(initial=-1)) + 1
        count = self._parameters
        means = [
            np.full(count, np.log(0.5 * np.sqrt(count))),  # lengths
            np.full(count, np.log(1.0 / count)),  # w
            np.log([0.5, 0.5, 0.3, 0.1, 0.05]),  # p, r, s, t, n
        ]
        deviations = [np.full(count, 1.0), np.full(count, 1.5), np.array([1.0, 1.0, 1.0, 1.5, 1.5])]
        self._prior, self._deviations = np.concatenate(means), np.concatenate(deviations)
        self._logs = self._prior

    def fit(self, points: Points) -> None:
        """Find the parameters of the covariance, by their greatest posterior density."""
        reach = _PRIOR_DEVIATIONS * self._deviations
        bounds = list(zip(self._prior - reach, self._prior + reach, strict=True))
        density = _Density(points, self._groups, self._prior, self._deviations)
        found = minimize(density, self._prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
        self._logs = found.x

    def condition(self, points: Points) -> None:
        """Take in the values that predictions build on."""
        self._points = points
        covariance = self._covariance(points.settings, points.fidelity)
        *_, t, n = _split(self._logs)[2]
        covariance += t * (points.trials[:, None] == points.trials[None, :])
        covariance[np.diag_indices(len(points))] += n + _JITTER
        self._root = cholesky(covariance, lower=True, check_finite=False)
        self._solved = cho_solve((self._root, True), points.values, check_finite=False)

    def predict(self, settings: np.ndarray, trials: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of full trainings.

        Args:
            settings: Encoded [settings, columns].
            trials: Which trial each one is, if it is one of those that are known [settings].

        Returns:
            Both [settings]; without what chance does to a training.
        """
        _, weights, (p, _, s, t, _) = _split(self._logs)
        known = self._covariance(settings, np.ones(len(settings)))
        variance = np.full(len(settings), _CONSTANT + s + p + weights.sum())
        if trials is not None:
            known += t * (self._points.trials[:, None] == trials[None, :])
            variance += t
        root = solve_triangular(self._root, known, lower=True, check_finite=False)
        return known.T @ self._solved, np.sqrt(np.maximum(variance - (root**2).sum(0), 1e-9))

    def _covariance(self, settings: np.ndarray, fidelity: np.ndarray) -> np.ndarray:
        """Of the points taken in and others, [points, others], without what is a trial's or a value's own."""
        lengths, weights, (p, r, s, _, _) = _split(self._logs)
        mine = self._points.settings
        distance = np.sqrt(5.0 * _squares(mine / lengths[self._groups], settings / lengths[self._groups]) + 1e-12)
        effect = p * (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
        for j in range(self._parameters):
            columns = self._groups == j
            effect += weights[j] * np.exp(-0.5 / _LENGTH**2 * _squares(mine[:, columns], settings[:, columns]))
        alike = _fidelity_kernel(self._points.fidelity, fidelity)
        return _CONSTANT + s * alike + effect * (1.0 + r * alike) / (1.0 + r)


class _Density:
    """What is minimised: the negative logarithm of the posterior density of the covariance's parameters.

    Args:
        points: What was reported.
        groups: Which parameter each column of a setting belongs to.
        prior: Means of the logarithms.
        deviations: Their standard deviations.
    """

    def __init__(self, points: Points, groups: np.ndarray, prior: np.ndarray, deviations: np.ndarray) -> None:
        count = int(groups.max(initial=-1)) + 1
        of_parameters = [points.settings[:, groups == j] for j in range(count)]
        squares = np.stack([_squares(columns, columns) for columns in of_parameters])
        self._squares = squares.reshape(count, -1)  # a matrix product with the weights is the sum over parameters
        self._alone = np.exp(-0.5 * self._squares / _LENGTH**2)
        self._fidelity = _fidelity_kernel(points.fidelity, points.fidelity)
        self._same = (points.trials[:, None] == points.trials[None, :]).astype(float)
        self._values, self._prior, self._deviations = points.values, prior, deviations

    def __call__(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        """The value at some logarithms of the parameters, and its gradient."""
        lengths, weights, (p, r, s, t, n) = _split(logs)
        fidelity, same, shape = self._fidelity, self._same, self._fidelity.shape
        distance = np.sqrt(5.0 * (lengths**-2 @ self._squares).reshape(shape) + 1e-12)
        decay = np.exp(-distance)
        together = (1.0 + distance + distance**2 / 3.0) * decay
        effect = p * together + (weights @ self._alone).reshape(shape)
        shared = (1.0 + r * fidelity) / (1.0 + r)
        covariance = _CONSTANT + s * fidelity + effect * shared + t * same
        covariance[np.diag_indices(len(covariance))] += n + _JITTER
        try:
            root = cholesky(covariance, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(logs)
        solved = cho_solve((root, True), self._values, check_finite=False)
        of = cho_solve((root, True), np.eye(len(covariance)), check_finite=False) - np.outer(solved, solved)
        of_effect = of * shared
        of_together = (of_effect * ((5.0 / 3.0) * (1.0 + distance) * decay * p)).ravel()
        scales = [
            (of_effect * together).sum() * p,
            (of * effect * (fidelity - 1.0)).sum() * r / (1.0 + r) ** 2,
            (of * fidelity).sum() * s,
            (of * same).sum() * t,
            np.trace(of) * n,
        ]
        of_lengths, of_weights = self._squares @ of_together * lengths**-2, self._alone @ of_effect.ravel() * weights
        off = (logs - self._prior) / self._deviations
        value = 0.5 * self._values @ solved + np.log(np.diag(root)).sum() + 0.5 * (off**2).sum()
        gradient = 0.5 * np.concatenate([of_lengths, of_weights, scales])
        return float(value), gradient + off / self._deviations


def _split(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths, w, and p, r, s, t, n."""
    count = (len(logs) - _SCALES) // 2
    values = np.exp(logs)
    return values[:count], values[count : 2 * count], values[2 * count :]


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None, :] - 2.0 * first @ second.T
    return np.asarray(np.maximum(squares, 0.0))


def _fidelity_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * ((first[:, None] - second[None, :]) / _FIDELITY_LENGTH) ** 2))
