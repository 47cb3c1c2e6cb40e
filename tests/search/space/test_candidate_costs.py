"""What the search weighs for a choice is what `qnas.cost.network_cost` counts for its architecture."""

from itertools import product
from typing import Literal

import numpy as np
import pytest

from qnas.cost.network_cost import network_cost
from qnas.network.architecture import Choice
from qnas.network.lowering import lower
from qnas.search.space.candidate_costs import CandidateCosts, counted_costs, owns
from qnas.search.space.search_space import SearchSpace, find_space, from_document, named_spaces

COSTS: tuple[Literal["bitops", "macs"], ...] = ("bitops", "macs")


def counted(space: SearchSpace, choices: dict[str, Choice], cost: str, height: int, width: int) -> int:
    total = network_cost(lower(space.architecture(choices)), height, width)
    return total.bitops if cost == "bitops" else total.macs


def random_choices(space: SearchSpace, rng: np.random.Generator, bits: tuple[int, ...]) -> dict[str, Choice]:
    return {
        name: Choice(str(rng.choice(space.candidates(name))), int(rng.choice(bits)))
        for name in space.variables
    }


def tiny(bits: list[int]) -> SearchSpace:
    """Eight variables of two operations."""
    document = {
        "network": "basic", "channels": 6, "blocks": 2, "scale": 2, "normalization": "adq",
        "identical_blocks": True, "bits": bits, "operations": {"*": ["decenc_3x3_2", "simple_3x3"]},
    }  # fmt: skip
    return from_document(document, "tiny")


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("bits", [(4, 8), (32,), (8, 32), (2, 3, 4, 8, 32)], ids=str)
@pytest.mark.parametrize("name", named_spaces())
def test_the_cost_of_any_choice_is_that_of_its_architecture(
    name: str, bits: tuple[int, ...], cost: Literal["bitops", "macs"]
) -> None:
    space, rng = find_space(name).with_bits(bits), np.random.default_rng(0)
    costs = counted_costs(space, cost, 20, 24)
    for some in (bits, bits, bits[:1], bits[-1:]):  # the last are networks of 32 bits alone
        choices = random_choices(space, rng, some)
        assert costs.of(choices) == counted(space, choices, cost, 20, 24)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(
    "space",
    [find_space("edmips-espcn").with_bits([2, 4, 8]), find_space("edmips-espcn").with_bits([4, 8, 32]),
     tiny([8]), tiny([32])],
    ids=["bits", "with-32", "operations", "float"],
)  # fmt: skip
def test_smallest_largest_and_mean_are_those_of_all_networks(
    space: SearchSpace, cost: Literal["bitops", "macs"]
) -> None:
    costs = counted_costs(space, cost, 9, 8)
    choices = [space.choices(name) for name in space.variables]
    networks = [dict(zip(space.variables, each, strict=True)) for each in product(*choices)]
    assert len(networks) == space.size <= 729
    totals = [counted(space, each, cost, 9, 8) for each in networks]
    assert (costs.smallest, costs.largest) == (min(totals), max(totals))
    if costs.unquantized is None:
        assert costs.fixed + costs.mean_searched == pytest.approx(sum(totals) / len(totals))


def test_costs_of_espcn_by_hand() -> None:
    # 32x32: 5x5 3->64, 3x3 64->32, 3x3 32->48; the image stays on its own 8 bits.
    space = find_space("edmips-espcn")
    first, second, third = 25 * 3 * 64 * 1024, 9 * 64 * 32 * 1024, 9 * 32 * 48 * 1024
    costs = counted_costs(space, "bitops", 32, 32)
    assert costs.searched["conv_0"] == {
        Choice("simple_5x5", 4): first * 4 * 8,
        Choice("simple_5x5", 4, 8): first * 4 * 8,
        Choice("simple_5x5", 8, 4): first * 64,
        Choice("simple_5x5", 8): first * 64,
    }
    assert costs.searched["conv_2"] == {
        Choice("simple_3x3", 4): third * 16,
        Choice("simple_3x3", 4, 8): third * 32,
        Choice("simple_3x3", 8, 4): third * 32,
        Choice("simple_3x3", 8): third * 64,
    }
    assert costs.fixed == 0
    assert costs.largest == 37_945_344 * 64  # QuantNAS, table 1
    assert costs.smallest == first * 32 + (second + third) * 16
    assert counted_costs(space, "macs", 32, 32).largest == 37_945_344


def test_identical_blocks_cost_as_many_times_as_they_are() -> None:
    costs = counted_costs(tiny([8]), "macs", 5, 5)
    assert costs.searched["body.*.conv_0"][Choice("simple_3x3", 8)] == 2 * 9 * 6 * 6 * 25
    assert costs.searched["body.*.conv_0"][Choice("decenc_3x3_2", 8)] == 2 * (9 * 6 * 3 + 9 * 3 * 6) * 25
    assert costs.searched["head.0"][Choice("simple_3x3", 8)] == 9 * 3 * 6 * 25
    assert costs.fixed == 2 * 6 * 25  # a batch norm in each block


def test_a_layer_of_32_bits_reads_8_bits_of_a_quantized_network_and_32_of_another() -> None:
    space = find_space("edmips-espcn").with_bits([8, 32])
    costs = counted_costs(space, "bitops", 1, 1)
    macs = 25 * 3 * 64
    assert costs.searched["conv_0"] == {
        Choice("simple_5x5", 8): macs * 64,
        Choice("simple_5x5", 32): macs * 32 * 8,
    }
    assert costs.unquantized is not None
    assert costs.unquantized.searched["conv_0"] == {Choice("simple_5x5", 32): macs * 32 * 32}
    assert counted_costs(space.with_bits([32]), "bitops", 1, 1).unquantized is None


def test_a_layer_belongs_to_the_slot_that_it_is_or_lies_in() -> None:
    assert owns("body.0.esa", "body.0.esa.conv1")
    assert owns("fusion", "fusion")
    assert not owns("fusion", "body.0.fusion")
    assert not owns("body.1", "body.10.conv_0")


def test_of_adds_what_is_fixed() -> None:
    x, y = Choice("x", 4), Choice("y", 4)
    costs = CandidateCosts({"a": {x: 1.0, Choice("x", 8): 4.0}, "b": {y: 2.0}}, 10.0)
    assert costs.of({"a": Choice("x", 8), "b": Choice("y", 4)}) == 16
    assert (costs.smallest, costs.largest, costs.mean_searched) == (13, 16, 4.5)
