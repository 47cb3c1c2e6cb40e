"""The kernels that onnxruntime runs: what two nodes have in common when they must take the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from onnx import ModelProto, NodeProto

from qnas.cost.macs import Shape
from qnas.runtimes.executed import ExecutedNode, ExecutedTensor
from qnas.runtimes.onnxruntime import WEIGHTS

_TIMING = ("axis", "ceil_mode", "dilations", "group", "mode", "perm", "strides", "transA", "transB")


@dataclass(frozen=True)
class Kernel:
    """A node without its name, values and scales.

    `inputs` are the shapes of its data and weights, `types` those tensors' types. `attributes` are the
    attributes that time depends on, as "group=1 strides=2,2". Bits are none of it: onnxruntime multiplies
    4-bit values as 8-bit ones, and the clip behind a 4-bit quantizer is a kernel of its own.
    """

    op: str
    types: tuple[str, ...]
    inputs: tuple[Shape, ...]
    output: Shape
    attributes: str = ""

    @property
    def convolution(self) -> bool:
        """Whether a kernel with weights [M, C/groups, kh, kw] slides over an image."""
        return WEIGHTS.get(self.op) is not None and len(self.inputs) == 2 and len(self.inputs[1]) == 4

    @property
    def family(self) -> tuple[str, ...]:
        """Kernels of one family differ in sizes alone: one predictor is theirs."""
        if self.convolution:
            return (self.op, *self.types, self.attributes)
        return (self.op, *self.types, self.attributes, *(_extent(each, self.output) for each in self.inputs))

    def __str__(self) -> str:
        shapes = " x ".join("x".join(map(str, shape)) for shape in self.inputs)
        return f"{self.op} {shapes} -> {'x'.join(map(str, self.output))} {self.attributes}".rstrip()


def _extent(shape: Shape, output: Shape) -> str:
    """Whether an operand is as large as the result, is broadcast to it, or something else."""
    if prod(shape) == prod(output):
        return "full"
    return "one" if prod(shape) == 1 else "part"


def kernel(node: ExecutedNode, source: NodeProto | None = None) -> Kernel:
    """The kernel of an executed node; `source` is the same node in the graph and has its attributes."""
    kept = _kept(node)
    return Kernel(
        op=node.op,
        types=tuple(tensor.dtype for tensor in kept),
        inputs=tuple(tensor.shape for tensor in kept),
        output=node.outputs[0].shape if node.outputs else (),
        attributes="" if source is None else _attributes(source),
    )


def kernels(nodes: Sequence[ExecutedNode], graph: ModelProto | None) -> tuple[Kernel, ...]:
    """One kernel a node."""
    sources = {} if graph is None else {node.name: node for node in graph.graph.node if node.name}
    return tuple(kernel(node, sources.get(node.name)) for node in nodes)


def _kept(node: ExecutedNode) -> Sequence[ExecutedTensor]:
    """Data and weights: neither scales and zero points nor a bias."""
    position = WEIGHTS.get(node.op)
    if position is not None and len(node.inputs) > position:
        return node.inputs[0], node.inputs[position]
    return [tensor for tensor in node.inputs if len(tensor.shape) > 1] or [
        tensor for tensor in node.inputs if tensor.shape
    ]


def _attributes(node: NodeProto) -> str:
    shown = {}
    for attribute in node.attribute:
        if attribute.name in _TIMING:
            value = attribute.s.decode() if attribute.s else ",".join(map(str, attribute.ints)) or attribute.i
            shown[attribute.name] = str(value)
    return " ".join(f"{name}={value}" for name, value in sorted(shown.items()))
