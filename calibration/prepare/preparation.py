"""A model file as others export it -> the same function in few standard operations, or refused by name.

onnxruntime folds the constants, takes batch norms, factors and terms into convolutions, takes out what does
nothing and moves transpositions out of the way, with operations of ONNX alone; onnx converts the opset;
`standard_forms` does what neither does. What comes out is compared with what went in.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, version_converter

from qnas.calibration.prepare import standard_forms
from qnas.calibration.prepare.channel_copies import channel_copies
from qnas.calibration.prepare.channel_terms import channel_terms_folded
from qnas.calibration.prepare.final_clip import find_final_clip
from qnas.calibration.prepare.pixel_moves import pixel_moves
from qnas.calibration.prepare.sr_shape import SrShape, find_shape, probe_image, to_layout
from qnas.errors import ModelError
from qnas.onnx.files import damage_refused, external_files, read_model
from qnas.onnx.graph import STANDARD, Graph, node_name, opset_versions
from qnas.onnx.names import Names
from qnas.onnx.operations import QUANTIZING
from qnas.onnx.session import open_session
from qnas.onnx.shapes import check_constants, infer_shapes, op_name
from qnas.temporary import temporary_folder

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET, IR_VERSION = 21, 10  # the exporter's: INT4 tensors
MOST_PASSES = 16  # of its optimizations, each of which leaves fewer nodes; most networks need two
NEEDED_OPSET = 13  # scales per channel
OTHER_FLOATS: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
NEAR = 1e-4  # of the largest output: float32 sums in another order
ROUNDED = 1e-3  # share of the values that may fall to the other side of a half
LARGEST_WHITE = 1024.0  # of what is an image


def read_float_file(path: Path) -> tuple[ModelProto, str]:
    """The model of a file with its weights in it, functions inlined; and the SHA-256 of all that it lies in.

    Raises ModelError when it cannot be read, is quantized, is not float32, has other than one input and one
    output, or operations that are not ONNX's own or hold graphs of their own.
    """
    files, model = external_files(path), read_model(path)
    with damage_refused(path):
        for function in model.functions:
            _check_branches(function.node, path.name)
        plain = onnx.inliner.inline_local_functions(model) if model.functions else model
        _check_operations(plain, path.name)
        _check_tensors(plain, path.name)
        check_constants(plain)
    digest = sha256(path.read_bytes())
    for file in files:
        digest.update(file.read_bytes())
    return plain, digest.hexdigest()


def _check_branches(nodes: Iterable[NodeProto], name: str) -> None:
    for node in nodes:
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise ModelError(
                f"{name} has the operation {op_name(node)} (node {node_name(node)}), which repeats or "
                "chooses parts of the network: export it without branches"
            )


def _check_operations(model: ModelProto, name: str) -> None:
    nodes = model.graph.node
    if not nodes:
        raise ModelError(f"{name} has no operations: export it again")
    quantized = [node for node in nodes if node.op_type in QUANTIZING]
    if quantized:
        raise ModelError(
            f"{name} is quantized already ({len(quantized)} nodes such as {op_name(quantized[0])}): "
            "qnas-export takes it as it is, or calibrate the float model that it was made of"
        )
    for node in nodes:
        if node.domain not in STANDARD:
            raise ModelError(
                f"{name} has the operation {op_name(node)} (node {node_name(node)}), which is not of ONNX: "
                "export it with ONNX's own operations"
            )
    _check_branches(nodes, name)


def _check_tensors(model: ModelProto, name: str) -> None:
    graph = Graph(model.graph)
    for what, values in (("inputs", graph.inputs), ("outputs", model.graph.output)):
        if len(values) != 1:
            shown = ", ".join(value.name for value in values) or "none"
            raise ModelError(
                f"{name} has {len(values)} {what} ({shown}): a network of one image in and one image out can "
                "be calibrated, export it so"
            )
    # Fewer dimensions: sizes and factors of a Resize may be float64 in a float32 network.
    kinds = {tensor.data_type for tensor in graph.constants.values() if len(tensor.dims) > 1}
    kinds |= {value.type.tensor_type.elem_type for value in [*graph.inputs, *model.graph.output]}
    if wrong := sorted(kinds & OTHER_FLOATS.keys()):
        raise ModelError(f"{name} is a {OTHER_FLOATS[wrong[0]]} model: export it in float32")
    for key, tensor in graph.constants.items():
        if tensor.data_type == TensorProto.FLOAT and np.isnan(graph.array(key)).any():
            raise ModelError(f"{name}: the weights {key!r} hold NaN: export the network again")


def prepared(model: ModelProto, name: str) -> tuple[ModelProto, SrShape]:
    """The model ready for calibration, and what it is as a network; `name` is for the messages.

    Ensures: opset 21 where onnx can convert to it, at least 13; constants are initializers; every node has a
    name of its own; the number of images at once is free where the operations allow it, which the declared
    input says; the input and the output keep their names. Raises ModelError.
    """
    model.ir_version = min(model.ir_version, IR_VERSION)  # a newer onnx writes what onnxruntime does not read
    _give_names(model)  # onnxruntime loads no two nodes of one name
    shape = find_shape(model, name)
    opset = opset_of(model, name)
    failure = f"onnx cannot convert its opset {opset}"
    for target, free_batch in product(dict.fromkeys((OPSET, opset)), (True, False)):
        if target < NEEDED_OPSET:
            continue
        try:
            result = finished(_converted(simplified(_declared(model, shape, free_batch)), target), shape)
            if _same(model, result, shape, free_batch):
                return result, shape
            failure = f"it computes something else in opset {target}"
        except ModelError as error:
            failure = str(error)
    raise ModelError(f"{name} cannot be prepared ({failure}): export it again, with opset {OPSET}")


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
    if channel_copies(model, shape):
        standard_forms.unread_nodes_removed(graph)
    standard_forms.single_concatenations_removed(graph)
    standard_forms.explicit_paddings(graph)
    standard_forms.means_as_pools(graph)
    standard_forms.batch_norms_as_convolutions(graph)
    if any(node.op_type == "Transpose" for node in graph.node):
        shapes = infer_shapes(model, {graph.input[0].name: shape.input_shape()})
        if pixel_moves(graph, shapes):
            standard_forms.unread_nodes_removed(graph)
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
