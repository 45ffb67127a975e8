"""A Gaussian process over one family's assignments: which untried one promises most.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 5; expected
improvement after Jones, Schonlau and Welch, 1998. The covariance is the mean of an additive and a
multiplicative part over the tunables (Duvenaud, Nickisch and Rasmussen, "Additive Gaussian
Processes", 2011): the first learns each tunable's own effect from few points, the second how they
interact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.search.view import FamilyView
from kernelwright.space import Values

Array = NDArray[np.floating[Any]]

_LENGTHS = (0.5, 1.0, 3.0)
"""Length scales tried for each tunable, in units of its whole range."""
_NOISE = 1e-2
"""Variance of the noise in units of the outcomes' variance."""
_WORST = 2.0
"""Outcomes count as at most this many times the best, so that disasters do not set the scale."""
_SPREAD = 0.15
"""Standard deviation of a family's logarithms before any is known; weighs as two outcomes."""
_RELATIVE_NOISE = 0.01
"""Standard deviation of repeated measurements of one kernel, as a fraction."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Points as numbers."""

    x: Array
    """One row a point: places in the sorted lists scaled to [0, 1]; of strings, the places."""
    predicted: Array
    """Logarithm of the family's prediction; zeros without one."""

    @classmethod
    def of(cls, family: FamilyView, points: Sequence[Values]) -> "Rows":
        """Rows of valid points."""
        tunables = family.space.tunables
        places = [{v: i for i, v in enumerate(t.ordered)} for t in tunables]
        spans = [max(1, len(t.values) - 1) if t.is_ordered else 1 for t in tunables]
        columns = list(zip(tunables, places, spans, strict=True))
        x = [[place[point[t.name]] / span for t, place, span in columns] for point in points]
        predict = family.predict
        logs = [math.log(max(predict(p), 1e-6)) if predict else 0.0 for p in points]
        return cls(np.array(x, dtype=float).reshape(len(points), len(tunables)), np.array(logs))

    def take(self, places: Sequence[int]) -> "Rows":
        """Some of the rows, in the given order."""
        return Rows(self.x[list(places)], self.predicted[list(places)])


