"""Convolutions, pools and margins: one function an operator."""

from __future__ import annotations

from typing import Any

from qnas.onnx.channels_first import TO_FIRST
from qnas.tflite.reader import TfliteOperator
from qnas.tflite.to_onnx.draft import Draft, refused

SAME = 0  # of the enumeration Padding
REFLECT, SYMMETRIC = 0, 1  # of MirrorPadMode


def convolution(draft: Draft, operator: TfliteOperator) -> None:
    """CONV_2D: weights [O, kh, kw, I / groups]."""
    data, weight = operator.inputs[:2]
    group = draft.shape(data)[3] // max(1, draft.shape(weight)[3])
    _convolve(draft, operator, draft.weight(weight, TO_FIRST), group)


def depthwise(draft: Draft, operator: TfliteOperator) -> None:
    """DEPTHWISE_CONV_2D: weights [1, kh, kw, C * multiplier]."""
    data, weight = operator.inputs[:2]
    _convolve(draft, operator, draft.weight(weight, (3, 0, 1, 2)), draft.shape(data)[3])


def _convolve(draft: Draft, operator: TfliteOperator, weight: str, group: int) -> None:
    o = operator.options
    form, data = _strided(operator), operator.inputs[0]
    if (
        form["auto_pad"] == "VALID" and data in draft.margins
    ):  # zeros around an image are the convolution's own
        data, pads = draft.margins[data]
        form = {"strides": form["strides"], "pads": pads}
    inputs = [draft.first(data), weight, *map(draft.bias, _given(operator.inputs[2:3]))]
    kernel = draft.shape(operator.inputs[1])[1:3]
    dilations = [o.get("DilationHFactor", 1), o.get("DilationWFactor", 1)]
    if (
        form["strides"] == [1, 1] and form.get("auto_pad", "VALID") != "VALID"
    ):  # then no size decides how much is padded
        spread = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        del form["auto_pad"]
        form["pads"] = [*(s // 2 for s in spread), *(s - s // 2 for s in spread)]
    name = draft.name(operator.outputs[0])
    result = draft.made.node(
        "Conv", inputs, f"{name}.convolved", group=group, kernel_shape=kernel, dilations=dilations, **form,
    )  # fmt: skip
    draft.write(operator, draft.last(result))


def transposed(draft: Draft, operator: TfliteOperator) -> None:
    """TRANSPOSE_CONV: its output's size, weights [O, kh, kw, I], data, a bias."""
    weight, data = operator.inputs[1:3]
    strides = [operator.options["StrideH"], operator.options["StrideW"]]
    kernel = draft.shape(weight)[1:3]
    inputs = [draft.first(data), draft.weight(weight, (3, 0, 1, 2))]
    inputs += map(draft.bias, _given(operator.inputs[3:4]))
    pads = [0, 0, 0, 0]
    more = [0, 0]
    if operator.options["Padding"] == SAME:
        cut = [max(0, k - s) for k, s in zip(kernel, strides, strict=True)]
        pads = [*(c // 2 for c in cut), *(c - c // 2 for c in cut)]
        more = [max(0, s - k) for k, s in zip(kernel, strides, strict=True)]
    name = draft.name(operator.outputs[0])
    result = draft.made.node(
        "ConvTranspose", inputs, f"{name}.convolved", strides=strides, kernel_shape=kernel, pads=pads,
        output_padding=more,
    )  # fmt: skip
    draft.write(operator, draft.last(result))


def fully_connected(draft: Draft, operator: TfliteOperator) -> None:
    """FULLY_CONNECTED on the last axis: weights [O, I]."""
    data, weight = operator.inputs[:2]
    if len(draft.shape(data)) > 2 and not operator.options.get("KeepNumDims"):
        raise refused(operator, draft.model.tensors, "flattens what it reads: export a convolution")
    name = draft.name(operator.outputs[0])
    result = draft.made.node("MatMul", [draft.value(data), draft.weight(weight, (1, 0))], f"{name}.product")
    for bias in _given(operator.inputs[2:3]):
        result = draft.made.node("Add", [result, draft.value(bias)], f"{name}.biased")
    draft.write(operator, result)


def pool(draft: Draft, operator: TfliteOperator) -> None:
    """AVERAGE_POOL_2D and MAX_POOL_2D; means leave margins out."""
    o = operator.options
    kind = "AveragePool" if operator.name.startswith("AVERAGE") else "MaxPool"
    result = draft.made.node(
        kind, [draft.first(operator.inputs[0])], f"{draft.name(operator.outputs[0])}.pooled",
        kernel_shape=[o["FilterHeight"], o["FilterWidth"]], **_strided(operator),
    )  # fmt: skip
    draft.write(operator, draft.last(result))


def pad(draft: Draft, operator: TfliteOperator) -> None:
    """PAD, PADV2 and MIRROR_PAD by constants."""
    pairs = draft.integers(operator, 1)
    if operator.name == "PAD" and len(pairs) == 8 and not any((*pairs[:2], *pairs[6:])):
        draft.margins[operator.outputs[0]] = operator.inputs[0], [*pairs[2:6:2], *pairs[3:6:2]]
    pads = draft.vector([*pairs[::2], *pairs[1::2]])
    inputs, mode = [draft.value(operator.inputs[0]), pads], "constant"
    if operator.name == "PADV2":
        inputs.append(draft.value(operator.inputs[2]))
    if operator.name == "MIRROR_PAD":
        mode = "reflect" if operator.options.get("Mode", REFLECT) == REFLECT else "edge"
        if mode == "edge" and max(pairs) > 1:
            raise refused(operator, draft.model.tensors, "mirrors with the edge twice: pad by reflection")
    draft.write(
        operator, draft.made.node("Pad", inputs, f"{draft.name(operator.outputs[0])}.padded", mode=mode)
    )


def _strided(operator: TfliteOperator) -> dict[str, Any]:
    o = operator.options
    padding = "SAME_UPPER" if o.get("Padding", SAME) == SAME else "VALID"
    return {"strides": [o["StrideH"], o["StrideW"]], "auto_pad": padding}


def _given(inputs: tuple[int, ...]) -> list[int]:
    """The inputs that are not left out."""
    return [index for index in inputs if index >= 0]
