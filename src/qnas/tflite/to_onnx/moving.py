"""What moves values, resizes images, or computes with sizes: one function an operator."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from onnx import TensorProto

from qnas.tflite.reader import TfliteOperator
from qnas.tflite.to_onnx.draft import Draft, refused

ENDLESS = 2**31 - 1


def concatenation(draft: Draft, operator: TfliteOperator) -> None:
    """CONCATENATION."""
    parts = [draft.value(index) for index in operator.inputs]
    name = draft.name(operator.outputs[0])
    draft.write(operator, draft.made.node("Concat", parts, f"{name}.joined", axis=operator.options["Axis"]))


def shuffle(draft: Draft, operator: TfliteOperator) -> None:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH; the channels of one pixel stay together."""
    name = draft.name(operator.outputs[0])
    kind = "DepthToSpace" if operator.name == "DEPTH_TO_SPACE" else "SpaceToDepth"
    first = draft.first(operator.inputs[0])
    moved = draft.made.node(kind, [first], f"{name}.moved", blocksize=operator.options["BlockSize"])
    draft.write(operator, draft.last(moved))


def transpose(draft: Draft, operator: TfliteOperator) -> None:
    """TRANSPOSE."""
    draft.write(operator, draft.transposed(draft.value(operator.inputs[0]), draft.integers(operator, 1)))


