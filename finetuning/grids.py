"""Which tensors of an integer network share a grid, and whose scale may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qnas.integer.convolution import Conv
from qnas.integer.crops import Crop, CropTo, Nearest
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Concat, DepthToSpace, IntegerNode, MaxPool, Mean, Pad

MOVING = (Concat, Crop, CropTo, DepthToSpace, MaxPool, Mean, Nearest, Pad)  # write the grid that they read


@dataclass(frozen=True)
class Groups:
    """`first`: each tensor -> the first one of its grid."""

    first: Mapping[str, str]

    @classmethod
    def of(cls, network: IntegerNetwork) -> Groups:
        """Those of `network`."""
        first: dict[str, str] = {}
        for node in network.nodes:
            first[node.name] = node.name
            if isinstance(node, MOVING):
                joined = {first[name] for name in (node.name, *node.operands)}
                root = next(name for name in first if name in joined)
                first |= {name: root for name, group in first.items() if group in joined}
        return cls(first)

    def free(self, network: IntegerNetwork) -> frozenset[str]:
        """The groups that convolutions alone write, and read: their scale decides nothing else."""
        tied = {self.first[node.name] for node in (network.nodes[0], network.nodes[-1])}
        for node in network.nodes:
            if not isinstance(node, MOVING):
                tied.update(self.first[name] for name in _tied(node))
        return frozenset(self.first.values()) - tied


def _tied(node: IntegerNode) -> tuple[str, ...]:
    """The tensors that a node reads or writes whose scales it was made for."""
    return () if isinstance(node, Conv) else (node.name, *node.operands)
