"""The .tflite file: tensors, operators and buffers in, flatbuffer bytes out. Knows no network.

Written with the schema that ai-edge-litert ships; nothing of TensorFlow is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qnas.export.to_tflite.sharing import sharing_builder
from qnas.tflite.reader import IDENTIFIER, load_schema

ALIGNMENT = 16  # bytes, of every buffer: the schema's force_align

OpName = Literal[
    "ADD", "CAST", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "FULLY_CONNECTED", "GATHER", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL",
    "PAD", "QUANTIZE", "RESHAPE", "STRIDED_SLICE", "TRANSPOSE",
]  # fmt: skip

# Operator -> (the version whose first kernel takes int8 tensors, its table of options).
OPERATORS: dict[OpName, tuple[int, str | None]] = {
    "ADD": (2, "AddOptions"),
    "CAST": (1, "CastOptions"),
    "CONCATENATION": (2, "ConcatenationOptions"),
    "CONV_2D": (3, "Conv2DOptions"),
    "DEPTHWISE_CONV_2D": (3, "DepthwiseConv2DOptions"),
    "DEPTH_TO_SPACE": (1, "DepthToSpaceOptions"),
    "DEQUANTIZE": (2, None),
    "FULLY_CONNECTED": (5, "FullyConnectedOptions"),
    "GATHER": (2, "GatherOptions"),
    "LEAKY_RELU": (2, "LeakyReluOptions"),
    "LOGISTIC": (2, None),
    "MAXIMUM": (2, "MaximumMinimumOptions"),
    "MAX_POOL_2D": (2, "Pool2DOptions"),
    "MEAN": (2, "ReducerOptions"),
    "MINIMUM": (2, "MaximumMinimumOptions"),
    "MUL": (2, "MulOptions"),
    "PAD": (2, "PadOptions"),
    "QUANTIZE": (2, "QuantizeOptions"),
    "RESHAPE": (1, "ReshapeOptions"),
    "STRIDED_SLICE": (2, "StridedSliceOptions"),
    "TRANSPOSE": (2, "TransposeOptions"),
}

# The versions whose kernels take int16 tensors, where they are others.
WIDE_VERSIONS: dict[OpName, int] = {
    "ADD": 3, "CONCATENATION": 3, "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "GATHER": 4,
    "LOGISTIC": 3, "MAXIMUM": 4, "MAX_POOL_2D": 3, "MEAN": 3, "MINIMUM": 4, "MUL": 4, "PAD": 3,
    "TRANSPOSE": 5,
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Real value `scale * (q - zero_point)`; scale float32 [] or, per channel along `axis`, [C]."""

    scale: NDArray[np.float32]
    zero_point: int
    axis: int = 0


@dataclass(frozen=True)
class _Buffer:
    """What the schema's BufferT should be: its Pack forgets the alignment."""

    data: bytes

    def Pack(self, builder: Any) -> int:
        vector = None
        if self.data:
            builder.StartVector(1, len(self.data), ALIGNMENT)
            head = builder.Head() - len(self.data)
            builder.head = head
            builder.Bytes[head : head + len(self.data)] = self.data
            vector = builder.EndVector()
        builder.StartObject(3)
        if vector is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        return int(builder.EndObject())


@dataclass
class TfliteFile:
    """A graph under construction; tensors are known by their index."""

    schema: ModuleType = field(default_factory=load_schema)
    buffers: list[_Buffer] = field(default_factory=lambda: [_Buffer(b"")])  # 0 is the empty one by convention
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: dict[tuple[OpName, int], int] = field(default_factory=dict)  # of an operator's name and version

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str = "INT8",
        grid: Grid | None = None,
        *,
        data: bytes = b"",
        signature: Sequence[int] | None = None,
    ) -> int:
        """A new tensor; `data` makes it a constant, `signature` names sizes that may change as -1."""
        t = self.schema.TensorT()
        t.name, t.shape, t.type = name, [int(n) for n in shape], getattr(self.schema.TensorType, kind)
        t.shapeSignature = None if signature is None else list(signature)
        t.hasRank = True
        if data:
            t.buffer = len(self.buffers)
            self.buffers.append(_Buffer(data))
        if grid is not None:
            q = self.schema.QuantizationParametersT()
            q.scale = [float(s) for s in np.atleast_1d(grid.scale)]
            q.zeroPoint = [grid.zero_point] * len(q.scale)
            q.quantizedDimension = grid.axis
            t.quantization = q
        self.tensors.append(t)
        return len(self.tensors) - 1

    def constant(self, name: str, values: NDArray[Any], grid: Grid | None = None) -> int:
        """A constant tensor, of the type of `values`, an integer one."""
        data = np.ascontiguousarray(values)
        return self.tensor(name, data.shape, data.dtype.name.upper(), grid, data=data.tobytes())

    def operator(self, op: OpName, inputs: Sequence[int], output: int, **options: object) -> int:
        """Append an operator; `options` by the schema's names. Returns `output`."""
        node = self.schema.OperatorT()
        wide = any(self.is_wide(index) for index in (*inputs, output))
        version = WIDE_VERSIONS.get(op, OPERATORS[op][0]) if wide else OPERATORS[op][0]
        node.opcodeIndex = self.codes.setdefault((op, version), len(self.codes))
        node.inputs, node.outputs = list(inputs), [output]
        table = OPERATORS[op][1]
        if table is not None:
            node.builtinOptionsType = getattr(self.schema.BuiltinOptions, table)
            node.builtinOptions = getattr(self.schema, f"{table}T")()
            for name, value in options.items():
                setattr(node.builtinOptions, name, value)
        self.operators.append(node)
        return output

    def is_wide(self, index: int) -> bool:
        """Whether a tensor is int16; -1 is none."""
        return index >= 0 and bool(self.tensors[index].type == self.schema.TensorType.INT16)

    def pack(self, name: str, inputs: int, outputs: int, metadata: Mapping[str, bytes]) -> bytes:
        """The file: tensor `inputs` to tensor `outputs`, `metadata` by name."""
        schema = self.schema
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, name
        graph.inputs, graph.outputs = [inputs], [outputs]
        model = schema.ModelT()
        model.version, model.description, model.subgraphs = 3, "qnas", [graph]
        model.operatorCodes = [self._code(*code) for code in self.codes]
        model.metadata = [self._metadata(*entry) for entry in metadata.items()]
        model.signatureDefs = [self._signature(inputs, outputs)]
        model.buffers = self.buffers
        builder = sharing_builder(sum(len(b.data) for b in self.buffers) + 2**16)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _code(self, op: OpName, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, op)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        return code

    def _metadata(self, name: str, data: bytes) -> Any:
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, len(self.buffers)
        self.buffers.append(_Buffer(data))
        return entry

    def _signature(self, inputs: int, outputs: int) -> Any:
        signature = self.schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        maps = []
        for index in (inputs, outputs):
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = self.tensors[index].name, index
            maps.append([entry])
        signature.inputs, signature.outputs = maps
        return signature
