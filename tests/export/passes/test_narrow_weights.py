"""Weights of -128 leave the integer network, and every other one stays."""

import numpy as np

from qnas.export.passes.narrow_weights import narrow_weights
from qnas.integer.convolution import Conv
from qnas.testing.small_networks import conv, grid, image, network


def test_weights_of_minus_128_become_minus_127_and_are_counted() -> None:
    weight = np.array([-128, -127, 127, 0, -128, 5, 6, 7, 8]).reshape(3, 3, 1, 1)
    edited, changed = narrow_weights(network(image(), conv("y", "image", weight, grid(1))))
    node = edited.nodes[1]
    assert isinstance(node, Conv)
    assert changed == 2
    assert node.weight.ravel().tolist() == [-127, -127, 127, 0, -127, 5, 6, 7, 8]


def test_a_network_without_them_stays_itself() -> None:
    net = network(image(), conv("y", "image", np.full((3, 3, 1, 1), -127), grid(1)))
    assert narrow_weights(net) == (net, 0)
