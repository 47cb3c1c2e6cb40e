"""A float network as its integers are planned: which tensors an image decides, and what is done to them."""

from functools import cached_property

from onnx import NodeProto, TensorProto, shape_inference

from qnas.calibration.prepare.float_model import FloatModel
from qnas.onnx.graph import Clamp, Graph, attributes
from qnas.onnx.operations import PICKING


class FloatGraph(Graph):
    """The graph of a float network. `kept_clips` are the names of clamps that stay operations."""

    def __init__(self, network: FloatModel, kept_clips: frozenset[str] = frozenset()) -> None:
        super().__init__(network.model.graph)
        self.network, self.kept_clips = network, kept_clips

    @cached_property
    def floats(self) -> dict[str, None]:
        """The float tensors that depend on the image: an ordered set."""
        inferred = shape_inference.infer_shapes(self.network.model).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        found = dict.fromkeys([self.network.input])
        for node in self.nodes:
            if node.op_type not in ("Shape", "Size") and not found.keys().isdisjoint(node.input):
                kinds = {name: types.get(name, TensorProto.FLOAT) for name in node.output if name}
                found |= dict.fromkeys(n for n, kind in kinds.items() if kind == TensorProto.FLOAT)
        return found

    @cached_property
    def value_readers(self) -> dict[str, list[NodeProto]]:
        """Tensor -> the nodes that compute with its values, each once; what asks for its shape does not."""
        return {
            name: [node for node in self.readers.get(name, ()) if name in self.data(node)]
            for name in self.floats
        }

    def data(self, node: NodeProto) -> list[str]:
        """The inputs of `node` whose values an image decides and that it computes with or moves."""
        if node.op_type in ("Shape", "Size"):
            return []
        return [name for name in node.input if name in self.floats]

    def touched(self, node: NodeProto) -> list[str]:
        """The float tensors that `node` reads and writes."""
        return [*self.data(node), *(name for name in node.output if name in self.floats)]

    def bound(self, node: NodeProto) -> Clamp | None:
        """The clamp of values that may become one of bytes, or None."""
        if node.name in self.kept_clips or len(self.data(node)) != 1:
            return None
        return self.clamp(node)

    def moves(self, node: NodeProto) -> bool:
        """Whether `node` gives its values on, all of one grid; constants joined to them stay float."""
        match node.op_type:
            case "Resize":
                return bool(attributes(node).get("mode", "nearest") == "nearest")
            case "Concat":
                return self.floats.keys() >= set(node.input)
            case "MaxPool" if len(node.output) > 1:
                return False
            case op:
                return op in PICKING or self.bound(node) is not None

    def interpolates(self, node: NodeProto) -> bool:
        """Whether `node` is a product of a tensor and weights that sizes alone determine."""
        others = [name for name in node.input if name not in self.floats]
        computed = all(name in self.producers and name not in self.constants for name in others)
        return node.op_type == "MatMul" and len(others) == 1 and computed

    def alone(self, name: str) -> bool:
        """Whether one node reads tensor `name`, and it is neither the input nor the output."""
        outside = name in (self.network.input, self.network.output)
        return len(self.value_readers[name]) == 1 and not outside

    @cached_property
    def exclusive(self) -> set[str]:
        """The tensors that, with all that they were before they were moved, are read by one node each."""
        found: set[str] = set()
        for name in filter(self.alone, self.floats):  # in the order of the nodes, whatever chains they make
            node = self.producers[name]
            if not self.moves(node) or found.issuperset(self.data(node)):
                found.add(name)
        return found
