"""What calibration finds out of a tensor: the range of its values, and the integer grid of a range."""

import math
from dataclasses import dataclass

import numpy as np

from qnas.errors import ModelError
from qnas.quantization.quantizers import QuantParams

SMALLEST_STEP = float(np.finfo(np.float32).tiny)  # below it float32 divides inexactly


@dataclass(frozen=True)
class Range:
    """The values from `low` to `high`, both in it; ModelError when they are not finite or not in order."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ModelError(f"no range: {self.low} to {self.high}; both ends must be finite, in order")

    def with_zero(self) -> "Range":
        """The smallest range that holds this one and zero: `low <= 0 <= high`."""
        return Range(min(self.low, 0.0), max(self.high, 0.0))

    def params(self, bits: int = 8) -> QuantParams:
        """The unsigned grid of the range: 2**bits levels, float32 step, zero exactly one of them.

        `step = (high - low) / (2**bits - 1)` of the range with zero, `zero_point = round(-low / step)`, which
        shifts the ends by half a step at most: no value of the range is further than that from its level.
        A range of nothing but zero has the step 1.
        """
        top = 2**bits - 1
        wide = self.with_zero()
        step = np.float32(wide.high / top - wide.low / top)
        if step < SMALLEST_STEP:
            return QuantParams(np.asarray(1.0, np.float32), 0, 0, top)
        zero_point = min(round(-wide.low / float(step)), top)
        return QuantParams(np.asarray(step, np.float32), zero_point, 0, top)
