"""Ranges out of the histogram of a tensor: how much of its tails an 8-bit grid should give up."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from qnas.calibration.ranges.histogram import Histogram, Values, min_max
from qnas.calibration.ranges.ranges import Range
from qnas.quantization.quantizers import QuantParams

PERCENTILE = 99.999
COARSE = tuple(0.9**step for step in range(1, 60))  # what the search for an end of a range tries
FINE = tuple(0.98**step for step in range(5, -6, -1))
LEAST_SHARE = 1 / 32  # of the largest magnitude: a step of two bins or more
ENTROPY_SIDE = 1 << 11  # TensorRT's 2048 bins
ENTROPY_SHARE = 1 / 8  # a step of one bin or more


def percentile(histogram: Histogram, percent: float = PERCENTILE) -> Range:
    """From the percentile `100 - percent` to the percentile `percent`, both interpolated as numpy does.

    Each differs from `numpy.percentile` of all values by less than a bin, 2**-13 of the largest magnitude.
    Raises ModelError when there are no values.
    """
    full = min_max(histogram)
    values, counts, _ = histogram.occupied()
    ends = np.cumsum(counts)

    def ranked(rank: int) -> float:
        value = float(values[np.searchsorted(ends, rank, side="right")])
        return min(max(value, full.low), full.high)

    def at(share: float) -> float:
        position = (int(ends[-1]) - 1) * share
        rank = math.floor(position)
        below, above = ranked(rank), ranked(min(rank + 1, int(ends[-1]) - 1))
        return below + (above - below) * (position - rank)

    if percent >= 100:
        return full
    return Range(at((100 - percent) / 100), at(percent / 100))


def least_error(histogram: Histogram, bits: int = 8) -> Range:
    """The range whose grid of 2**bits levels has the least squared error over all values, by the middles of
    their bins.

    A value's distance to its level changes by no more than the value does: the root mean square error over
    the values themselves is within a bin's width of the one that is compared here, for every range.
    Raises ModelError when there are no values.
    """
    values, counts, _ = histogram.occupied()
    weights = counts.astype(np.float64)

    def error(candidate: Range) -> float:
        params = candidate.params(bits)
        miss = _levels(values, params) - params.zero_point
        return float((weights * np.square(miss * float(params.scale) - values)).sum())

    return _search(error, min_max(histogram), LEAST_SHARE)


def entropy(histogram: Histogram) -> Range:
    """The range that loses the least information: KL divergence of the quantized from the clipped histogram.

    Migacz, 8-bit inference with TensorRT (GTC 2017): the clipped histogram has its outliers in its outermost
    bins; the quantized one spreads what a level holds, outliers left out, evenly over the level's occupied
    bins. Corrected for grids that are not symmetric: each end has its own candidates, and a bin belongs to
    the level that the range's real grid gives it. Bin 0, which is nearly all zeros behind a ReLU and always
    exact, is left out. Raises ModelError when there are no values.
    """
    values, counts, _ = histogram.occupied(ENTROPY_SIDE)
    values, counts = values[values != 0], counts[values != 0]

    def divergence(candidate: Range) -> float:
        inside = (values >= candidate.low) & (values <= candidate.high)
        if not inside.any():
            return math.inf
        kept = counts[inside].astype(np.float64)
        levels = _levels(values[inside], candidate.params()).astype(np.intp)
        spread = (np.bincount(levels, kept) / np.maximum(np.bincount(levels), 1))[levels]
        clipped = kept.copy()
        clipped[0] += counts[values < candidate.low].sum()
        clipped[-1] += counts[values > candidate.high].sum()
        return _divergence(clipped, spread)

    full = min_max(histogram)
    return full if not values.size else _search(divergence, full, ENTROPY_SHARE)


# Each makes the range of a tensor out of one histogram: the tensor is observed once for all of them.
RULES: dict[str, Callable[[Histogram], Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": least_error,
    "entropy": entropy,
}


def _levels(values: Values, params: QuantParams) -> Values:
    levels: Values = np.rint(values / float(params.scale)) + params.zero_point
    return np.clip(levels, params.low, params.high, out=levels)


def _divergence(p: Values, q: Values) -> float:
    """KL divergence in nats of two histograms, each divided by its sum; no bin of them is empty."""
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())  # no dot product: BLAS adds in an order of its threads


def _search(cost: Callable[[Range], float], full: Range, least: float) -> Range:
    """The range of least cost of those tried; the wider one of equals, and never worse than `full`.

    The ends take shares of `full`, in turns until neither moves, then shares of what that found. The end that
    is further from zero keeps the share `least` or more of the largest magnitude in `full`.
    """
    full = full.with_zero()
    floor = least * max(-full.low, full.high)
    best, lowest = full, cost(full)
    for shares in (COARSE, FINE):
        centre, before = best, None
        while best != before:
            before = best
            highs = (Range(best.low, min(centre.high * share, full.high)) for share in shares)
            best, lowest = _least(cost, best, lowest, highs, floor)
            lows = (Range(max(centre.low * share, full.low), best.high) for share in shares)
            best, lowest = _least(cost, best, lowest, lows, floor)
    return best


def _least(
    cost: Callable[[Range], float], best: Range, lowest: float, candidates: Iterable[Range], floor: float
) -> tuple[Range, float]:
    """The candidate of least cost, and the cost; `best` and `lowest` where none is better."""
    end = best
    for candidate in candidates:
        if candidate != end and max(-candidate.low, candidate.high) >= floor:
            now = cost(candidate)
            if now < lowest:
                best, lowest = candidate, now
    return best, lowest
