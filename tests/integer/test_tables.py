"""Tables of bytes, and the functions that they hold."""

import numpy as np
import torch

from qnas.integer.tables import sigmoid, uint8_table
from qnas.testing.small_networks import PIXELS, grid
from qnas.torch import network


def test_the_sigmoid_of_tables_is_that_of_a_trained_network_bit_by_bit() -> None:
    steps = np.arange(-255, 256, dtype=np.float32)  # all that a grid can hold, on every scale that there is
    on_grids = np.concatenate([steps * np.float32(2.0**exponent) for exponent in range(-24, 33)])
    anywhere = np.random.default_rng(0).normal(0, 10, 500_000).astype(np.float32)
    for x in (on_grids, anywhere, np.float32([np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0])):
        assert sigmoid(x).tobytes() == network.sigmoid(torch.from_numpy(x)).numpy().tobytes()


def test_a_table_holds_the_function_of_every_byte_on_both_grids() -> None:
    # 0.5 at q = 128, the zero; sigmoid(127 / 16) = 0.99964 -> 255.9 of 256 -> 255; sigmoid(-8) = 0.00034 -> 0
    table = uint8_table(sigmoid, grid(2.0**-4, 128), PIXELS)
    assert table[[0, 128, 255]].tolist() == [0, 128, 255]
    doubled = uint8_table(lambda values: 2 * values, PIXELS, PIXELS)
    assert doubled[[0, 1, 100, 200]].tolist() == [0, 2, 200, 255]
