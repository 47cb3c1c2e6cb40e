"""Random search: architectures of a space whose BitOps lie in a range, each as likely as any other of them.

Drawing architectures until one fits would take for ever where few do. Here the ways to fit are counted first,
by dynamic programming over the variables and the cost spent so far, and a draw takes every candidate in
proportion to the ways that it leaves open.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qnas.errors import UsageError
from qnas.network.architecture import Architecture, Choice
from qnas.one_writer import one_writer, remove_leftovers
from qnas.search.runs.result import check_folder, image_cost, make_folder, write_result
from qnas.search.space.candidate_costs import CandidateCosts, counted_costs
from qnas.search.space.search_space import SearchSpace

BINS = 1 << 16  # of cost; the named spaces need fewer to be exact, but for their dearest networks
NEAR = 0.8  # of the largest allowed cost: the smallest, where none is given
DRAWS = 100  # for each architecture that is wanted, before it is given up
AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(Gi|[kMGT]?)")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Gi": 2**30}  # Gi: the G of QuantNAS


@dataclass(frozen=True)
class CostWindow:
    """The choices of one candidate for each variable whose costs sum to `low` ... `high`, both included.

    `costs[v][i]`: whole numbers. Sums are counted in bins of `width`; where that divides every difference of
    costs the window is exact, else it holds a few choices more at its two ends.
    """

    costs: tuple[tuple[int, ...], ...]
    low: int
    high: int
    bins: int = BINS

    @cached_property
    def _extra(self) -> list[list[int]]:
        """What each candidate costs above the cheapest of its variable."""
        return [[cost - min(costs) for cost in costs] for costs in self.costs]

    @cached_property
    def _cheapest(self) -> int:
        return sum(min(costs) for costs in self.costs)

    @cached_property
    def width(self) -> int:
        """The width of a bin: the common divisor of all differences, or more where bins would be too many."""
        common = max(1, math.gcd(*(extra for row in self._extra for extra in row)))
        room = max(0, self.high - self._cheapest)
        return common if room // common < self.bins else room // (self.bins - 1) + 1

    @cached_property
    def _binned(self) -> list[list[int]]:
        return [[extra // self.width for extra in row] for row in self._extra]

    @cached_property
    def _ways(self) -> list[NDArray[np.float64]]:
        """[v][s]: log of the number of ways for the variables from v on to end inside, s bins being spent."""
        exact = all(extra % self.width == 0 for row in self._extra for extra in row)
        rounded_off = 0 if exact else len(self.costs) * (self.width - 1)
        last = (self.high - self._cheapest) // self.width
        if last < 0:
            return [np.full(1, -np.inf)] * (len(self.costs) + 1)
        first = max(0, -(-(self.low - self._cheapest - rounded_off) // self.width))
        ways = [np.full(last + 1, -np.inf)]
        ways[0][first:] = 0
        for row in reversed(self._binned):
            total = np.full(last + 1, -np.inf)
            for spent in row:
                if spent <= last:
                    part = total[: last + 1 - spent]
                    np.logaddexp(part, ways[0][spent:], out=part)
            ways.insert(0, total)
        return ways

    @property
    def log_count(self) -> float:
        """Natural logarithm of the number of choices in the window, -inf where there is none."""
        return float(self._ways[0][0])

    def draw(self, rng: np.random.Generator) -> tuple[int, ...]:
        """The candidate of each variable, every choice as likely; the window must not be empty."""
        spent, drawn = 0, []
        for row, ways in zip(self._binned, self._ways[1:], strict=True):
            left = np.array([ways[spent + each] if spent + each < len(ways) else -np.inf for each in row])
            shares = np.exp(left - left.max())
            drawn.append(int(rng.choice(len(row), p=shares / shares.sum())))
            spent += row[drawn[-1]]
        return tuple(drawn)


def random_architectures(
    space: SearchSpace, samples: int, low: float | None, high: float, image: tuple[int, int], seed: int
) -> list[Architecture]:
    """`samples` distinct architectures of `space` with `low` ... `high` BitOps for one image.

    `low` None: 20 % below `high`. The first k of a larger number are those of a smaller one. Raises
    UsageError when the range is empty or holds fewer than `samples`.
    """
    low = NEAR * high if low is None else low
    if low > high:
        raise UsageError(f"--min-bitops {giga(low)} is more than --max-bitops {giga(high)}: swap them")
    costs = counted_costs(space, "bitops", *image)
    windows = [_window(space, table, low, high) for table in _tables(costs)]
    wanted = f"with {giga(low)} to {giga(high)} BitOps at {image[0]}x{image[1]}"
    described = f"{space.name} at {', '.join(map(str, space.bits))} bits"
    if all(window.log_count == -math.inf for window in windows):
        raise UsageError(
            f"{described} has no architecture {wanted}: it reaches from {giga(costs.smallest)} to "
            f"{giga(costs.largest)}, ask for some of that"
        )
    found: dict[str, Architecture] = {}
    for architecture in islice(_draws(space, costs, windows, seed), DRAWS * samples):
        name = architecture.to_json()
        if name not in found and low <= image_cost(architecture, image).bitops <= high:
            found[name] = architecture
        if len(found) == samples:
            return list(found.values())
    raise UsageError(
        f"{described} has only {len(found)} of {samples} architectures {wanted}: use a smaller --samples or "
        "--min-bitops"
    )


def _tables(costs: CandidateCosts) -> list[CandidateCosts]:
    return [costs, costs.unquantized] if costs.unquantized else [costs]


def _window(space: SearchSpace, costs: CandidateCosts, low: float, high: float) -> CostWindow:
    rows = tuple(tuple(round(cost) for cost in costs.searched[name].values()) for name in space.variables)
    fixed = round(costs.fixed)
    return CostWindow(rows, math.ceil(low) - fixed, math.floor(high) - fixed)


def _draws(
    space: SearchSpace, costs: CandidateCosts, windows: Sequence[CostWindow], seed: int
) -> Iterator[Architecture]:
    """Endless, every architecture of the windows as likely. One of them is not empty.

    The second window holds the networks without a quantizer, whose costs the first has not right.
    """
    rng = np.random.default_rng(seed)
    logs = np.array([window.log_count for window in windows])
    shares = np.exp(logs - logs.max())
    while True:
        which = int(rng.choice(len(windows), p=shares / shares.sum()))
        candidates = (list(row) for row in _tables(costs)[which].searched.values())
        drawn = zip(space.variables, candidates, windows[which].draw(rng), strict=True)
        architecture = space.architecture({name: Choice(*row[index]) for name, row, index in drawn})
        if architecture.quantized or which == len(windows) - 1:
            yield architecture


def write_random(
    folder: Path, architectures: Sequence[Architecture], space_name: str, image: tuple[int, int], force: bool
) -> None:
    """Write FOLDER/0, FOLDER/1, ... with an arch.json and a result.json each.

    Raises UsageError while another process writes there, OutputError.
    """
    make_folder(folder)
    with one_writer(folder):
        check_folder(folder, force)  # again: it is ours only now
        for index, architecture in enumerate(architectures):
            each = folder / str(index)
            make_folder(each)
            remove_leftovers(each)
            write_result(each, architecture, space_name=space_name, method="random", image=image)


def parse_amount(option: str, text: str) -> float:
    """Read "2.4G" as 2.4e9; k, M, G and T are powers of 1000, Gi is 2^30. Raises UsageError."""
    found = AMOUNT.fullmatch(text)
    if not found:
        raise UsageError(f"{option} {text[:40]}: write a number, as 120000, 250M or 2.4G")
    return float(found[1]) * UNITS[found[2]]


def giga(value: float) -> str:
    """In units of 10^9, to four digits: "2.4G"."""
    return f"{value / 1e9:.4g}G"