def reshape(draft: Draft, operator: TfliteOperator) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: to a computed shape, or to that of the output."""
    data, *rest = operator.inputs
    name = draft.name(operator.outputs[0])
    computed = operator.name == "RESHAPE" and rest and rest[0] not in draft.stored
    target = draft.value(rest[0]) if computed else draft.vector(_target(draft, operator))
    draft.write(operator, draft.made.node("Reshape", [draft.value(data), target], f"{name}.shaped"))


def _target(draft: Draft, operator: TfliteOperator) -> list[int]:
    if operator.name == "RESHAPE" and len(operator.inputs) > 1:
        return draft.integers(operator, 1)
    tensor = draft.model.tensors[operator.outputs[0]]
    free = [axis for axis, size in enumerate(tensor.signature) if size < 0]
    if len(free) > 1:
        raise refused(operator, draft.model.tensors, "has two free sizes: export it for one size")
    return list(tensor.signature or tensor.shape)


def strided_slice(draft: Draft, operator: TfliteOperator) -> None:
    """STRIDED_SLICE by constants."""
    begin, end, strides = (draft.integers(operator, position) for position in (1, 2, 3))
    o = operator.options
    if o.get("EllipsisMask") or o.get("NewAxisMask") or o.get("Offset"):
        raise refused(operator, draft.model.tensors, "adds or skips axes: export it with plain slices")
    shrunken = [axis for axis in range(len(begin)) if o.get("ShrinkAxisMask", 0) >> axis & 1]
    for axis, (first, stride) in enumerate(zip(list(begin), strides, strict=True)):
        if axis in shrunken:
            end[axis] = first + 1 if first != -1 else ENDLESS
            strides[axis] = 1
            continue
        if o.get("BeginMask", 0) >> axis & 1:
            begin[axis] = 0 if stride > 0 else ENDLESS
        if o.get("EndMask", 0) >> axis & 1:
            end[axis] = ENDLESS if stride > 0 else -ENDLESS
    vectors = [draft.vector(each) for each in (begin, end, list(range(len(begin))), strides)]
    name = draft.name(operator.outputs[0])
    result = draft.made.node("Slice", [draft.value(operator.inputs[0]), *vectors], f"{name}.sliced")
    if shrunken:
        result = draft.made.node("Squeeze", [result, draft.vector(shrunken)], f"{name}.squeezed")
    draft.write(operator, result)


def slice_(draft: Draft, operator: TfliteOperator) -> None:
    """SLICE by constants: from `begin` on `size` values, -1 for all that are left."""
    begin, size = draft.integers(operator, 1), draft.integers(operator, 2)
    end = [ENDLESS if s < 0 else b + s for b, s in zip(begin, size, strict=True)]
    vectors = [draft.vector(each) for each in (begin, end, list(range(len(begin))))]
    name = draft.name(operator.outputs[0])
    draft.write(
        operator, draft.made.node("Slice", [draft.value(operator.inputs[0]), *vectors], f"{name}.sliced")
    )


def split(draft: Draft, operator: TfliteOperator) -> None:
    """SPLIT into equal parts, SPLIT_V into given ones."""
    if operator.name == "SPLIT":
        data, axis = operator.inputs[1], draft.integers(operator, 0)[0]
        parts = [draft.shape(index)[axis] for index in operator.outputs]
    else:
        data, axis = operator.inputs[0], draft.integers(operator, 2)[0]
        parts = draft.integers(operator, 1)
    places = np.cumsum([0, *parts]).tolist()
    for output, (start, end) in enumerate(pairwise(places)):
        vectors = [draft.vector([each]) for each in (start, end, axis)]
        name = draft.name(operator.outputs[output])
        part = draft.made.node("Slice", [draft.value(data), *vectors], f"{name}.part")
        draft.write(operator, part, output)


def gather(draft: Draft, operator: TfliteOperator) -> None:
    """GATHER along one axis."""
    inputs = [draft.value(index) for index in operator.inputs[:2]]
    axis = operator.options.get("Axis", 0)
    draft.write(
        operator, draft.made.node("Gather", inputs, f"{draft.name(operator.outputs[0])}.picked", axis=axis)
    )


def pack(draft: Draft, operator: TfliteOperator) -> None:
    """PACK: tensors behind each other along a new axis."""
    axis, name = operator.options.get("Axis", 0), draft.name(operator.outputs[0])
    places = draft.vector([axis])
    parts = [draft.made.node("Unsqueeze", [draft.value(i), places], f"{name}.part") for i in operator.inputs]
    draft.write(operator, draft.made.node("Concat", parts, f"{name}.joined", axis=axis))


def unpack(draft: Draft, operator: TfliteOperator) -> None:
    """UNPACK: each slice along an axis."""
    axis = operator.options.get("Axis", 0)
    for output, index in enumerate(operator.outputs):
        inputs = [draft.value(operator.inputs[0]), draft.made.constant(f"place_{output}", np.int64(output))]
        part = draft.made.node("Gather", inputs, f"{draft.name(index)}.part", axis=axis)
        draft.write(operator, part, output)


def repeat(draft: Draft, operator: TfliteOperator) -> None:
    """TILE and BROADCAST_TO."""
    kind = "Tile" if operator.name == "TILE" else "Expand"
    inputs = [draft.value(index) for index in operator.inputs[:2]]
    draft.write(operator, draft.made.node(kind, inputs, f"{draft.name(operator.outputs[0])}.repeated"))


def resize(draft: Draft, operator: TfliteOperator) -> None:
    """RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR: by whole factors where the file's shapes say so."""
    data, size = operator.inputs[:2]
    o, name = operator.options, draft.name(operator.outputs[0])
    linear = operator.name == "RESIZE_BILINEAR"
    positions = (
        "align_corners"
        if o.get("AlignCorners")
        else "half_pixel"
        if o.get("HalfPixelCenters")
        else "asymmetric"
    )
    form = {"mode": "linear"} if linear else {
        "mode": "nearest", "nearest_mode": "floor" if positions == "asymmetric" else "round_prefer_ceil",
    }  # fmt: skip
    known = draft.integers(operator, 1) if size in draft.stored else []
    factors = [divmod(after, before) for after, before in zip(known, draft.shape(data)[1:3], strict=False)]
    if known and all(factor and not rest for factor, rest in factors) and positions != "align_corners":
        by = draft.made.constant(
            f"{name}.factors", np.array([1, factors[0][0], factors[1][0], 1], np.float32)
        )
        inputs = [draft.value(data), "", by]
    else:
        shape = draft.made.node("Shape", [draft.value(data)], f"{name}.shape")
        ends = [
            draft.made.node("Gather", [shape, draft.vector([place])], f"{name}.side", axis=0)
            for place in (0, 3)
        ]
        sizes = draft.made.node("Concat", [ends[0], draft.value(size), ends[1]], f"{name}.size", axis=0)
        inputs = [draft.value(data), "", "", sizes]
    draft.write(
        operator,
        draft.made.node(
            "Resize", inputs, f"{name}.resized", coordinate_transformation_mode=positions, **form
        ),
    )


def shape(draft: Draft, operator: TfliteOperator) -> None:
    """SHAPE, in int64."""
    name = draft.name(operator.outputs[0])
    draft.write(operator, draft.made.node("Shape", [draft.value(operator.inputs[0])], f"{name}.sizes"))


def cast(draft: Draft, operator: TfliteOperator) -> None:
    """CAST: all floats are float32 here, and all integers int64."""
    kind = draft.model.tensors[operator.outputs[0]].kind
    to = TensorProto.FLOAT if "FLOAT" in kind else TensorProto.BOOL if kind == "BOOL" else TensorProto.INT64
    name = draft.name(operator.outputs[0])
    draft.write(operator, draft.made.node("Cast", [draft.value(operator.inputs[0])], f"{name}.cast", to=to))
