"""QDQ ONNX models made elsewhere -> integer network, or refused by the name of what does not fit.

Read are graphs of QuantizeLinear and DequantizeLinear with constant scales as onnxruntime, NNCF, Brevitas and
QONNX (QCDQ: an integer Clip between the two) and this package write them, opset 10 .. 25. Nothing of the file
is run: its graph is walked once, in its order.

1. int8 tensors are stored as uint8, 128 higher, and int16 ones as uint16; a range that a Clip or a Relu cuts
   is stored from 0 on;
2. what is computed value by value between two quantizers is a table of 256 bytes, or of all
   integers of 16 bits, computed here in float32;
3. Relu and Clip behind another operation are bounds of its quantizer;
4. parts of a concatenation that are not on its grid get tables onto it, which is what its quantizer did;
   tables that are straight lines are convolutions of one weight in the end;
5. a float bias is rounded to steps of its input's scale times the weight's, as integer runtimes do it;
6. a float input is pixel / 255 or the pixel itself (`input_range`), and the output likewise: where its
   quantizer is not the grid of pixels, a table stands between.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from qnas.errors import ModelError, printable
from qnas.export.from_qdq import borders, convolutions, moving, per_channel, quantizers, upscaling
from qnas.export.from_qdq.by_value import FUNCTIONS, by_value
from qnas.export.from_qdq.clamps import joined_clamps
from qnas.export.from_qdq.graph import QdqGraph, constant, refused
from qnas.export.from_qdq.lines import lines_as_convolutions
from qnas.export.from_qdq.picks import joined_picks
from qnas.export.from_qdq.probes import MEASURING, SIZES, derived_values
from qnas.export.from_qdq.values import Constant, Derived, Draft, Integers, Levels, Pending, Value
from qnas.integer.interpreter import sizes
from qnas.integer.network import IntegerNetwork, check_accumulators, pruned
from qnas.integer.nodes import Add, ChannelGate, Concat, ImageInput, Multiply
from qnas.onnx.channels_first import TO_FIRST, TO_LAST
from qnas.onnx.files import read_model
from qnas.onnx.graph import STANDARD, Graph, attributes, opset_versions
from qnas.onnx.measured import TYPE_NAMES
from qnas.onnx.shapes import declared_sizes, op_name
from qnas.quantization.quantizers import GREY_LEVEL, QuantParams, quantize

InputRange = Literal["0..1", "0..255"]
DIVISORS: dict[InputRange, float] = {"0..1": 255, "0..255": 1}  # what a pixel is divided by
OPSETS = range(10, 26)
CHANNELS = (3, 1)

Operation = Callable[[QdqGraph, NodeProto], Value]
OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(FUNCTIONS, by_value),
    "AveragePool": convolutions.average_pool,
    "BatchNormalization": per_channel.batch_norm,
    "Cast": quantizers.cast,
    "Clip": quantizers.clip,
    "Concat": moving.concat,
    "Conv": convolutions.convolution,
    "ConvTranspose": convolutions.transposed_convolution,
    "DepthToSpace": moving.depth_to_space,
    "DequantizeLinear": quantizers.dequantize_linear,
    "Gather": lambda graph, node: _gather(graph, node),  # a table, or channels
    "GlobalAveragePool": moving.global_mean,
    "Identity": lambda graph, node: graph.value(node, 0),
    "MatMul": upscaling.matmul,
    "MaxPool": moving.max_pool,
    "Pad": borders.pad,
    "QuantizeLinear": quantizers.quantize_linear,
    "ReduceMean": moving.global_mean,
    "Resize": upscaling.resize,
    "Slice": borders.crop,
    "SpaceToDepth": moving.space_to_depth,
    "Transpose": lambda graph, node: graph.value(node, 0),  # between channels first and last: `_layout`
}
ANYWHERE = frozenset(
    {*FUNCTIONS, "Cast", "Clip", "DequantizeLinear", "Identity", "QuantizeLinear", "Transpose"}
)
CONTRIBUTED = frozenset({"DequantizeLinear", "QuantizeLinear"})  # of com.microsoft: the same as ONNX's


def read_qdq(path: Path, input_range: InputRange = "0..1") -> IntegerNetwork:
    """The integer network of a QDQ model file [N, C, H, W] or [N, H, W, C], C 3 or 1, float32 or uint8.

    Raises ModelError naming the node and operation that the integer network does not have, and what to do.
    """
    return integer_network_of(read_model(path), path.stem, input_range)


def integer_network_of(model: ModelProto, name: str, input_range: InputRange = "0..1") -> IntegerNetwork:
    """`read_qdq` for a model in memory."""
    nodes = Graph(model.graph).needed
    _check(model, nodes)
    (tried, derived) = derived_values(model, _channels(_image(model))[1])
    graph = QdqGraph(_opset(model), nodes, Draft(tried), derived)
    pixel = np.float32(DIVISORS[input_range])
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused where it would matter
            _inputs(graph, model, pixel)
            for node in nodes:
                _read(graph, node)
            last = _pixels(graph, model, pixel)
    except RecursionError as error:
        raise ModelError(
            "the model has hundreds of operations between two quantizers: quantize more"
        ) from error
    ordered = list(graph.draft.nodes.values())
    ordered = ordered[: [node.name for node in ordered].index(last) + 1]
    network = joined_picks(pruned(IntegerNetwork(name, 1, tuple(ordered))), graph.picks)
    network = joined_clamps(lines_as_convolutions(network, graph.draft.lines))
    network = replace(network, scale=_scale(network))
    check_accumulators(network)
    return network


# What the file has to be ----------------------------------------------------------------------------------


def _opset(model: ModelProto) -> int:
    versions = opset_versions(model)
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise ModelError(f"the model is of opset {versions}: opset {OPSETS[0]} to {OPSETS[-1]} can be read")
    return int(versions[0])


def _check(model: ModelProto, nodes: list[NodeProto]) -> None:
    """Operations first, so that a foreign one is named; then all that onnx itself asks of a model."""
    if model.functions:
        raise ModelError(
            f"the model calls its own function {model.functions[0].name!r}: inline it (onnx.inliner)"
        )
    names = [name for node in nodes for name in (node.name, node.op_type, *node.input, *node.output)]
    if not all(isinstance(name, str) for name in [*names, *(value.name for value in model.graph.input)]):
        raise ModelError("the model's names are no text (UTF-8): export it again")
    shown = {image.name for image in Graph(model.graph).inputs}  # tensors that an image decides
    for node in nodes:
        of_image = node.op_type not in MEASURING and not shown.isdisjoint(node.input)
        shown.update(node.output if of_image else ())
        standard = node.domain in STANDARD and (node.op_type in OPERATIONS or not of_image)
        if not standard and (node.domain, node.op_type in CONTRIBUTED) != ("com.microsoft", True):
            raise refused(node, f"is not an operation of the integer network: {_advice(op_name(node))}")
        if any(attribute.ref_attr_name for attribute in node.attribute):
            raise refused(node, "has an attribute of a function around it: inline it (onnx.inliner)")
    _opset(model)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, protobuf's own, and what C++ throws
        message = printable((str(error).strip().splitlines() or [""])[0][:200])
        raise ModelError(f"the model is not valid ONNX ({message}): export it again") from error


def _advice(op: str) -> str:
    domain, _, name = op.rpartition(".")
    if "qonnx" in domain or "brevitas" in domain:
        return "export as QCDQ (QuantizeLinear, Clip, DequantizeLinear)"
    if name == "DynamicQuantizeLinear":
        return "quantize statically, with scales that are constants"
    if name in ("FakeQuantize", "ConvInteger") or name.startswith(("QLinear", "QGemm")):
        return "quantize in QDQ format (QuantizeLinear and DequantizeLinear)"
    return f"it has {', '.join(sorted(OPERATIONS))}"


# The image, the walk, the pixels --------------------------------------------------------------------------


def _inputs(graph: QdqGraph, model: ModelProto, pixel: np.float32) -> None:
    """Constants and the image. Its grid is that of its first quantizer, when that keeps every pixel."""
    stored = (tensor for tensor in model.graph.initializer if graph.uses[tensor.name])
    graph.values |= {tensor.name: constant(tensor) for tensor in stored}
    graph.values |= {n.output[0]: _constant_node(n) for n in graph.nodes if n.op_type == "Constant"}
    image = _image(model)
    name, kind = image.name, image.type.tensor_type.elem_type
    channels, last = _channels(image)
    if last:
        graph.channels_last.add(name)
    if kind == TensorProto.UINT8:
        grid = graph.next_grid(name, QuantParams(np.asarray(GREY_LEVEL, np.float32), 0, 0, 255))
        graph.values[name] = graph.draft.integers(
            graph.draft.put(ImageInput(printable(name), (), channels, grid)), 0, kind
        )
    elif kind == TensorProto.FLOAT:
        grid = _pixel_grid(pixel)
        values = grid.every.astype(np.float32) / pixel
        first = graph.first_reader(name, "QuantizeLinear")
        if first is not None:
            theirs, _ = graph.grid(first, graph.quantizer(first))
            if not theirs.is_wide and (quantize(values, theirs) == grid.every).all():
                grid = theirs
        graph.values[name] = Levels(graph.draft.put(ImageInput(printable(name), (), channels, grid)), values)
    else:
        raise ModelError(f"the input {name!r} is {TYPE_NAMES.get(kind, kind)}: an image is uint8 or float32")


def _image(model: ModelProto) -> ValueInfoProto:
    images = Graph(model.graph).inputs
    if len(images) != 1:
        raise ModelError(f"the model has {len(images)} inputs: a network that reads one image can be read")
    return images[0]


def _channels(image: ValueInfoProto) -> tuple[int, bool]:
    """How many, and whether they are last; three in front where the file does not say."""
    dims = declared_sizes(image)
    if len(dims) == 4:
        for channels, last in ((dims[1], False), (dims[3], True)):
            if channels in CHANNELS:
                return channels, last
    if len(dims) != 4 or dims[1] is not None:
        raise ModelError(
            f"the input {image.name!r} is {dims}: an RGB or grey image [N, C, H, W] or [N, H, W, C] is needed"
        )
    return CHANNELS[0], False


def _pixel_grid(pixel: np.float32) -> QuantParams:
    return QuantParams(np.asarray(1 / pixel, np.float32), 0, 0, 255)


def _constant_node(node: NodeProto) -> Constant:
    """The value of a Constant, in whichever attribute it lies."""
    name, value = next(iter(attributes(node).items()), ("nothing", None))
    if isinstance(value, TensorProto):
        return constant(value)
    if name in ("value_float", "value_floats"):
        return Constant(np.asarray(value, np.float32), TensorProto.FLOAT, 32)
    if name in ("value_int", "value_ints"):
        return Constant(np.asarray(value, np.int64), TensorProto.INT64, 64)
    raise refused(node, f"holds a {name}: only tensors of numbers can be read")


def _read(graph: QdqGraph, node: NodeProto) -> None:
    """Add what `node` writes to the values of `graph`."""
    if node.op_type == "Constant":
        return
    if all(name in graph.derived for name in node.output):
        graph.values |= {name: Derived(graph.derived[name]) for name in node.output}
        return
    if node.op_type not in OPERATIONS:
        raise refused(node, f"is not an operation of the integer network: {_advice(node.op_type)}")
    _layout(graph, node)
    graph.values[node.output[0]] = OPERATIONS[node.op_type](graph, node)


def _gather(graph: QdqGraph, node: NodeProto) -> Value:
    """Read a table, a pick of channels, or places that sizes decide."""
    places = graph.value(node, 1)
    if isinstance(places, Derived):
        return upscaling.nearest_gather(graph, node, places)
    table = isinstance(graph.value(node, 0), Constant)
    return quantizers.gather(graph, node) if table else moving.channels_picked(graph, node)


def _layout(graph: QdqGraph, node: NodeProto) -> None:
    """Keep account of tensors with channels last; only what works value by value may read them."""
    tensors = [name for index, name in enumerate(node.input)
               if isinstance(graph.optional(node, index), Levels | Pending | Integers)]  # fmt: skip
    last = [name in graph.channels_last for name in tensors]
    if node.op_type == "Transpose":
        turned = (tuple(attributes(node).get("perm", ())), last)
        if turned not in ((TO_FIRST, [True]), (TO_LAST, [False])):
            what = f"by {list(turned[0])} is not an operation of the integer network"
            raise refused(node, f"{what}: channels move only between first and last")
        last = [not last[0]]
    elif any(last) and not (all(last) and node.op_type in ANYWHERE):
        raise refused(node, "reads channels last: export the model with channels first, [N, C, H, W]")
    if any(last):
        graph.channels_last.add(node.output[0])


def _pixels(graph: QdqGraph, model: ModelProto, pixel: np.float32) -> str:
    """The node that writes the output's pixels. uint8 is taken as it is, all else by its real value."""
    if len(model.graph.output) != 1:
        raise ModelError(
            f"the model has {len(model.graph.output)} outputs: a network that writes one image can be read"
        )
    output, draft = model.graph.output[0].name, graph.draft
    value = graph.values.get(output)
    if isinstance(value, Integers):
        last = value.write(value.grid)
        if value.kind != TensorProto.UINT8:
            value = draft.levels(last)
    if isinstance(value, Levels | Pending):
        grid = _pixel_grid(pixel)
        if isinstance(value, Levels) and _are_pixels(value, grid, draft):
            last = value.node
        else:
            last = draft.on_grid(value, grid, printable(output))
    elif not isinstance(value, Integers):
        raise ModelError(f"the output {output!r} does not depend on the image: export the model again")
    channels = next(iter(draft.nodes.values())).channels
    if draft.nodes[last].channels != channels:
        raise ModelError(
            f"the output {output!r} has {draft.nodes[last].channels} channels: the image has {channels}"
        )
    return last


