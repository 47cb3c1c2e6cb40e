"""What nodes compute on grids of 16 bits, against Python's own integers."""

import numpy as np
import pytest

from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork, check_accumulators, saturating_layers
from qnas.integer.nodes import Add, ImageInput, Mean, Multiply
from qnas.quantization.quantizers import QuantParams


def wide(scale: float, zero_point: int = 2**15) -> QuantParams:
    return QuantParams(np.asarray(scale, np.float32), zero_point, 0, 2**16 - 1, 16)


def full(value: int, channels: int = 1) -> np.ndarray:
    return np.full((1, channels, 1, 1), value, np.uint16)


def test_sums_beyond_32_bits_are_exact() -> None:
    """300 products of 65535 - 32768 and 127, and a bias: 1,248,455,900 - 1 of them, and 2^31 is exceeded."""
    channels = 600
    weight = np.full((1, channels, 1, 1), 127, np.int8)
    read = wide(1, 0)
    conv = Conv(
        "c", ("x",), 1, wide(2.0**20), weight, np.ones(1, np.float32), np.array([-1], np.int32), bits=8
    )
    total = 65535 * 127 * channels - 1
    assert total > 2**32
    result = conv.computed([(full(65535, channels), read)])
    assert result.dtype == np.uint16
    assert int(result.item()) == round(total / 2**20) + 2**15
    network = IntegerNetwork("n", 1, (ImageInput("x", (), channels, read), conv))
    check_accumulators(network)  # they have 64 bits
    assert saturating_layers(network) == ()


def test_products_of_two_tensors_of_16_bits_are_those_of_float_operations() -> None:
    a, b, y = wide(2.0**-10), wide(2.0**-12), wide(2.0**-9)
    node = Multiply("m", ("a", "b"), 1, y)
    rng = np.random.default_rng(0)
    p, q = (rng.integers(0, 2**16, (1, 1, 40, 50)).astype(np.uint16) for _ in "pq")
    values = [(x.astype(np.float32) - 2**15) * g.scale for x, g in ((p, a), (q, b))]
    wanted = np.clip(np.rint(values[0] * values[1] / y.scale) + 2**15, 0, 2**16 - 1)
    np.testing.assert_array_equal(node.computed([(p, a), (q, b)]), wanted)


def test_a_sum_of_a_byte_and_16_bits_is_rounded_once() -> None:
    """2 * (200 - 100) + 2^-8 * 384 = 201.5, in steps of 1/4: 806."""
    byte = QuantParams(np.asarray(2, np.float32), 100, 0, 255)
    node = Add("s", ("a", "b"), 1, wide(0.25))
    result = node.computed([(np.full((1, 1, 1, 1), 200, np.uint8), byte), (full(2**15 + 384), wide(2.0**-8))])
    assert int(result.item()) == 2**15 + 806


def test_a_mean_of_16_bits_is_that_of_its_integers() -> None:
    x = np.array([[[[65535, 65535], [65535, 0]]]], np.uint16)
    assert int(Mean("m", ("x",), 1, wide(1)).computed([(x, wide(1))]).item()) == round(3 * 65535 / 4)


@pytest.mark.parametrize(("container", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_a_container_says_which_integers_there_are(container: int, kind: type) -> None:
    grid = QuantParams(np.asarray(1, np.float32), 0, 0, 2**container - 1, container)  # type: ignore[arg-type]
    assert (grid.dtype, grid.top, len(grid.every)) == (kind, 2**container - 1, 2**container)
    assert (grid.is_full, grid.is_wide) == (True, container == 16)
