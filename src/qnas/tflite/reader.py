"""The main graph of a .tflite file, by the schema that ai-edge-litert ships. Nothing of the file is run.

Flatbuffers are offsets that may point anywhere, so every length is checked against the file's before it is
walked, and whatever else damage makes the schema's code raise is a ModelError.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError
from qnas.files import open_input, read_input

IDENTIFIER = b"TFL3"  # bytes 4 to 7
MOST_DIMENSIONS = 8
LONGEST_NAME = 2000
LARGEST_TENSOR = 2**40  # values
MOST_ENTRIES = 20_000  # of a list of tensors, operators or buffers
MOST_SHARED = 16  # times that a file's bytes may be read: what looks like much may be few bytes, named often
OPTIONS: dict[str, tuple[str, ...]] = {  # table of options -> what is read from it
    "AddOptions": ("FusedActivationFunction",),
    "BatchMatMulOptions": ("AdjX",),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "Conv2DOptions": (
        "Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction",
    ),
    "DepthToSpaceOptions": ("BlockSize",),
    "DepthwiseConv2DOptions": (
        "Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction",
    ),
    "DivOptions": ("FusedActivationFunction",),
    "FullyConnectedOptions": ("FusedActivationFunction", "KeepNumDims"),
    "GatherOptions": ("Axis",),
    "GeluOptions": ("Approximate",),
    "MirrorPadOptions": ("Mode",),
    "MulOptions": ("FusedActivationFunction",),
    "PackOptions": ("Axis",),
    "Pool2DOptions": (
        "Padding", "FilterHeight", "FilterWidth", "StrideH", "StrideW", "FusedActivationFunction",
    ),
    "ReducerOptions": ("KeepDims",),
    "ResizeBilinearOptions": ("AlignCorners", "HalfPixelCenters"),
    "ResizeNearestNeighborOptions": ("AlignCorners", "HalfPixelCenters"),
    "SpaceToDepthOptions": ("BlockSize",),
    "StridedSliceOptions": (
        "BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset",
    ),
    "SubOptions": ("FusedActivationFunction",),
    "TransposeConvOptions": ("Padding", "StrideH", "StrideW", "FusedActivationFunction"),
    "UnpackOptions": ("Axis",),
}  # fmt: skip
FRACTIONS: dict[str, tuple[str, ...]] = {"LeakyReluOptions": ("Alpha",), "SoftmaxOptions": ("Beta",)}
_DTYPES = {  # types whose constants are read; of others only shape and bits are known
    "FLOAT32": "<f4", "FLOAT16": "<f2", "INT8": "i1", "UINT8": "u1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8",
}  # fmt: skip
BITS = {
    "BOOL": 8, "FLOAT16": 16, "BFLOAT16": 16, "FLOAT32": 32, "FLOAT64": 64, "INT2": 2, "INT4": 4, "UINT4": 4,
    "INT8": 8, "UINT8": 8, "INT16": 16, "UINT16": 16, "INT32": 32, "UINT32": 32, "INT64": 64, "UINT64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TfliteTensor:
    """`scale` float32 and `zero_point` int64 are [0] without quantization, [1], or [C] along `axis`.

    A damaged file may have zero points without scales. `data` are the raw bytes of a constant, None of what
    is computed. `signature` is `shape` with -1 for sizes that may change, () where none may.
    """

    name: str
    shape: tuple[int, ...]
    kind: str  # "INT8"
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: NDArray[np.uint8] | None
    signature: tuple[int, ...] = ()

    def values(self) -> NDArray[Any] | None:
        """The constant's values, 4-bit ones as int8; None when there are none or their type is not read."""
        if self.data is None:
            return None
        if self.kind == "INT4":  # the lower half of a byte comes first
            pairs = np.stack([self.data << 4, self.data], axis=-1).view(np.int8) >> 4
            return pairs.ravel()[: prod(self.shape)].reshape(self.shape)
        kind = _DTYPES.get(self.kind)
        return None if kind is None else self.data.view(kind).reshape(self.shape)


