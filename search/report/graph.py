"""What is drawn of a network: its lowered layers, those of one choice in one box, equal blocks folded."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from qnas.cost.network_cost import LayerCost, network_cost
from qnas.network.architecture import Architecture, Choice
from qnas.network.layers import Layer, by_name
from qnas.network.lowering import lower
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.space.candidate_costs import owns

# A layer that a search chooses, one that it does not, a sum, what has no weights, image and result, and a row
# of equal blocks in one box.
Kind = Literal["searched", "fixed", "join", "plain", "end", "block"]

_UNSEEN = frozenset({"quantize", "relu", "prelu", "deviation"})
_BLOCK = re.compile(r"(body\.\d+)\..*")
_ESA = re.compile(r"(.*\.esa)\..*")
SOURCE, SINK = "(in)", "(out)"  # no layer has such a name
NORMS = {"adq": "ADQ", "adq_linear": "ADQ", "bn": "BN", "none": "norm"}
WORDS = {"pixel_shuffle": "shuffle", "upscale": "bilinear"}


@dataclass(frozen=True)
class Box:
    """`name`: of the layers, `text`: what they do; costs are of all layers that are drawn as this box."""

    name: str
    kind: Kind
    text: str
    bits: int | None = None
    macs: int = 0
    bitops: int = 0


@dataclass(frozen=True)
class Diagram:
    """Boxes in topological order and the edges between them."""

    boxes: Mapping[str, Box]
    edges: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Block:
    """The numbers of blocks that are the same, and how one of them looks, its costs those of all."""

    numbers: tuple[int, ...]
    graph: Diagram

    @property
    def title(self) -> str:
        """ "blocks 0-2, x 3"."""
        word = "block" if len(self.numbers) == 1 else "blocks"
        times = f", \N{MULTIPLICATION SIGN} {len(self.numbers)}" if len(self.numbers) > 1 else ""
        return f"{word} {ranges(self.numbers)}{times}"


@dataclass(frozen=True)
class Picture:
    """`frame`: the whole network, a row of equal blocks as one box whose name is a key of `rows`.

    `blocks`: one for each kind of block; MACs and BitOps of everything.
    """

    frame: Diagram
    rows: Mapping[str, Block]
    blocks: tuple[Block, ...]
    macs: int
    bitops: int

    @property
    def largest(self) -> int:
        """The most BitOps of a box that is drawn."""
        drawn = [self.frame, *(block.graph for block in self.blocks)]
        return max(box.bitops for graph in drawn for box in graph.boxes.values() if box.kind != "block")


def picture(architecture: Architecture, image: tuple[int, int]) -> Picture:
    """Costs count for one image of (height, width) pixels. Raises ArchitectureError."""
    layers = lower(architecture)
    graph = _whole(architecture, layers, network_cost(layers, *image).layers)
    kinds: dict[tuple[tuple[str, Choice], ...], list[int]] = {}
    for number, kind in _block_kinds(architecture).items():
        kinds.setdefault(kind, []).append(number)
    rows = [run for numbers in kinds.values() for run in _runs(numbers)]
    boxes = graph.boxes.values()
    return Picture(
        frame=_frame(graph, rows),
        rows={_row_name(row): Block(row, _inside(graph, row)) for row in rows},
        blocks=tuple(Block(tuple(numbers), _inside(graph, numbers)) for numbers in kinds.values()),
        macs=sum(box.macs for box in boxes),
        bitops=sum(box.bitops for box in boxes),
    )


def ranges(numbers: Sequence[int]) -> str:
    """Rows of numbers by their ends: "0-2, 5"."""
    dash = "\N{EN DASH}"
    return ", ".join(dash.join(str(end) for end in sorted({run[0], run[-1]})) for run in _runs(numbers))


def _runs(numbers: Iterable[int]) -> list[tuple[int, ...]]:
    """Numbers that follow each other, together."""
    runs: list[tuple[int, ...]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1] = (*runs[-1], number)
        else:
            runs.append((number,))
    return runs


def _block_kinds(architecture: Architecture) -> dict[int, tuple[tuple[str, Choice], ...]]:
    """Number of each block -> the choices of its layers, by their names inside the block."""
    kinds: dict[int, list[tuple[str, Choice]]] = {}
    for slot, choice in architecture.layers.items():
        if match := _BLOCK.fullmatch(slot):
            number = int(match[1].removeprefix("body."))
            kinds.setdefault(number, []).append((slot.removeprefix(f"{match[1]}."), choice))
    return {number: tuple(sorted(kind, key=lambda each: each[0])) for number, kind in kinds.items()}


def _whole(architecture: Architecture, layers: Sequence[Layer], costs: Sequence[LayerCost]) -> Diagram:
    """All boxes, no block folded."""
    named = by_name(layers)
    keys = {layer.name: _key(layer, architecture) for layer in layers}
    boxes: dict[str, Box] = {}
    edges: dict[tuple[str, str], None] = {}
    for layer in layers:
        key = keys[layer.name]
        if key is None:
            continue
        if key not in boxes:
            boxes[key] = _box(key, layer, architecture)
        sources = {_source(named, keys, name) for name in layer.inputs} - {None, key}
        edges |= {(source, key): None for source in sorted(map(str, sources))}
    last = _source(named, keys, layers[-1].name)
    boxes[SINK] = Box(SINK, "end", "SR image")
    edges[str(last), SINK] = None
    for row in costs:
        key = str(keys[row.name])
        box = boxes[key]
        boxes[key] = replace(box, macs=box.macs + row.macs, bitops=box.bitops + row.bitops)
    return Diagram(boxes, tuple(edges))


def _key(layer: Layer, architecture: Architecture) -> str | None:
    """The box that a layer is drawn in, None for what changes no shape and has no weights."""
    if match := _ESA.fullmatch(layer.name):
        return match[1]
    if layer.op == "conv":
        return next((slot for slot in architecture.layers if owns(slot, layer.name)), layer.name)
    if layer.op in _UNSEEN:
        return None
    return f"({layer.op}) {layer.name}"  # a shuffle may have the name of a convolution


def _source(named: Mapping[str, Layer], keys: Mapping[str, str | None], name: str) -> str | None:
    """The box whose output is read where layer `name` is; None for the factor of ADQ, which is no road."""
    if named[name].op == "deviation":
        return None
    return keys[name] or _source(named, keys, named[name].inputs[0])


def _box(key: str, layer: Layer, architecture: Architecture) -> Box:
    choice = architecture.layers.get(key)
    if choice:
        return Box(key, "searched", "ESA" if choice.op == "esa" else choice.op, choice.bits)
    if _ESA.fullmatch(layer.name):
        return Box(key, "fixed", "ESA", 8 if architecture.quantized else FLOAT_BITS)
    match layer.op:
        case "conv":
            return Box(key, "fixed", f"conv {layer.kernel[0]}x{layer.kernel[1]}", layer.bits)
        case "add":
            return Box(layer.name, "join", "+")
        case "image":
            return Box(layer.name, "end", "LR image")
        case "affine":
            return Box(layer.name, "plain", NORMS[architecture.normalization])
        case "scale":
            return Box(layer.name, "plain", "\N{MULTIPLICATION SIGN} deviation")
        case _:
            times = f" \N{MULTIPLICATION SIGN}{layer.factor}" if layer.factor > 1 else ""
            return Box(layer.name, "plain", WORDS.get(layer.op, layer.op) + times)


def _number(key: str) -> int | None:
    """The name of the block that a box is in."""
    match = _BLOCK.fullmatch(key.rpartition(" ")[2])
    return int(match[1].removeprefix("body.")) if match else None


def _row_name(row: Sequence[int]) -> str:
    return f"(blocks) {ranges(row)}"


def _frame(graph: Diagram, rows: Sequence[tuple[int, ...]]) -> Diagram:
    """With every row of equal blocks in one box."""
    of_number = {number: row for row in rows for number in row}

    def outer(key: str) -> str:
        number = _number(key)
        return key if number is None else _row_name(of_number[number])

    boxes: dict[str, Box] = {}
    for key, box in graph.boxes.items():
        name = outer(key)
        if name == key:
            boxes[key] = box
        else:
            before = boxes.get(name, Box(name, "block", ""))
            boxes[name] = replace(before, macs=before.macs + box.macs, bitops=before.bitops + box.bitops)
    pairs = ((outer(source), outer(target)) for source, target in graph.edges)
    return Diagram(boxes, tuple(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1])))


def _inside(graph: Diagram, numbers: Sequence[int]) -> Diagram:
    """The first of these blocks, from what it reads on, with the costs of all."""
    first = numbers[0]
    boxes = {SOURCE: Box(SOURCE, "end", "")}
    for key, box in graph.boxes.items():
        if _number(key) == first:
            same = [graph.boxes[key.replace(f"body.{first}.", f"body.{n}.", 1)] for n in numbers]
            boxes[key] = replace(
                box, macs=sum(each.macs for each in same), bitops=sum(each.bitops for each in same)
            )
    pairs = (
        (source if source in boxes else SOURCE, target) for source, target in graph.edges if target in boxes
    )
    return Diagram(boxes, tuple(dict.fromkeys(pairs)))
