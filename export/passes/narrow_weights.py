"""8-bit weights of -128 become -127, as TFLite's specification of int8 demands.

ARM processors without dot products add two products in 16 bits, which two times (-128)(-128) leave: a network
with such weights is not the same everywhere.

Ensures: weights lie in [-127, 127]; no other weight changes.
"""

from dataclasses import replace

import numpy as np

from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork, rewritten
from qnas.integer.nodes import IntegerNode

LEAST = -127


def narrow_weights(network: IntegerNetwork) -> tuple[IntegerNetwork, int]:
    """The network, and how many of its weights changed."""
    changed = sum(int((node.weight < LEAST).sum()) for node, _ in network.convolutions())

    def edit(node: IntegerNode) -> tuple[IntegerNode, ...]:
        if isinstance(node, Conv) and node.weight.min(initial=0) < LEAST:
            return (replace(node, weight=np.maximum(node.weight, np.int8(LEAST))),)
        return (node,)

    return (rewritten(network, edit) if changed else network), changed