def _are_pixels(value: Levels, grid: QuantParams, draft: Draft) -> bool:
    """Whether the bytes of `value` are those that stand for it on the `grid` of pixels."""
    source = draft.nodes[value.node].output
    return not source.is_wide and bool(
        (quantize(value.values, grid) == source.every)[draft.reach(value.node)].all()
    )


# The whole network ----------------------------------------------------------------------------------------


def _scale(network: IntegerNetwork) -> int:
    """The factor between image and output: by how much the one grows with the other.

    A border of the image may be missing in the output. Raises ModelError where sizes do not fit together.
    """
    (near, small), (far, large) = ((size, sizes(network, *size)) for size in SIZES[:2])
    for size, found in ((near, small), (far, large)):
        for node in network.nodes:
            gated = isinstance(node, ChannelGate)
            same = node.inputs if isinstance(node, Add | Multiply | Concat) and not gated else node.inputs[:1]
            if len({found[name] for name in same}) > 1 or min(found[node.name]) < 1:
                raise ModelError(
                    f"{node.name} does not fit an image of {size[0]}x{size[1]}: export a network for any size"
                )
    last = network.nodes[-1].name
    growth = {(large[last][k] - small[last][k]) / (far[k] - near[k]) for k in (0, 1)}
    scale = int(next(iter(growth)))
    missing = {scale * near[k] - small[last][k] for k in (0, 1)}
    if growth != {scale} or scale < 1 or len(missing) > 1 or min(missing) < 0:
        raise ModelError(
            "the output is no whole multiple of the image in size: an upscaling network can be read"
        )
    return scale
