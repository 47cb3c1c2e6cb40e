"""TFLite files of any operators, float or int8, made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qnas.export.to_tflite.file import Grid, TfliteFile

TABLES = {  # operators whose table of options is not called after them
    "AVERAGE_POOL_2D": "Pool2DOptions", "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "LEAKY_RELU": "LeakyReluOptions", "MAXIMUM": "MaximumMinimumOptions", "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions", "MINIMUM": "MaximumMinimumOptions", "MIRROR_PAD": "MirrorPadOptions",
    "REDUCE_MAX": "ReducerOptions", "SUM": "ReducerOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions", "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
}  # fmt: skip


class AnyFile(TfliteFile):
    """A file of operators that the exporter does not write as well, of one output or several."""

    def any(
        self, op: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 1, **options: Any
    ) -> None:
        """Append an operator; `options` by the schema's names."""
        node = self.schema.OperatorT()
        node.opcodeIndex = self.codes.setdefault((op, version), len(self.codes))  # type: ignore[arg-type]
        node.inputs, node.outputs = list(inputs), list(outputs)
        table = TABLES.get(op, "".join(part.capitalize() for part in op.split("_")) + "Options")
        if hasattr(self.schema, f"{table}T"):
            node.builtinOptionsType = getattr(self.schema.BuiltinOptions, table)
            node.builtinOptions = getattr(self.schema, f"{table}T")()
            for name, value in options.items():
                assert hasattr(node.builtinOptions, name)
                setattr(node.builtinOptions, name, value)
        self.operators.append(node)

    def _code(self, op: Any, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, op)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        return code


def constant(file: TfliteFile, name: str, values: Any, grid: Grid | None = None) -> int:
    """A constant: float64 as float32, int64 as int32."""
    array = np.asarray(values)
    kind = {"float64": np.float32, "int64": np.int32}.get(array.dtype.name)
    return file.constant(name, array if kind is None else array.astype(kind), grid)
