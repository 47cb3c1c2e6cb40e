"""The integer model of a network that nobody has calibrated: the form of the real one, other numbers.

Ranges are those of one made-up image, and each weight is rounded by itself.
"""

from __future__ import annotations

from onnx import ModelProto

from qnas.calibration.prepare.clip_free import without_clip
from qnas.calibration.prepare.float_model import FloatModel, Runner, activations
from qnas.calibration.prepare.sr_shape import SIZES, probe_image
from qnas.calibration.ptq.grids import plan_grids
from qnas.calibration.ptq.integer_model import Plan, PtqOptions, plan_layers, write_layers
from qnas.calibration.ptq.weights import IntegerWeights, largest_scale, nearest, rows_of
from qnas.calibration.ranges.ranges import Range
from qnas.errors import ModelError


def placeholder_model(network: FloatModel, options: PtqOptions) -> tuple[ModelProto, Plan]:
    """The QDQ model of `network` without its clip, and which of its layers stay float.

    Raises ModelError where no calibration could make one.
    """
    bare, _ = without_clip(network)
    plan = plan_layers(bare, options)
    grids = plan_grids(plan.graph, _ranges(bare))
    return write_layers(plan, grids, options, _weights(plan, options)), plan


def _ranges(network: FloatModel) -> dict[str, Range]:
    """The range of each activation for an image of the first size that the network takes."""
    names = activations(network)
    runner = Runner(network, names)
    for size in SIZES if network.size is None else (network.size,):
        try:
            seen = runner.tensors(probe_image(size, network.channels)[None])
        except ModelError as error:
            failure = error
            continue
        return {name: Range(float(values.min()), float(values.max())) for name, values in seen.items()}
    raise failure


def _weights(plan: Plan, options: PtqOptions) -> dict[str, IntegerWeights]:
    """Those of the convolutions in integers."""
    graph = plan.graph
    found = {}
    for node in graph.nodes:
        if node.op_type == "Conv" and node.name in plan.integer and node.input[1] in graph.constants:
            weight, bits = graph.array(node.input[1]), options.bits_of(node.name)
            scale = largest_scale(rows_of(weight, 0), bits)
            found[node.name] = IntegerWeights(nearest(weight, scale, bits, 0), scale, 0)
    return found
