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

_LENGTHS = (0.3, 1.0, 4.0)
"""Length scales tried for each tunable, in units of its whole range."""
_NOISE = 1e-2
"""Variance of the noise in units of the outcomes' variance."""
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

    def without(self, place: int) -> "Rows":
        """All rows but one."""
        return Rows(np.delete(self.x, place, axis=0), np.delete(self.predicted, place))

    def only(self, place: int) -> "Rows":
        """One row."""
        return Rows(self.x[place : place + 1], self.predicted[place : place + 1])


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
        logs = np.log([value for _, value in measured])
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
        """Expected improvement of the logarithm over `best`, times the chance to be right."""
        mean, deviation = self.estimate(rows)
        z = (math.log(best) - mean) / deviation
        density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        return deviation * (z * _normal_cdf(z) + density) * self._chance(rows.x)

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

    def _chance(self, x: Array) -> Array:
        """Share of right ones among the points nearby, each weighted by its covariance."""
        if not len(self._wrong):
            return np.ones(len(x))
        lengths = np.full(x.shape[1], 0.5)
        right = self._parts(self._distances(x, self._right), lengths).prod(axis=2).sum(axis=1)
        wrong = self._parts(self._distances(x, self._wrong), lengths).prod(axis=2).sum(axis=1)
        return (right + 0.5) / (right + wrong + 0.5)

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
        if not distances.shape[2]:
            return np.ones(distances.shape[:2])
        parts = self._parts(distances, lengths)
        return 0.5 * parts.mean(axis=2) + 0.5 * parts.prod(axis=2)

    def _fit_lengths(self, x: Array, y: Array) -> Array:
        """Length scales by coordinate ascent on the evidence, from 1 for every tunable."""
        distances = self._distances(x, x)
        ridge = self._noise * np.eye(len(x))

        def evidence(lengths: Array) -> float:
            factor = np.linalg.cholesky(self._covariance(distances, lengths) + ridge)
            half = np.linalg.solve(factor, y)
            return -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())

        lengths = np.ones(x.shape[1])
        best = evidence(lengths)
        for place in [*range(len(lengths))] * 2:
            for length in _LENGTHS:
                changed = lengths.copy()
                changed[place] = length
                found = evidence(changed) if length != lengths[place] else best
                if found > best + 1e-9:
                    best, lengths = found, changed
        return lengths


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
