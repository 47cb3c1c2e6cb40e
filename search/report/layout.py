"""Where the boxes of a network go: columns by depth, the main road straight, branches below, skips above."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qnas.html_page import Markup, element

GAP = 20.0  # pixels between columns
LANE_GAP = 16.0
TRACK = 14.0  # between skips that lie above each other
CORNER = 6.0
ARROW = 5.0
Edge = tuple[str, str]
Point = tuple[float, float]


@dataclass(frozen=True)
class Drawing:
    """A drawing whose line comes in at (0, 0) and leaves at (width, 0); it reaches so far up and down."""

    width: float
    above: float
    below: float
    markup: Markup


def place(shapes: Mapping[str, Drawing], edges: Sequence[Edge]) -> Drawing:
    """Shapes, in topological order from one source to one sink, with the edges between them as one shape."""
    return _Placing(shapes, edges).shape()


class _Placing:
    def __init__(self, shapes: Mapping[str, Drawing], edges: Sequence[Edge]) -> None:
        self.shapes, self.edges = shapes, edges
        self.columns = self._depths()
        self.main = self._main_road()
        self.left = self._lefts()
        self.lanes = self._lanes()
        self.tracks = self._tracks()
        on_road = [shapes[name] for name in self.main]
        self.above = max(shape.above for shape in on_road)
        self.below = max(shape.below for shape in on_road)
        branches = [shape for name, shape in shapes.items() if self.lanes[name]]
        self.lane = max((shape.above + shape.below for shape in branches), default=0.0)

    def shape(self) -> Drawing:
        """The whole of it."""
        lines = [self._line(source, target) for source, target in self.edges]
        boxes = [
            element("g", shape.markup, transform=f"translate({_n(self.left[name])} {_n(self._y(name))})")
            for name, shape in self.shapes.items()
        ]
        last = self.main[-1]
        lanes, tracks = max(self.lanes.values()), len(set(self.tracks.values()))
        return Drawing(
            width=self.left[last] + self.shapes[last].width,
            above=self.above + tracks * TRACK + (4 if tracks else 0),
            below=self.below + lanes * (LANE_GAP + self.lane),
            markup=element("g", *lines, *boxes),
        )

    def _depths(self) -> dict[str, int]:
        depths = dict.fromkeys(self.shapes, 0)
        for name in self.shapes:  # in topological order
            depths[name] = max((depths[a] + 1 for a, b in self.edges if b == name), default=0)
        return depths

    def _main_road(self) -> list[str]:
        """The way from source to sink whose boxes are widest together."""
        best: dict[str, tuple[float, list[str]]] = {}
        for name, shape in self.shapes.items():
            before = [best[a] for a, b in self.edges if b == name]
            width, road = max(before, key=lambda each: each[0], default=(0.0, []))
            best[name] = width + shape.width, [*road, name]
        return best[list(self.shapes)[-1]][1]

    def _lefts(self) -> dict[str, float]:
        """The place of each shape, in the middle of its column."""
        widths = [0.0] * (max(self.columns.values()) + 1)
        for name, column in self.columns.items():
            widths[column] = max(widths[column], self.shapes[name].width)
        starts = [sum(widths[:column]) + GAP * column for column in range(len(widths))]
        return {
            name: starts[column] + (widths[column] - self.shapes[name].width) / 2
            for name, column in self.columns.items()
        }

    def _lanes(self) -> dict[str, int]:
        """0 is the main road; of the branches that lie side by side the longest goes lowest."""
        lanes = dict.fromkeys(self.main, 0)
        branches = [name for name in self.shapes if name not in lanes]
        spans = {name: (self.columns[name], self._end(name)) for name in branches}
        taken: list[tuple[int, int, int]] = []
        for name in sorted(branches, key=lambda each: spans[each][1] - spans[each][0]):
            begin, end = spans[name]
            lane = 1
            while any(lane == other and begin < stop and start < end for other, start, stop in taken):
                lane += 1
            lanes[name] = lane
            taken.append((lane, begin, end))
        return lanes

    def _end(self, name: str) -> int:
        """The column where what leaves `name` joins."""
        return max((self.columns[b] for a, b in self.edges if a == name), default=self.columns[name] + 1)

    def _tracks(self) -> dict[str, int]:
        """Target of skips -> height of their common line, the shortest lowest."""
        starts: dict[str, int] = {}
        for source, target in self.edges:
            if self._skips(source, target):
                starts[target] = min(starts.get(target, self.columns[source]), self.columns[source])
        tracks: dict[str, int] = {}
        for target in sorted(starts, key=lambda each: self.columns[each] - starts[each]):
            tracks[target] = 0
            while any(
                tracks[target] == tracks[other]
                and starts[target] < self.columns[other]
                and starts[other] < self.columns[target]
                for other in tracks
                if other != target
            ):
                tracks[target] += 1
        return tracks

    def _skips(self, source: str, target: str) -> bool:
        """Whether the edge runs past something on the main road."""
        both = source in self.main and target in self.main
        return both and self.main.index(target) != self.main.index(source) + 1

    def _y(self, name: str) -> float:
        lane = self.lanes[name]
        if not lane:
            return 0.0
        top = self.below + LANE_GAP + (lane - 1) * (LANE_GAP + self.lane)
        return top + self.shapes[name].above

    def _line(self, source: str, target: str) -> Markup:
        start = self.left[source] + self.shapes[source].width
        end, y, to = self.left[target], self._y(source), self._y(target)
        branch = start + GAP / 2 if self.shapes[source].width else start
        middle = end + self.shapes[target].width / 2
        if self._skips(source, target):
            height = -self.above - 6 - self.tracks[target] * TRACK
            top = -self.shapes[target].above
            return wire([(branch, 0), (branch, height), (middle, height), (middle, top)])
        if y == to:
            return wire([(start, y), (end, y)])
        if to > y:
            return wire([(branch, y), (branch, to), (end, to)])
        return wire([(start, y), (middle, y), (middle, to + self.shapes[target].below)])


def wire(points: Sequence[Point], arrow: bool = True) -> Markup:
    """A line with round corners, and an arrow at its end."""
    written = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        near, far = _towards(corner, before), _towards(corner, after)
        written += f"L{_n(near[0])} {_n(near[1])}Q{_n(corner[0])} {_n(corner[1])} {_n(far[0])} {_n(far[1])}"
    (x0, y0), (x, y) = points[-2:]
    written += f"L{_n(x)} {_n(y)}"
    line = element("path", d=written, class_="wire")
    if not arrow or (x0, y0) == (x, y):
        return line
    dx, dy = _sign(x - x0) * ARROW, _sign(y - y0) * ARROW
    corners = ((x, y), (x - dx - dy * 0.7, y - dy - dx * 0.7), (x - dx + dy * 0.7, y - dy + dx * 0.7))
    head = "L".join(f"{_n(a)} {_n(b)}" for a, b in corners)
    return element("g", line, element("path", d=f"M{head}z", class_="tip"))


def _towards(corner: Point, other: Point) -> Point:
    """From `corner` a little in the direction of `other`."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = abs(dx) + abs(dy)  # one of them is zero
    share = min(CORNER, length / 2) / length if length else 0.0
    return corner[0] + dx * share, corner[1] + dy * share


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _n(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
