"""Integer weights and biases per output channel, symmetric; and their text in calibration.json.

weight ~ scale[o] * q, q in [-127, 127] (8 bits; -128 would saturate kernels that add pairs of products in 16
bits) or [-8, 7] (4 bits). bias ~ scale[o] * input scale * int32.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from qnas.documents.reading import Count, Document
from qnas.errors import CalibrationError
from qnas.quantization.quantizers import QuantParams

WeightRange = Literal["mse", "max"]
WeightBits = Literal[4, 8]
ENDS = {8: (-127, 127), 4: (-8, 7)}
BYTE = 255
INT32_MAX = 2**31 - 1
SMALLEST = 2.0**-60  # of a scale: products of two are still float32
EMPTY_STEPS = 2**16  # steps of a bias whose channel has no weights

Floats = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """`q` int8, of the shape of the weights, whose output channels lie along `axis`; `scale` float32 [O].

    `bias` float32 [O], for these integers: it makes up for the mean of what rounding left. None: the layer's.
    """

    q: NDArray[np.int8]
    scale: Floats
    axis: int
    bias: Floats | None = None


def largest_scale(rows: Floats, bits: int) -> Floats:
    """The smallest scales that clip no weight: rows [O, K] -> float32 [O].

    Rows of zeros have 1, and so have those whose scale would be below SMALLEST: dead filters.
    """
    low, high = ENDS[bits]
    wide = np.maximum(rows.max(axis=1) / high, rows.min(axis=1) / low).astype(np.float64)
    wide[wide < SMALLEST] = 1.0
    scale: Floats = wide.astype(np.float32)
    return scale


def nearest(weight: Floats, scale: Floats, bits: int, axis: int) -> NDArray[np.int8]:
    """Each weight rounded half to even, by itself."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    q: NDArray[np.int8] = np.clip(np.rint(weight / scale.reshape(shape)), *ENDS[bits]).astype(np.int8)
    return q


def rows_of(weight: NDArray[Number], axis: int) -> NDArray[Number]:
    """[O, everything else]."""
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def with_room(
    weight: Floats, found: IntegerWeights, bias: Floats, read: QuantParams, bits: int
) -> IntegerWeights:
    """`found` with larger scales where steps of them times that of `read` would take sums beyond 32 bits.

    `bias` [O]: the largest magnitude of each scale. It may fill what sums of products of bytes leave of 32
    bits; those of 16 bits have 64, and it alone 32.
    """
    input_scale, most = float(read.scale), 0 if read.is_wide else BYTE
    sums = np.abs(rows_of(found.q, found.axis).astype(np.int64)).sum(axis=1) * most
    magnitude = np.abs(bias.astype(np.float64))
    least = magnitude / (input_scale * (INT32_MAX - sums - 1.0))
    empty = ~rows_of(found.q, found.axis).any(axis=1) & (magnitude > SMALLEST)
    least[empty] = magnitude[empty] / (input_scale * EMPTY_STEPS)
    grown = (found.scale < least) | empty
    if not grown.any():
        return found
    # Larger scales make smaller integers, so that the bound of the sums holds; float32 rounds up here.
    scale = np.where(grown, np.nextafter(least.astype(np.float32), np.float32(np.inf)), found.scale)
    scale = np.maximum(scale, np.float32(SMALLEST)).astype(np.float32)
    q = np.moveaxis(found.q.copy(), found.axis, 0)
    q[grown] = np.moveaxis(nearest(weight, scale, bits, found.axis), found.axis, 0)[grown]
    return IntegerWeights(np.moveaxis(q, 0, found.axis), scale, found.axis, found.bias)


def quantize_bias(bias: Floats, scale: Floats, input_scale: np.float32) -> tuple[NDArray[np.int32], Floats]:
    """(int32 [..., O], its scale float32 [O] = input scale * weight scale)."""
    step = (np.float32(input_scale) * scale).astype(np.float32)
    whole = np.rint(bias.astype(np.float64) / step.astype(np.float64))
    return np.clip(whole, -INT32_MAX, INT32_MAX).astype(np.int32), step


# calibration.json ------------------------------------------------------------------------------------------


def to_document(weights: Mapping[str, IntegerWeights]) -> dict[str, Any]:
    """{node: {"shape", "axis", "q", "scale", "bias"}}, numbers in base64, little endian: exact, and short."""
    return {
        name: {
            "shape": list(each.q.shape),
            "axis": each.axis,
            "q": _text(each.q.astype("<i1")),
            "scale": _text(each.scale.astype("<f4")),
            "bias": None if each.bias is None else _text(each.bias.astype("<f4")),
        }
        for name, each in sorted(weights.items())
    }


@dataclass(frozen=True)
class _Entry:
    shape: Annotated[tuple[Annotated[int, Meta(ge=1, le=2**31 - 1)], ...], Meta(min_length=1, max_length=8)]
    axis: Count
    q: bytes
    scale: bytes
    bias: bytes | None


@dataclass(frozen=True)
class _Entries:
    weights: dict[str, _Entry]


_DOCUMENT = Document(_Entries, "calibration", "make it again with qnas-calibrate", CalibrationError)


def from_document(document: object, source: str) -> dict[str, IntegerWeights]:
    """What `to_document` wrote. Raises CalibrationError naming `source` where it is damaged."""
    found = _DOCUMENT.convert({"weights": document}, source).weights
    try:
        return {name: _read(entry) for name, entry in found.items()}
    except (IndexError, ValueError) as error:
        raise CalibrationError(f"{source}: its weights are damaged: {_DOCUMENT.advice}") from error


def _read(entry: _Entry) -> IntegerWeights:
    """Raises IndexError, ValueError where sizes or numbers do not fit."""
    q = np.frombuffer(entry.q, "<i1").astype(np.int8).reshape(entry.shape)
    scale = np.frombuffer(entry.scale, "<f4").astype(np.float32).reshape(entry.shape[entry.axis])
    bias = None if entry.bias is None else np.frombuffer(entry.bias, "<f4").astype(np.float32)
    if not (np.isfinite(scale) & (scale > 0)).all() or (bias is not None and not np.isfinite(bias).all()):
        raise ValueError
    return IntegerWeights(q, scale, entry.axis, bias)


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
