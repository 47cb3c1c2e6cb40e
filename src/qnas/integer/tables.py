"""Tables of 256 bytes, or of 65536 values: functions of one quantized value."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qnas.quantization.quantizers import QuantParams, dequantize, quantize

Floats = NDArray[np.float32]


def uint8_table(
    function: Callable[[Floats], Floats], read: QuantParams, output: QuantParams
) -> NDArray[np.uint8]:
    """uint8 [256]: `function` of the real value of every q on `read`, on the grid `output`, both of bytes."""
    return quantize(function(dequantize(read.every, read)), output).astype(np.uint8)


def sigmoid(x: Floats) -> Floats:
    """The logistic function, computed in float64 and rounded once: what a table holds must not hang on the
    last bit of a float32. Bit by bit that of `qnas.torch.network.sigmoid`, which a test shows."""
    with np.errstate(over="ignore"):  # of exp: 1 / inf is the 0 that it should be
        return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))), np.float32)
