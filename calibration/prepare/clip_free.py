"""Takes off a network's end what clips its output to the nominal range: the output's quantizer does that.

So does CFQP: a uint8 output of one grey level a step, zero point 0, saturates at the range of pixels; a Clip,
Relu or Min-Max in front of it costs time and changes nothing.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf

from onnx import ModelProto

from qnas.calibration.prepare.final_clip import FinalClip, find_final_clip
from qnas.calibration.prepare.float_model import FloatModel
from qnas.onnx.graph import Graph

TOLERANCE = 1e-3  # grey levels: 0.9999999 is white


@dataclass(frozen=True)
class TerminalClip:
    """The `nodes` taken off and the range that they clipped to, in the units of the network.

    Without nodes none was found, or none that may go; `explanation` says in one sentence what was matched or
    why not, and `low`, `high` what bounds the output then (infinite where nothing does).
    """

    nodes: tuple[str, ...]
    low: float
    high: float
    explanation: str


def without_clip(network: FloatModel) -> tuple[FloatModel, TerminalClip]:
    """The network without its terminal clip, if the composition of its last clamps is [0, white].

    Tensors keep their names; what was clipped is written under the name of the output. The same network comes
    back when there is nothing to take off.
    """
    found = find_final_clip(network.model)
    grey_level = network.white / 255
    nominal = abs(found.low) <= TOLERANCE * grey_level and (
        abs(found.high - network.white) <= TOLERANCE * grey_level
    )
    if not nominal:
        return network, TerminalClip((), found.low, found.high, _refusal(found, network.white))
    model = deepcopy(network.model)
    for name in found.clamps:
        _remove(model, name)
    shown = " and ".join(found.clamps) if len(found.clamps) < 3 else ", ".join(found.clamps)
    why = f"{found.described} at the end clips to 0..{network.white:g}, all of the pixels' range: "
    why += f"taken off ({shown})"
    return replace(network, model=model), TerminalClip(found.clamps, found.low, found.high, why)


def _refusal(found: FinalClip, white: float) -> str:
    """Why nothing is taken off."""
    if not found.clamps:
        return f"no clip at the end: {found.obstacle}"
    only = "" if found.low > -inf and found.high < inf else " on one side only"
    shown = f"{_number(found.low)}..{_number(found.high)}"
    return (
        f"{found.described} at the end clips{only}, to {shown} and not to the pixels' range 0..{white:g}: it "
        f"stays ({found.obstacle})"
    )


def _number(x: float) -> str:
    return f"{x:g}" if abs(x) < inf else "without end" if x > 0 else "minus without end"


def _remove(model: ModelProto, name: str) -> None:
    """Let the readers of a clamp read what it clamped, or that be the output."""
    graph = Graph(model.graph)
    node = next(node for node in graph.nodes if node.name == name)
    clamp = graph.clamp(node)
    assert clamp is not None, "the walk back from the output took it for a clamp"
    is_last = node.output[0] in graph.outputs
    old, new = (clamp.source, node.output[0]) if is_last else (node.output[0], clamp.source)
    model.graph.node.remove(node)
    for other in model.graph.node:
        other.input[:] = [new if tensor == old else tensor for tensor in other.input]
        other.output[:] = [new if tensor == old else tensor for tensor in other.output]