@dataclass(frozen=True)
class TfliteOperator:
    """`inputs` and `outputs` are indices of tensors, -1: left out.

    `options` are those of `OPTIONS`, `fractions` those of `FRACTIONS`.
    """

    name: str  # "CONV_2D"
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int]
    fractions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TfliteModel:
    """The first subgraph of a file that holds `subgraphs`, and the file's `metadata` by name."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def load_schema() -> ModuleType:
    """ai-edge-litert's schema; UsageError where it or flatbuffers is not installed."""
    try:
        import flatbuffers  # noqa: F401 - the schema needs it
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise UsageError(f".tflite files need {error.name}: pip install 'qnas[tflite]'") from error
    schema: ModuleType = schema_py_generated
    return schema


def is_tflite(path: Path) -> bool:
    """Whether the file at `path` says of itself that it is a TFLite model, or is named so."""
    if path.suffix.lower() == ".tflite":
        return True
    if not path.is_file():
        return False
    with open_input(path) as stream:
        return stream.read(8)[4:] == IDENTIFIER


def read_tflite(source: Path | bytes) -> TfliteModel:
    """Raises ModelError when `source` is no TFLite model or damaged, UsageError without ai-edge-litert."""
    schema = load_schema()
    name = "the TFLite model" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else read_input(source)
    except OSError as error:
        raise ModelError(f"{name} cannot be read ({error.strerror}): check the path") from error
    if data[4:8] != IDENTIFIER:
        raise ModelError(f"{name} is no TFLite model: name a .tflite file")
    try:
        return _Reader(schema, data).model()
    except ModelError as error:
        raise ModelError(f"{name} is damaged ({error}): export it again") from error
    except Exception as error:  # an offset into nowhere raises whatever it meets
        raise ModelError(f"{name} is damaged (an offset leads nowhere): export it again") from error


