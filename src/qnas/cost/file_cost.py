"""What a model file costs, node by node, whatever its format.

There are two counts of bit operations. BitOps go by the bits that values have: `MACs * b_w * b_a`. Executed
BitOps go by the containers that the units of today's processors multiply: these have no 4-bit arithmetic.
"""

from dataclasses import dataclass

from qnas.cost.network_cost import LayerCost, NetworkCost


@dataclass(frozen=True)
class Container:
    """How values are stored: the bits of one, and whether it is an integer."""

    bits: int
    integer: bool

    def bytes(self, values: int) -> int:
        """The bytes of so many values: two of 4 bits share one."""
        return -(-values * self.bits // 8)


def level_bits(low: int, high: int) -> int:
    """Bits of values from `low` to `high`; 8 where they have 7: that is a signed grid that a ReLU cut."""
    bits = max(1, (high - low).bit_length())
    return 8 if bits == 7 else bits


def executed_bits(weight: Container, data: Container) -> tuple[int, int]:
    """Bits of the two factors that a unit multiplies, (b_w, b_a).

    Case 1: two integers: their containers, at least a byte each: 4-bit ones are widened to int8 first.
    Case 2: otherwise both are floats, as wide as the wider of the two.
    """
    if weight.integer and data.integer:  # Case 1
        return max(8, weight.bits), max(8, data.bits)
    widest = max(container.bits for container in (weight, data) if not container.integer)  # Case 2
    return widest, widest


@dataclass(frozen=True)
class NodeCost(LayerCost):
    """Cost of one node of a file; weights that several nodes read are counted at the first.

    `output_shape` as the file has it. `executed_weight_bits`, `executed_activation_bits`: `executed_bits`.
    `activation_bytes`: what the node reads and writes, in its containers.
    """

    op: str
    output_shape: tuple[int, ...]
    executed_weight_bits: int
    executed_activation_bits: int
    activation_bytes: int

    @property
    def executed_bitops(self) -> int:
        """MACs times the bits of the containers: what 8-bit units really multiply."""
        return self.macs * self.executed_weight_bits * self.executed_activation_bits


@dataclass(frozen=True)
class FileCost(NetworkCost):
    """Cost of the nodes of a file that multiply.

    `uncovered`: the types of those that nobody counted. `peak_activation_bytes`: see
    `qnas.onnx.activations`; None where the shape or type of a tensor is unknown.
    """

    layers: tuple[NodeCost, ...]
    uncovered: tuple[str, ...]
    peak_activation_bytes: int | None

    @property
    def executed_bitops(self) -> int:
        """Bit operations of the containers."""
        return sum(layer.executed_bitops for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes that the nodes read and write, summed: a tensor counts once for each node that touches it."""
        return sum(layer.activation_bytes for layer in self.layers)
