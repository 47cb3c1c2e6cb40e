"""A model file as others export it -> the same function in few standard operations, or refused by name.

onnxruntime folds the constants, takes batch norms, factors and terms into convolutions, takes out what does
nothing and moves transpositions out of the way, with operations of ONNX alone; onnx converts the opset;
`standard_forms` does what neither does. What comes out is compared with what went in.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, version_converter

from qnas.calibration.prepare import standard_forms
from qnas.calibration.prepare.channel_copies import channel_copies
from qnas.calibration.prepare.channel_terms import channel_terms_folded
from qnas.calibration.prepare.dense_layers import dense_layers_as_convolutions
from qnas.calibration.prepare.final_clip import find_final_clip
from qnas.calibration.prepare.free_sizes import freed
from qnas.calibration.prepare.pixel_moves import pixel_moves
from qnas.calibration.prepare.rectifiers import rectifiers_as_one
from qnas.calibration.prepare.sr_shape import SrShape, find_shape, probe_image, to_layout
from qnas.errors import ModelError
from qnas.onnx.builder import GraphNodes
from qnas.onnx.channels_first import TO_FIRST, TO_LAST, channels_first
from qnas.onnx.graph import STANDARD, Graph, node_name, opset_versions
from qnas.onnx.names import Names
from qnas.onnx.session import open_session
from qnas.onnx.shapes import infer_shapes
from qnas.temporary import temporary_folder

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET, IR_VERSION = 21, 10  # the exporter's: INT4 tensors
MOST_PASSES = 16  # of its optimizations, each of which leaves fewer nodes; most networks need two
NEEDED_OPSET = 13  # scales per channel
NEAR = 1e-4  # of the largest output: float32 sums in another order
ROUNDED = 1e-3  # share of the values that may fall to the other side of a half
LARGEST_WHITE = 1024.0  # of what is an image


def prepared(model: ModelProto, name: str) -> tuple[ModelProto, SrShape]:
    """The model ready for calibration, and what it is as a network; `name` is for the messages.

    One of a single size that can be freed is. The output has the layout of the input.

    Ensures: opset 21 where onnx can convert to it, at least 13; constants are initializers; every node has a
    name of its own; the number of images at once is free where the operations allow it, which the declared
    input says; the input and the output keep their names. Raises ModelError.
    """
    model.ir_version = min(model.ir_version, IR_VERSION)  # a newer onnx writes what onnxruntime does not read
    _give_names(model)  # onnxruntime loads no two nodes of one name
    shape = find_shape(model, name)
    if shape.written != shape.layout:
        shape = _one_layout(model, shape)
    opset = opset_of(model, name)
    failure = f"onnx cannot convert its opset {opset}"
    for target, free_batch in product(dict.fromkeys((OPSET, opset)), (True, False)):
        if target < NEEDED_OPSET:
            continue
        try:
            result = finished(_converted(simplified(_declared(model, shape, free_batch)), target), shape)
            free = freed(result, shape)
            if free is not None and _same(model, free[0], shape, free_batch):
                return free
            if _same(model, result, shape, free_batch):
                return result, shape
            failure = f"it computes something else in opset {target}"
        except ModelError as error:
            failure = str(error)
    raise ModelError(f"{name} cannot be prepared ({failure}): export it again, with opset {OPSET}")


def _one_layout(model: ModelProto, shape: SrShape) -> SrShape:
    """Let the output have the layout of the input, under its name."""
    name, made = model.graph.output[0].name, GraphNodes(Names.of(model.graph))
    turned = made.names.tensor(f"{name}.as_written")
    for node in model.graph.node:
        node.input[:] = [turned if each == name else each for each in node.input]
        node.output[:] = [turned if each == name else each for each in node.output]
    made.nodes.extend(model.graph.node)
    made.put("Transpose", [turned], name, perm=TO_LAST if shape.layout == "nhwc" else TO_FIRST)
    made.rewrite(model.graph)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return replace(shape, written=shape.layout)


def opset_of(model: ModelProto, name: str) -> int:
    """The version of ONNX's own operations."""
    versions = opset_versions(model)
    if len(versions) != 1:
        raise ModelError(f"{name} names {len(versions)} opsets: export it again")
    return versions[0]


def simplified(model: ModelProto) -> ModelProto:
    """What onnxruntime's basic optimizations leave, in ONNX's own operations."""
    with temporary_folder() as folder:
        path = folder / "simplified.onnx"
        open_session(model.SerializeToString(), threads=1, optimized_model_path=path, standard=True)
        result = onnx.load(path)
    kept = [entry for entry in result.opset_import if entry.domain in STANDARD]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    return result


def _converted(model: ModelProto, opset: int) -> ModelProto:
    """In another opset; ModelError where onnx cannot."""
    if model.opset_import[0].version == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:  # RuntimeError, onnx's own and what C++ throws have no common base
        raise ModelError(f"onnx cannot convert it to opset {opset}") from error