class _Reader:
    """Messages of its ModelErrors say only what is wrong."""

    def __init__(self, schema: ModuleType, data: bytes) -> None:
        self.schema, self.data = schema, data
        self.left = MOST_SHARED * len(data)
        self.codes: list[str] = []
        self.buffers: list[NDArray[np.uint8] | None] = []

    def model(self) -> TfliteModel:
        root = self.schema.Model.GetRootAs(self.data)
        self.codes = [self._code(root.OperatorCodes(i)) for i in self._entries(root.OperatorCodesLength())]
        self.buffers = [self._buffer(root.Buffers(i)) for i in self._entries(root.BuffersLength())]
        if root.SubgraphsLength() < 1:
            raise ModelError("it holds no graph")
        graph = root.Subgraphs(0)
        tensors = tuple(self._tensor(graph.Tensors(i)) for i in self._entries(graph.TensorsLength()))
        operators = tuple(
            self._operator(graph.Operators(i), len(tensors)) for i in self._entries(graph.OperatorsLength())
        )
        inputs, outputs = (
            self._indices(length, read, len(tensors))
            for length, read in (
                (graph.InputsLength(), graph.InputsAsNumpy),
                (graph.OutputsLength(), graph.OutputsAsNumpy),
            )
        )
        metadata = dict(self._metadata(root.Metadata(i)) for i in self._entries(root.MetadataLength()))
        return TfliteModel(tensors, operators, inputs, outputs, root.SubgraphsLength(), metadata)

    def _entries(self, length: int) -> range:
        if length > MOST_ENTRIES:
            raise ModelError(f"a list of {length} entries, more than {MOST_ENTRIES}")
        self._take(4 * length)
        return range(length)

    def _take(self, size: int) -> None:
        """Count `size` bytes before they are read: offsets may lead to the same ones any number of times."""
        self.left -= size
        if self.left < 0:
            raise ModelError(f"its {len(self.data)} bytes are named more than {MOST_SHARED} times over")

    def _indices(self, length: int, read: Callable[[], Any], tensors: int) -> tuple[int, ...]:
        self._take(4 * length)
        indices = tuple(read().tolist()) if length else ()
        if any(not -1 <= index < tensors for index in indices):
            raise ModelError(f"a tensor beyond the {tensors} that there are")
        return indices

    def _code(self, code: Any) -> str:
        """The name of an operation."""
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the second, of 8 bits, came first
        if number == self.schema.BuiltinOperator.CUSTOM:
            return f"CUSTOM {_text(code.CustomCode())}"
        return _names(self.schema.BuiltinOperator).get(number, f"OPERATOR {number}")

    def _buffer(self, buffer: Any) -> NDArray[np.uint8] | None:
        if buffer.Offset() > 1:
            raise ModelError("weights that lie behind the flatbuffer are not read")
        return None if buffer.DataIsNone() else np.asarray(buffer.DataAsNumpy(), np.uint8)

    def _metadata(self, entry: Any) -> tuple[str, bytes]:
        if entry.Buffer() >= len(self.buffers):
            raise ModelError("metadata that has no buffer")
        data = self.buffers[entry.Buffer()]
        self._take(0 if data is None else data.size)
        return _text(entry.Name()), b"" if data is None else data.tobytes()

    def _tensor(self, tensor: Any) -> TfliteTensor:
        name = _text(tensor.Name())
        rank = tensor.ShapeLength()
        shape = tuple(tensor.ShapeAsNumpy().tolist()) if 0 < rank <= MOST_DIMENSIONS else ()
        kind = _names(self.schema.TensorType).get(tensor.Type(), "")
        if rank > MOST_DIMENSIONS or any(n < 0 for n in shape) or prod(shape) > LARGEST_TENSOR:
            raise ModelError(f"an impossible shape of tensor {name!r}")
        if kind not in BITS:
            raise ModelError(f"an unknown type of tensor {name!r}")
        if tensor.Buffer() >= len(self.buffers):
            raise ModelError(f"tensor {name!r} has no buffer")
        data = self.buffers[tensor.Buffer()] if tensor.Buffer() else None  # the first is always empty
        self._take(0 if data is None else data.size)
        if data is not None and data.size != -(-prod(shape) * BITS[kind] // 8):
            raise ModelError(f"tensor {name!r} of shape {shape} has {data.size} bytes")
        self._take(4 * tensor.ShapeSignatureLength())
        signature = tuple(tensor.ShapeSignatureAsNumpy().tolist()) if tensor.ShapeSignatureLength() else ()
        if signature and len(signature) != len(shape):
            raise ModelError(f"the signature of tensor {name!r} does not fit it")
        return TfliteTensor(name, shape, kind, *self._grid(tensor, name, shape), data, signature)

    def _grid(
        self, tensor: Any, name: str, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
        """Scales, zero points and their axis."""
        quantization = tensor.Quantization()
        if quantization is None:
            return np.zeros(0, np.float32), np.zeros(0, np.int64), 0
        length = quantization.ScaleLength()
        self._take(4 * length + 8 * quantization.ZeroPointLength())
        scale = np.asarray(quantization.ScaleAsNumpy() if length else (), np.float32)
        zero = np.zeros(length, np.int64)
        if quantization.ZeroPointLength():
            zero = np.asarray(quantization.ZeroPointAsNumpy(), np.int64)
        axis = quantization.QuantizedDimension()
        if length == 0:
            return scale, zero, axis
        fits = length == 1 or (0 <= axis < len(shape) and shape[axis] == length)
        if not fits or len(zero) != length or not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelError(f"the quantization of tensor {name!r} does not fit it")
        return scale, zero, axis

    def _operator(self, operator: Any, tensors: int) -> TfliteOperator:
        index = operator.OpcodeIndex()
        if not 0 <= index < len(self.codes):
            raise ModelError(f"an operation beyond the {len(self.codes)} that there are")
        inputs = self._indices(operator.InputsLength(), operator.InputsAsNumpy, tensors)
        outputs = self._indices(operator.OutputsLength(), operator.OutputsAsNumpy, tensors)
        if not outputs or min(outputs) < 0:
            raise ModelError(f"{self.codes[index]} writes nothing")
        kind = _names(self.schema.BuiltinOptions).get(operator.BuiltinOptionsType(), "")
        found = {name: int(value) for name, value in self._options(operator, kind, OPTIONS).items()}
        fractions = {name: float(value) for name, value in self._options(operator, kind, FRACTIONS).items()}
        return TfliteOperator(self.codes[index], inputs, outputs, found, fractions)

    def _options(self, operator: Any, kind: str, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """What the table of options `kind` says of the fields that are `wanted` of it."""
        table = operator.BuiltinOptions()
        if kind not in wanted or table is None:
            return {}
        options = getattr(self.schema, kind)()
        options.Init(table.Bytes, table.Pos)
        return {field: getattr(options, field)() for field in wanted[kind]}


@cache
def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _text(raw: bytes | None) -> str:
    if raw is not None and len(raw) > LONGEST_NAME:
        raise ModelError(f"a name of {len(raw)} bytes")
    return "" if raw is None else raw.decode("utf-8", "replace")
