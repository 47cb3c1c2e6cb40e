"""What each runtime runs fast and exactly, as data: one table. docs/targets.md has the measurements.

A target never changes what a network computes, only the form in which a file says it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from qnas.export.passes.channel_padding import pad_channels
from qnas.export.passes.dense_groups import dense_groups
from qnas.export.passes.phases import delay_shuffles
from qnas.export.passes.repeats import fold_repeats
from qnas.integer.network import IntegerNetwork, refuse_image_gains

Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Target:
    """The forms of one runtime.

    four_bits: int4_cast    INT4 initializer -> Cast(INT8): stored in 4 bits, folded when the session loads
               int4         typed INT4 -> DequantizeLinear, for compilers that take it
               int8         an int8 container
    clamp:     uint8        uint8 Clip behind QuantizeLinear
               values       a Clip of values, with a QuantizeLinear of its own, behind QuantizeLinear
    moved:     bytes        operations that move values work on uint8 tensors
               values       DequantizeLinear in front of them and QuantizeLinear behind, as compilers want it
    between:   add_zero     what keeps two quantizers in a row apart (docs/decisions/0003-short-scales.md)
               plain        Relu on unsigned grids, nothing on signed ones
    pad_to:    channels are padded to a multiple of this
    phases:    convolutions behind the last pixel shuffle run in front of it
    dense:     grouped convolutions become dense ones
    image_gains: runs convolutions whose scale each image decides (docs/decisions/0011-adq-per-image.md)
    """

    name: str
    four_bits: Literal["int4_cast", "int4", "int8"]
    clamp: Literal["uint8", "values"]
    between: Literal["add_zero", "plain"]
    pad_to: int
    phases: bool
    dense: bool
    moved: Literal["bytes", "values"] = "bytes"
    opset: int = 21
    ir_version: int = 10
    image_gains: bool = False


ONNX_TARGETS = (
    Target(
        "onnxruntime", "int4_cast", "uint8", "add_zero", pad_to=4, phases=True, dense=True, image_gains=True
    ),
    Target("openvino", "int4_cast", "uint8", "add_zero", pad_to=1, phases=True, dense=False),
    Target("portable", "int8", "values", "plain", pad_to=1, phases=False, dense=False, moved="values"),
    Target("portable-int4", "int4", "values", "plain", pad_to=1, phases=False, dense=False, moved="values"),
)
TFLITE_TARGETS = (Target("litert", "int8", "uint8", "plain", pad_to=1, phases=True, dense=False),)
TARGETS = {target.name: target for target in (*ONNX_TARGETS, *TFLITE_TARGETS)}


def fitted(network: IntegerNetwork, target: Target) -> IntegerNetwork:
    """Return the network in the shape that `target` runs fastest. Raises ModelError where it has none."""
    if not target.image_gains:
        refuse_image_gains(network, f"target {target.name}")
    passes: list[Callable[[IntegerNetwork], IntegerNetwork]] = [fold_repeats]
    if target.dense:
        passes.append(dense_groups)
    if target.phases:
        passes.append(delay_shuffles)
    if target.pad_to > 1:
        passes.append(lambda n: pad_channels(n, target.pad_to))
    for edit in passes:
        network = edit(network)
    return network
