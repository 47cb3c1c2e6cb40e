"""Time of a family of kernels as a function of their sizes, fitted to those that were measured.

A physical law first: time = a + b * outputs + c * inputs + d * multiply-adds, no coefficient below 0, and
channels rounded up to what vector registers hold together. What it leaves, the logarithm of measured over
predicted, is smoothed over the logarithms of the sizes (Gaussian process regression: Rasmussen and Williams,
2006, algorithm 2.1). Near measured kernels the measurement rules, far from them the law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, prod

import numpy as np
from numpy.typing import NDArray

from qnas.runtime_bench.latency_model.kernels import Kernel

Array = NDArray[np.float64]
VECTOR = 16  # 32-bit sums of a 512-bit register; of narrower ones it holds several
DEPTH = 4  # bytes that one integer dot product adds up
LENGTHS = (0.15, 0.3, 0.6, 1.2)  # candidates: over how large a factor of a size, e^length, errors stay alike
SPREAD = 0.2  # of the logarithm of measured over law
NEAR = 1.0  # e^1: sizes that differ by this factor, all together
ENOUGH = 400  # kernels that choose the length
NOISE = 0.02  # of one kernel's measurement


@dataclass(frozen=True)
class Family:
    """The fitted predictor. `coefficients` [features]; `points` [kernels, sizes] and `weights` [kernels]."""

    coefficients: Array
    points: Array
    weights: Array
    length: float

    def covers(self, kernel: Kernel) -> bool:
        """Whether its sizes lie between those of measured kernels, one of which is near."""
        at = sizes(kernel)
        between = (self.points.min(0) <= at + 1e-9) & (at <= self.points.max(0) + 1e-9)
        return bool(between.all() and np.abs(self.points - at).sum(1).min() <= NEAR)

    def predict(self, kernel: Kernel) -> float:
        """Nanoseconds."""
        law = max(float(features(kernel) @ self.coefficients), 1.0)
        near = _covariance(sizes(kernel)[None], self.points, self.length)[0]
        return law * float(np.exp(near @ self.weights))


def features(kernel: Kernel) -> Array:
    """What the law is linear in, [features]."""
    read, written = float(sum(map(prod, kernel.inputs))), float(prod(kernel.output))
    if not kernel.convolution:
        return np.array([1.0, read, written])
    out_channels, *inner = kernel.inputs[1]
    depth, pixels = prod(inner), written / out_channels
    gathered = pixels * depth if prod(inner[1:]) > 1 else 0.0  # a 1x1 kernel reads the image where it lies
    padded = pixels * _up(depth, DEPTH) * _up(out_channels, VECTOR)
    return np.array([1.0, read, pixels, written, gathered, padded])


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def sizes(kernel: Kernel) -> Array:
    """Logarithms of what kernels of a family differ in, [sizes]."""
    if kernel.convolution:
        pixels = prod(kernel.output) / kernel.inputs[1][0]
        return np.log(np.array([pixels, *kernel.inputs[1]], np.float64))
    last = kernel.output[-1] if kernel.output else 1
    return np.array([log(max(prod(kernel.output), 1)), log(max(last, 1))])


def fit_family(kernels: Sequence[Kernel], nanoseconds: Sequence[float]) -> Family:
    """Fit one family; `nanoseconds` are those of its `kernels`."""
    times = np.maximum(np.asarray(nanoseconds, np.float64), 1.0)
    rows = np.array([features(each) for each in kernels])
    coefficients = nonnegative(rows / times[:, None], np.ones(len(times)))
    points = np.array([sizes(each) for each in kernels])
    errors = np.log(times / np.maximum(rows @ coefficients, 1.0))
    some = np.random.default_rng(0).permutation(len(times))[:ENOUGH]
    length = min(LENGTHS, key=lambda each: _left_out(points[some], errors[some], each))
    return Family(coefficients, points, _solve(points, errors, length), length)


def nonnegative(matrix: Array, target: Array) -> Array:
    """argmin |matrix x - target| over x >= 0 (Lawson and Hanson, 1974, chapter 23)."""
    scale = np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    columns = matrix / scale
    x = np.zeros(columns.shape[1])
    active = np.zeros(len(x), bool)
    for _ in range(3 * len(x)):
        gradient = columns.T @ (target - columns @ x)
        candidates = np.where(active, -np.inf, gradient)
        if candidates.max() <= 1e-10:
            break
        active[int(candidates.argmax())] = True
        x = _feasible(columns, target, x, active)
    solution: Array = x / scale
    return solution


def _feasible(columns: Array, target: Array, x: Array, active: NDArray[np.bool_]) -> Array:
    """The least-squares solution on the active columns, less of them as long as one is negative."""
    while True:
        trial = np.zeros_like(x)
        trial[active] = np.linalg.lstsq(columns[:, active], target, rcond=None)[0]
        negative = active & (trial <= 0)
        if not negative.any():
            return trial
        step = float(np.min(x[negative] / np.maximum(x[negative] - trial[negative], 1e-300)))
        x = x + step * (trial - x)
        active &= x > 1e-15
        x[~active] = 0


def _covariance(left: Array, right: Array, length: float) -> Array:
    distance = np.abs(left[:, None] - right[None]).sum(-1)
    covariance: Array = SPREAD**2 * np.exp(-distance / length)
    return covariance


def _solve(points: Array, errors: Array, length: float) -> Array:
    covariance = _covariance(points, points, length)
    solved = np.linalg.solve(covariance + NOISE**2 * np.eye(len(points)), errors)
    return np.asarray(solved, np.float64)


def _left_out(points: Array, errors: Array, length: float) -> float:
    """Mean absolute error of each point by the others (Rasmussen and Williams, equation 5.12)."""
    covariance = _covariance(points, points, length) + NOISE**2 * np.eye(len(points))
    inverse = np.linalg.inv(covariance)
    return float(np.abs(inverse @ errors / np.diag(inverse)).mean())
