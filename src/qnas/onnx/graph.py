"""An ONNX graph to look at: who writes and reads its tensors, what its constants and its nodes hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

STANDARD = ("", "ai.onnx")  # the domain of ONNX's own operations


def node_name(node: NodeProto) -> str:
    """The node's name, or that of its first output when it has none."""
    name: str = node.name or node.output[0]
    return name


def opset_versions(model: ModelProto) -> list[int]:
    """Those of ONNX's own operations that the model names: one, where it is valid."""
    return [entry.version for entry in model.opset_import if entry.domain in STANDARD]


def attributes(node: NodeProto) -> dict[str, Any]:
    """Name -> value, texts as str."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in found.items()}


@dataclass(frozen=True)
class Clamp:
    """What holds each value of tensor `source` between `low` and `high`, infinite where nothing does."""

    source: str
    low: float
    high: float


class Graph:
    """The graph as it is when it is first asked: after a change, make another."""

    def __init__(self, proto: GraphProto) -> None:
        self.proto = proto

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """In the order of the file."""
        return list(self.proto.node)

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """Stored tensors, and those that Constant nodes hold."""
        found = {tensor.name: tensor for tensor in self.proto.initializer}
        held = [(n.output[0], a) for n in self.nodes if n.op_type == "Constant" for a in n.attribute]
        return found | {name: a.t for name, a in held if a.name == "value"}

    @cached_property
    def inputs(self) -> list[ValueInfoProto]:
        """The inputs that are not constants as well, as those of old files are."""
        return [value for value in self.proto.input if value.name not in self.constants]

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The names of the outputs."""
        return frozenset(value.name for value in self.proto.output)

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """Tensor -> the node that writes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def needed(self) -> list[NodeProto]:
        """The nodes that the outputs depend on, in the order of the file."""
        waiting, found = list(self.outputs), set[int]()
        while waiting:
            node = self.producers.get(waiting.pop())
            if node is not None and id(node) not in found:
                found.add(id(node))
                waiting.extend(node.input)
        return [node for node in self.nodes if id(node) in found]

    @cached_property
    def readers(self) -> dict[str, list[NodeProto]]:
        """Tensor -> the nodes that read it, each once; tensors that nothing reads are missing."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.input)):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def uses(self) -> Counter[str]:
        """Tensor -> how often it is read; being an output counts as well."""
        read = Counter(name for node in self.nodes for name in node.input if name)
        return read + Counter(value.name for value in self.proto.output)

    def array(self, name: str) -> NDArray[Any]:
        """The values of constant `name`."""
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def number(self, name: str) -> float | None:
        """The one number that constant `name` holds; None where it holds several or is no constant."""
        if name not in self.constants or prod(self.constants[name].dims) != 1:
            return None
        return float(self.array(name).reshape(-1)[0])

    def scalar_operand(self, node: NodeProto) -> tuple[str, float] | None:
        """(tensor, number) of a node that reads a tensor and one constant float, in either order; else None.

        A node that subtracts from the number or divides it has none.
        """
        if len(node.input) != 2:
            return None
        for data, other in ((0, 1), (1, 0)):
            number = self._float(node.input[other])
            if number is None:
                continue
            if node.input[data] not in self.constants:
                turned = data == 1 and node.op_type in ("Sub", "Div")
                return None if turned else (node.input[data], number)
        return None

    def clamp(self, node: NodeProto) -> Clamp | None:
        """What `node` holds a tensor's values between; None unless it is a clamp of constant bounds."""
        match node.op_type:
            case "Relu":
                return Clamp(node.input[0], 0.0, inf)
            case "Clip":
                a = attributes(node)  # up to opset 10
                ends = [a.get("min", -inf), a.get("max", inf)]
                for place, name in enumerate(node.input[1:3]):
                    ends[place] = self.number(name) if name else ends[place]
                return None if None in ends else Clamp(node.input[0], *ends)
            case "Max" | "Min" as op:
                numbers = {name: self._float(name) for name in node.input}
                sources = [name for name, number in numbers.items() if number is None]
                found = [number for number in numbers.values() if number is not None]
                if len(sources) != 1 or not found or sources[0] in self.constants:
                    return None
                low, high = (max(found), inf) if op == "Max" else (-inf, min(found))
                return Clamp(sources[0], low, high)
            case _:
                return None

    def _float(self, name: str) -> float | None:
        number = self.number(name)
        return number if number is not None and self.array(name).dtype.kind == "f" else None
