"""Measured milliseconds of every candidate of a search space, out of a `qnas.documents.latency_model`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qnas.cost.network_cost import layer_sizes
from qnas.documents.latency_model import ADVICE, OPERATIONS
from qnas.errors import UsageError
from qnas.network.architecture import Choice
from qnas.network.layers import by_name
from qnas.network.lowering import lower
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.space.candidate_costs import CandidateCosts, owns
from qnas.search.space.search_space import SearchSpace

Size = tuple[int, int]  # height and width
Times = dict[tuple[str, int, int, int, int], dict[Size, float]]  # op, channels, bits, scale -> size -> ms


@dataclass(frozen=True)
class Place:
    """A searched layer: its channels, the size of its result, and how many times that is the image's."""

    in_channels: int
    out_channels: int
    height: int
    width: int
    scale: int


def latency_costs(space: SearchSpace, table: Path, height: int, width: int) -> CandidateCosts:
    """Milliseconds of every candidate for an image of `height` x `width` pixels.

    What the rest of the network takes is in no table: `fixed` is 0, and sums are short of the network's
    latency by about the same amount for all of a space (docs/latency-model.md). Weights and inputs of
    different bits take the time of the more. Between measured sizes time is linear in the number of pixels,
    beyond them proportional to it; nothing is guessed for other channels.
    Raises UsageError when the table cannot be read or lacks a candidate.
    """
    times = read_times(table)
    found = places(space, height, width)
    costs = {
        name: {
            choice: sum(_milliseconds(times, choice, slot, found[slot], table) for slot in slots)
            for choice in space.choices(name)
        }
        for name, slots in space.variables.items()
    }
    latency = CandidateCosts(costs, 0.0)
    if latency.largest == 0:
        raise UsageError(f"{table}: all times are 0, there is nothing to weigh: measure larger images")
    return latency


def places(space: SearchSpace, height: int, width: int) -> dict[str, Place]:
    """Where each searched layer stands for an image of `height` x `width`; no choice moves it."""
    layers = lower(space.placeholder)
    named, sizes = by_name(layers), layer_sizes(layers, height, width)
    found = {}
    for slot in space.slots:
        convs = [layer for layer in layers if layer.op == "conv" and owns(slot, layer.name)]
        read, (rows, columns) = named[convs[0].inputs[0]].channels, sizes[convs[-1].name]
        found[slot] = Place(read, convs[-1].channels, rows, columns, rows // height)
    return found


def _milliseconds(times: Times, choice: Choice, slot: str, place: Place, table: Path) -> float:
    op, bits = choice.op, max(choice.bits, choice.reads)  # a kernel is as wide as the wider operand
    sizes = times.get((op, place.in_channels, place.out_channels, bits, place.scale))
    if sizes is None:
        what = f"{op} from {place.in_channels} to {place.out_channels} channels at {bits} bits"
        where = f"layer {slot}, {place.scale} times the image" if place.scale > 1 else f"layer {slot}"
        advice = f"add it with `qnas-bench operations --model {table} --space NAME_OR_FILE -o NEW`"
        if bits == FLOAT_BITS:
            advice = f"only integer kernels are timed, leave {FLOAT_BITS} out of the bits"
        raise UsageError(f"{table} has no time of {what} ({where}): {advice}")
    return _at(sizes, place.height, place.width)


def _at(sizes: Mapping[Size, float], height: int, width: int) -> float:
    """Case 1: this very size. Case 2: between two numbers of pixels. Case 3: less or more than all."""
    if (height, width) in sizes:  # Case 1
        return sizes[height, width]
    points = sorted((h * w, ms) for (h, w), ms in sizes.items())
    pixels = height * width
    below = [point for point in points if point[0] <= pixels]
    above = [point for point in points if point[0] >= pixels]
    if below and above:  # Case 2
        (low, start), (high, end) = below[-1], above[0]
        return start if high <= low else start + (end - start) * (pixels - low) / (high - low)
    nearest, ms = below[-1] if below else above[0]  # Case 3
    return ms * pixels / nearest


def read_times(path: Path) -> Times:
    """The rows of a table by operation and size. Raises UsageError."""
    times: Times = {}
    for index, row in enumerate(OPERATIONS.read(path).operations):
        sizes = times.setdefault((row.op, row.in_channels, row.out_channels, row.bits, row.scale), {})
        if sizes.setdefault((row.height, row.width), row.ms) != row.ms:
            raise UsageError(
                f"{path}: operations[{index}] has another time of {row.op} at {row.height}x{row.width} than "
                f"a row before: {ADVICE}"
            )
    return times
