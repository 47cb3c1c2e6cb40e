"""What search spaces hold: how many architectures, and what the smallest and the largest network cost."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnas.cost.network_cost import DECIMAL_G
from qnas.search.space.candidate_costs import counted_costs
from qnas.search.space.search_space import SearchSpace

SIDE = 32  # pixels of the square image that costs are told for, as in the paper's tables
WRITTEN_OUT = 10**7


@dataclass(frozen=True)
class SpaceSize:
    """`macs` and `bitops`: (smallest, largest) of a network of the space, for an image of 32x32."""

    name: str
    network: str
    channels: int
    blocks: int
    scale: int
    normalization: str
    bits: tuple[int, ...]
    architectures: int
    macs: tuple[int, int]
    bitops: tuple[int, int]

    def to_document(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "image": [SIDE, SIDE]}


def space_size(space: SearchSpace) -> SpaceSize:
    """Count."""
    macs, bitops = (counted_costs(space, cost, SIDE, SIDE) for cost in ("macs", "bitops"))
    return SpaceSize(
        space.name, space.network, space.channels, space.blocks, space.scale, space.normalization, space.bits,
        space.size, (round(macs.smallest), round(macs.largest)),
        (round(bitops.smallest), round(bitops.largest)),
    )  # fmt: skip


def space_table(sizes: Sequence[SpaceSize]) -> Table:
    """One row a space, narrow enough for 80 characters; M is 10^6 and G 10^9."""
    caption = f"channels x blocks; smallest and largest network for {SIDE}x{SIDE} pixels"
    grid = Table(box=SIMPLE_HEAD, caption=caption)
    grid.add_column("space")
    for title in ("size", "bits", "networks", "MMACs", "GBitOps"):
        grid.add_column(title, justify="right", no_wrap=True)
    for size in sizes:
        grid.add_row(
            size.name,
            f"{size.channels} x {size.blocks}",
            ",".join(map(str, size.bits)),
            magnitude(size.architectures),
            _range(size.macs, 1e6),
            _range(size.bitops, DECIMAL_G),
        )
    return grid


def _range(values: tuple[int, int], unit: float) -> str:
    low, high = (f"{value / unit:.4g}" for value in values)
    return low if low == high else f"{low} - {high}"


def magnitude(count: int) -> str:
    """A whole number of any size, the large ones to three digits: 4586471424 is 4.59e9."""
    if count < WRITTEN_OUT:
        return str(count)
    exponent = int(math.log10(count))
    digits = f"{10 ** (math.log10(count) - exponent):.2f}"
    return f"1.00e{exponent + 1}" if digits == "10.00" else f"{digits}e{exponent}"