class Surrogate:
    """Fitted to the logarithms of a family's outcomes, with its prediction as a prior mean.

    Args:
        family: the family.
        measured: at least one point; outcomes are positive.
        rejected: points without an outcome; promise is lower near them.
    """

    def __init__(
        self,
        family: FamilyView,
        measured: Sequence[tuple[Values, float]],
        rejected: Sequence[Values] = (),
    ) -> None:
        rows = Rows.of(family, [point for point, _ in measured])
        values = np.array([value for _, value in measured])
        logs = np.log(np.minimum(values, _WORST * values.min()))
        self._is_ordered = np.array([t.is_ordered for t in family.space.tunables], dtype=bool)
        self._slope = _slope(rows.predicted, logs) if family.predict else 0.0
        residual = logs - self._slope * rows.predicted
        self._mean = float(np.median(residual))
        spread = float(((residual - self._mean) ** 2).sum())
        self._scale = math.sqrt((spread + 2 * _SPREAD**2) / (len(residual) + 2))
        self._noise = max(_NOISE, (_RELATIVE_NOISE / self._scale) ** 2)
        y = (residual - self._mean) / self._scale
        self._lengths = self._fit_lengths(rows.x, y)
        self._condition(rows.x, y)
        self._right = rows.x
        self._wrong = Rows.of(family, rejected).x

    def promise(self, rows: Rows, best: float) -> Array:
        """Expected improvement of the logarithm over `best`."""
        mean, deviation = self.estimate(rows)
        z = (math.log(best) - mean) / deviation
        density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        return deviation * (z * _normal_cdf(z) + density)

    def estimate(self, rows: Rows) -> tuple[Array, Array]:
        """Mean and standard deviation of the logarithm of the outcome."""
        cross = self._covariance(self._distances(rows.x, self._x), self._lengths)
        mean = self._slope * rows.predicted + self._mean + self._scale * (cross @ self._weights)
        explained = ((cross @ self._inverse) * cross).sum(axis=1)
        return mean, self._scale * np.sqrt(np.maximum(1.0 - explained, 1e-9))

    def assume(self, row: Rows) -> None:
        """Count one point as measured at its estimate."""
        mean, _ = self.estimate(row)
        y = (mean - self._slope * row.predicted - self._mean) / self._scale
        self._condition(np.vstack([self._x, row.x]), np.append(self._y, y))

    def _condition(self, x: Array, y: Array) -> None:
        covariance = self._covariance(self._distances(x, x), self._lengths)
        self._x, self._y = x, y
        self._inverse: Array = np.linalg.inv(covariance + self._noise * np.eye(len(x)))
        self._weights: Array = self._inverse @ y

    def chance(self, rows: Rows) -> Array:
        """How likely points are right, from those nearby and from those that share a value.

        Shares of right ones, first weighted by covariance, then among the points with the same
        value of a tunable; of the tunables the worst counts, squared, so that a value which was
        never right is soon left alone.
        """
        if not len(self._wrong):
            return np.ones(len(rows.x))
        distances = [self._distances(rows.x, known) for known in (self._right, self._wrong)]
        half = np.full(rows.x.shape[1], 0.5)
        near = [self._parts(d, half).prod(axis=2).sum(axis=1) for d in distances]
        same = [(d == 0).sum(axis=1) for d in distances]
        by_value = ((same[0] + 1) / (same[0] + same[1] + 1)).min(axis=1, initial=1.0)
        return (near[0] + 0.5) / (near[0] + near[1] + 0.5) * by_value**2

    def _distances(self, a: Array, b: Array) -> Array:
        """By tunable: difference of places; of strings, 0 where equal and 1 where not."""
        difference = np.abs(a[:, None, :] - b[None, :, :])
        return np.where(self._is_ordered, difference, difference > 0)

    @staticmethod
    def _parts(distances: Array, lengths: Array) -> Array:
        """Matérn covariance (3/2) of each tunable alone."""
        scaled = math.sqrt(3) * distances / lengths
        return (1 + scaled) * np.exp(-scaled)

    def _covariance(self, distances: Array, lengths: Array) -> Array:
        return _mixture(self._parts(distances, lengths))

    def _fit_lengths(self, x: Array, y: Array) -> Array:
        """Length scales by coordinate ascent on the evidence, from 1 for every tunable."""
        distances = self._distances(x, x)
        parts = {length: self._parts(distances, np.array(length)) for length in _LENGTHS}
        ridge = self._noise * np.eye(len(x))

        def evidence(lengths: list[float]) -> float:
            chosen = [parts[length][:, :, place] for place, length in enumerate(lengths)]
            factor = np.linalg.cholesky(_mixture(np.stack(chosen, axis=2)) + ridge)
            half = np.linalg.solve(factor, y)
            return -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())

        lengths = [1.0] * x.shape[1]
        best = evidence(lengths) if lengths else 0.0
        for place in [*range(len(lengths))] * 2:
            for length in _LENGTHS:
                changed = [*lengths[:place], length, *lengths[place + 1 :]]
                found = evidence(changed) if length != lengths[place] else best
                if found > best + 1e-9:
                    best, lengths = found, changed
        return np.array(lengths)


def _mixture(parts: Array) -> Array:
    """Additive and multiplicative covariance, half each; constant without tunables."""
    if not parts.shape[2]:
        return np.ones(parts.shape[:2])
    return 0.5 * parts.mean(axis=2) + 0.5 * parts.prod(axis=2)


def _slope(predicted: Array, logs: Array) -> float:
    """How far differences of the prediction were borne out: 0 not at all, 1 as predicted.

    Least squares, with a prior of one half that weighs as four points 5 % apart.
    """
    prior = 4 * 0.05**2
    centred = predicted - predicted.mean()
    covariance = float((centred * (logs - logs.mean())).sum())
    slope = (covariance + 0.5 * prior) / (float((centred**2).sum()) + prior)
    return min(1.0, max(0.0, slope))


def _normal_cdf(z: Array) -> Array:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
