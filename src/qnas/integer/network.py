"""The integer network: what every runtime computes. Built once, walked by every writer, run by
`qnas.integer.interpreter`; `qnas.integer.nodes` defines what its nodes compute."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from qnas.errors import ModelError
from qnas.integer.convolution import Conv, accumulator_bounds, saturating_pairs
from qnas.integer.nodes import GainedNode, IntegerNode
from qnas.quantization.image_gain import ImageGain
from qnas.quantization.quantizers import AFFINE_BITS, is_short

INT32_MAX = 2**31 - 1
Form = TypeVar("Form")


@dataclass(frozen=True)
class IntegerNetwork:
    """Nodes in topological order, the first an ImageInput, the last the upscaled pixels."""

    name: str
    scale: int
    nodes: tuple[IntegerNode, ...]

    def by_name(self) -> dict[str, IntegerNode]:
        """Name -> node."""
        return {node.name: node for node in self.nodes}

    def readers(self) -> dict[str, list[IntegerNode]]:
        """Name -> the nodes that read it, in order."""
        found: dict[str, list[IntegerNode]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found

    def convolutions(self) -> Iterator[tuple[Conv, IntegerNode]]:
        """(convolution, what it reads) pairs."""
        named = self.by_name()
        return ((node, named[node.inputs[0]]) for node in self.nodes if isinstance(node, Conv))


def image_gain(node: IntegerNode) -> ImageGain | None:
    """What decides the gain of each image, where `node` has one."""
    return node.image_gain if isinstance(node, GainedNode) else None


def refuse_image_gains(network: IntegerNetwork, reader: str) -> None:
    """Raises ModelError where `reader`, a target or a format, would meet a gain that each image decides."""
    if any(image_gain(node) for node in network.nodes):
        raise ModelError(
            f"--adq per-image needs --target onnxruntime: {reader} has constant scales alone, "
            "use --adq frozen there"
        )


def form_of(node: IntegerNode, forms: Mapping[type[IntegerNode], Form], file: str) -> Form:
    """What a writer does for `node`. Raises ModelError where `forms` has nothing for its class."""
    if type(node) not in forms:
        raise ModelError(f"{node.name} ({node.words}) has no form in {file}: export another format")
    return forms[type(node)]


def check_accumulators(network: IntegerNetwork) -> None:
    """Raises ModelError naming the convolution of bytes whose sums may leave 32 bits.

    What reads or writes 16 bits is summed up in 64 of them, or in float.
    """
    for node, read in network.convolutions():
        if read.output.is_wide or node.output.is_wide:
            continue
        bounds = accumulator_bounds(node, read.output)
        if int(bounds.max(initial=0)) > INT32_MAX:
            raise ModelError(
                f"the sums of {node.name} may reach {int(bounds.max())}, beyond 32 bits: its bias or its "
                "weights are out of proportion, retrain it"
            )


def short_scales(network: IntegerNetwork) -> bool:
    """Whether float32 arithmetic computes it exactly in any order of its sums: all scales are short.

    See docs/decisions/0003-short-scales.md. Runtimes that do not fuse quantizers compute in float32.
    """
    weights = (node.weight_scale for node, _ in network.convolutions())
    return all(is_short(node.output.scale, 1) for node in network.nodes) and all(
        is_short(scale, AFFINE_BITS) for scale in weights
    )


def is_wide(node: IntegerNode, named: Mapping[str, IntegerNode]) -> bool:
    """Whether `node` of the network `named` writes 16 bits, or computes with a tensor of them."""
    return node.output.is_wide or any(named[name].output.is_wide for name in node.operands)


def wide_layers(network: IntegerNetwork) -> tuple[str, ...]:
    """The names of the nodes that write 16 bits, or compute with them."""
    named = network.by_name()
    return tuple(node.name for node in network.nodes if is_wide(node, named))


def saturating_layers(network: IntegerNetwork) -> tuple[str, ...]:
    """The names of the convolutions that may saturate on machines without VNNI."""
    return tuple(node.name for node, read in network.convolutions() if saturating_pairs(node, read.output))


def rewritten(
    network: IntegerNetwork, edit: Callable[[IntegerNode], tuple[IntegerNode, ...]]
) -> IntegerNetwork:
    """The network with each node replaced by those that `edit` returns for it."""
    return replace(network, nodes=tuple(new for node in network.nodes for new in edit(node)))


def pruned(network: IntegerNetwork) -> IntegerNetwork:
    """The network without nodes that nothing reads; the image stays."""
    needed = {network.nodes[0].name, network.nodes[-1].name}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return replace(network, nodes=tuple(node for node in network.nodes if node.name in needed))