def _declared(model: ModelProto, shape: SrShape, free_batch: bool) -> ModelProto:
    """A copy whose input and output say what is known of their dimensions, and nothing else."""
    copy = deepcopy(model)
    inputs = Graph(copy.graph).inputs
    del copy.graph.input[:]  # up to IR 3 initializers were inputs too, which kept them from being folded
    copy.graph.input.extend(inputs)
    copy.ir_version = max(copy.ir_version, 4)
    del copy.graph.value_info[:]
    given, made = ("hw", "HW") if shape.size is None else (shape.size, shape.output_sides(shape.size))
    for value, sides in ((copy.graph.input[0], given), (copy.graph.output[0], made)):
        dims = ["n" if free_batch else 1, shape.channels, *sides]
        if shape.layout == "nhwc":
            dims = [dims[0], *dims[2:], dims[1]]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims))
    return copy


def finished(model: ModelProto, shape: SrShape) -> ModelProto:
    """`model` in standard forms, small again, every node named."""
    graph = model.graph
    if shape.layout == "nhwc" or any(node.op_type == "Transpose" for node in graph.node):
        shapes = infer_shapes(model, {graph.input[0].name: shape.input_shape()})
        if pixel_moves(graph, shapes):
            standard_forms.unread_nodes_removed(graph)
            shapes = infer_shapes(model, {graph.input[0].name: shape.input_shape()})
        if channels_first(graph, shapes, graph.input[0].name if shape.layout == "nhwc" else None):
            standard_forms.unread_nodes_removed(graph)
    if channel_copies(model, shape):
        standard_forms.unread_nodes_removed(graph)
    standard_forms.single_concatenations_removed(graph)
    standard_forms.sums_of_two(graph)
    if rectifiers_as_one(graph):
        standard_forms.unread_nodes_removed(graph)
    if dense_layers_as_convolutions(model, shape):
        standard_forms.unread_nodes_removed(graph)
    standard_forms.explicit_paddings(graph)
    standard_forms.means_as_pools(graph)
    standard_forms.differences_as_sums(graph)
    standard_forms.batch_norms_as_convolutions(graph)
    standard_forms.factors_moved_forward(graph)
    standard_forms.scaled_inputs_folded(graph)
    channel_terms_folded(graph)
    standard_forms.unread_nodes_removed(graph)
    result = model
    for _ in range(MOST_PASSES):  # onnxruntime leaves work undone where there is much
        if len((smaller := simplified(result)).graph.node) >= len(result.graph.node):
            break
        result = smaller
    result.ir_version = max(result.ir_version, IR_VERSION)
    del result.graph.value_info[:], result.metadata_props[:]
    for node in result.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    _give_names(result)
    return result


def _give_names(model: ModelProto) -> None:
    """A name of its own to every node: the one that it has, or that of what it writes, numbered if taken."""
    names = Names()
    for node in model.graph.node:
        node.name = names.node(node_name(node) or node.op_type)


def _same(model: ModelProto, other: ModelProto, shape: SrShape, batched: bool) -> bool:
    """Whether both write the same for images of all sizes in 0..1 and 0..255, at once where `batched`."""
    first, second = (open_session(each.SerializeToString(), threads=1) for each in (model, other))
    feed, asked = other.graph.input[0].name, [other.graph.output[0].name]
    rounds = bool(find_final_clip(model).roundings)

    def written(session: InferenceSession, images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([np.asarray(session.run(asked, {feed: x})[0]) for x in images])

    for size in shape.sizes:
        image = to_layout(probe_image(size, shape.channels).astype(np.float32)[None], shape.layout)
        images: list[NDArray[np.float32]] = [image / np.float32(255), image]
        try:
            found = written(second, [np.concatenate(images)] if batched else images)
        except Exception:  # onnxruntime's many exception types share no base but Exception
            return False
        if not _near(found, written(first, images), rounds):
            return False
    return True


def _near(found: NDArray[np.float32], wanted: NDArray[np.float32], rounds: bool) -> bool:
    """Whether each image of `found` is that of `wanted`; where it ends in a rounding, all but a few values.

    An image in the wrong unit counts only where the network makes an image of it: others overflow, or blow up
    the last bits of what they add.
    """
    if found.shape != wanted.shape:
        return False
    largest = [np.abs(image[np.isfinite(image)]).max(initial=0) for image in wanted]
    sane = [top <= LARGEST_WHITE for top in largest]
    off = [
        ~np.isclose(f, w, rtol=0, atol=NEAR * top, equal_nan=True)
        for f, w, top, image in zip(found, wanted, largest, sane, strict=True)
        if image or not any(sane)
    ]
    return all(each.mean() <= (ROUNDED if rounds else 0) for each in off)
