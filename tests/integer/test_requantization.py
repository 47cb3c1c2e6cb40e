"""Which sums and products every runtime and processor rounds alike, by hand."""

import numpy as np
import pytest

from qnas.integer.requantization import float_product_agrees, sums_agree, ties_agree, xnnpack_sums_agree
from qnas.testing.small_networks import grid, tied_network


@pytest.mark.parametrize(
    ("scales", "agree"),
    [
        ((1, 1, 1), True),  # nothing is rounded
        ((0.5, 0.5, 1), False),  # 1/2 is a tie
        ((1 / 3, 2 / 3, 1), True),  # thirds are never near one
        ((1 / 3, 1 / 6, 1), False),  # and three sixths are
    ],
)
def test_sums_disagree_where_there_are_ties(scales: tuple[float, float, float], agree: bool) -> None:
    grids = [grid(scale, 128) for scale in scales]
    assert sums_agree(*grids) == xnnpack_sums_agree(*grids) == agree


def test_factors_beyond_the_fixed_point_are_added_in_float_on_arm_and_not_at_all_in_xnnpack() -> None:
    grids = grid(0.5, 128), grid(2**-15, 128), grid(1, 128)
    assert sums_agree(*grids)
    assert not xnnpack_sums_agree(*grids)


def test_a_product_disagrees_where_a_tie_goes_down() -> None:
    """1/2 is 0 and 3/2 is 2 by half to even; where ties go up, they are 1 and 2."""
    assert not ties_agree(grid(1, high=1), grid(0.5, high=1), grid(1))
    assert ties_agree(grid(1, high=1), grid(1.5, high=1), grid(1))


def test_a_float_product_agrees_where_float32_holds_it() -> None:
    assert float_product_agrees(grid(2**-4, 128), grid(2**-8), grid(2**-4, 128))
    random = np.random.default_rng(0).uniform(0.5, 1, (60, 2))
    assert not all(float_product_agrees(grid(a), grid(b), grid(a * b * 16)) for a, b in random)


def test_the_network_of_ties_has_sums_and_products_that_disagree() -> None:
    named = tied_network().by_name()
    grids = {name: node.output for name, node in named.items()}
    assert not sums_agree(grids["on_one_grid"], grids["more"], grids["halves"])
    assert not ties_agree(grids["halves"], grids["more"], grids["product"])
