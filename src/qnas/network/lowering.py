"""Architecture -> layers: the one way from what a search decides to the graph that everything else walks."""

from collections.abc import Callable

from qnas.errors import ArchitectureError
from qnas.network.architecture import FIXED_SPACES, Architecture, Choice, Space
from qnas.network.fixed_networks import espcn, espcn_slots, rfdn, rfdn_slots, srresnet, srresnet_slots
from qnas.network.graph_builder import GraphBuilder
from qnas.network.layers import Layer
from qnas.network.searched_networks import basic, basic_slots, rfdn_space, rfdn_space_slots
from qnas.quantization.quantizers import FLOAT_BITS, PAPER_HWGQ_STEPS

_BUILDERS: dict[Space, Callable[[GraphBuilder, Architecture], None]] = {
    "espcn": espcn,
    "srresnet": srresnet,
    "rfdn": rfdn,
    "basic": basic,
    "rfdn_space": rfdn_space,
}
_SLOTS: dict[Space, Callable[[Architecture], dict[str, str | None]]] = {
    "espcn": espcn_slots,
    "srresnet": srresnet_slots,
    "rfdn": rfdn_slots,
    "basic": basic_slots,
    "rfdn_space": rfdn_space_slots,
}


def lower(architecture: Architecture) -> tuple[Layer, ...]:
    """The layers of `architecture`, topologically ordered; the last one is the output.

    Raises ArchitectureError when slots are missing or unknown, or an operation or a block does not fit its
    channels.
    """
    slots = slot_operations(architecture)
    unknown, missing = set(architecture.layers) - set(slots), set(slots) - set(architecture.layers)
    if unknown or missing:
        word, name = ("unknown", min(unknown)) if unknown else ("missing", min(missing))
        raise ArchitectureError(
            f"{word} layer {name!r} in space {architecture.space} with {architecture.blocks} blocks: "
            f"its layers are {', '.join(slots)}"
        )
    for name, fixed in slots.items():
        if fixed is not None and architecture.layers[name].op != fixed:
            raise ArchitectureError(
                f"layer {name!r} of {architecture.space} is {fixed}, not {architecture.layers[name].op!r}: "
                "only its bits can be chosen"
            )
    if architecture.space in FIXED_SPACES and architecture.normalization != "none":
        raise ArchitectureError(
            f"{architecture.space} has no normalization {architecture.normalization!r}: use none"
        )
    if architecture.arithmetic == "paper":
        _check_paper(architecture)
    elif architecture.activation == "prelu" and architecture.quantized:
        raise ArchitectureError(
            "activation prelu is for networks in full precision, and this one has layers below 32 bits: use "
            "activation relu"
        )
    builder = GraphBuilder(architecture)
    _BUILDERS[architecture.space](builder, architecture)
    return tuple(builder.layers.values())


def _check_paper(a: Architecture) -> None:
    """Only what the paper's released code builds has its arithmetic."""
    frame = (a.space, a.residual_bits, a.levels)
    if frame != ("rfdn_space", None, "uniform") or a.normalization not in ("none", "adq"):
        raise ArchitectureError(
            "arithmetic paper is for rfdn_space with residual_bits null, uniform levels and normalization "
            "none or adq: use arithmetic short"
        )
    for name, choice in a.layers.items():
        if choice.bits not in (*PAPER_HWGQ_STEPS, FLOAT_BITS):
            raise ArchitectureError(
                f"layer {name!r} has {choice.bits} bits, for which the paper has no HWGQ step: "
                f"use {', '.join(map(str, PAPER_HWGQ_STEPS))} or {FLOAT_BITS}"
            )


def slot_operations(architecture: Architecture) -> dict[str, str | None]:
    """The slots that `architecture.layers` must fill, each with its operation, None where that is free."""
    return _SLOTS[architecture.space](architecture)


def uniform_layers(architecture: Architecture, op: str, bits: int) -> dict[str, Choice]:
    """Choices for every slot: `op` where it is free, at `bits`."""
    return {name: Choice(fixed or op, bits) for name, fixed in slot_operations(architecture).items()}
