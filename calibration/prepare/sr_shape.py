"""What a float model is as a super-resolution or restoration network: found out by running it.

1. layout, channels and scale: the declared shapes leave few possibilities; the first whose output is an image
   of as many channels, a whole number of times larger, is it. A network that does not pad its
   convolutions leaves out a border of the image: by how much its output grows with its input is its scale.
2. the value of a white pixel: an image is upscaled in either unit, and the one whose result is nearer to the
   bicubic upscaling is it. The bound of a final clip goes before that; where there is none and both are as
   near, as in a network without biases, it is 1. So it is where neither is near enough to be sure: in 0..255
   a network that bends values softly is almost linear, and looks like bicubic whatever it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from qnas.errors import ModelError
from qnas.images.resize import resize_bicubic
from qnas.onnx.graph import Graph
from qnas.onnx.measured import TYPE_NAMES
from qnas.onnx.session import first_line, open_session
from qnas.onnx.shapes import declared_sizes

InputRange = Literal["0..1", "0..255"]
Layout = Literal["nchw", "nhwc"]
Number = TypeVar("Number", bound=np.generic)
Output = Callable[[tuple[int, int]], NDArray[Any]]  # of an image of that height and width
WHITES: dict[InputRange, float] = {"0..1": 1.0, "0..255": 255.0}
# Tried in this order where a network takes any size: some need multiples of 8, 16 or 64, or windows of it.
SIZES = ((48, 80), (64, 128), (128, 192))
# And of these the first that it takes, to see what depends on the size: odd where that may be, never square.
UNEVEN = ((37, 53), (38, 54), (44, 52), (40, 56), (48, 112))
CHANNELS = (3, 1)
NEAR_DB = 14.0  # of an upscaled image to the bicubic one; in the wrong unit, or untrained, it is below 10
SURE_DB = 25.0  # trained networks are above 40 in their own unit
MARGIN_DB = 1.0  # by which 0..255 has to be nearer: a tenth of it without biases, 5 dB with small ones
SURE_MARGIN_DB = 6.0  # trained networks have 15 and more
MOST_PIXELS = 1 << 21  # of a network of one size, which runs on images of that: 1920x1080 is less
LARGEST_PROBE = 1024  # rows and columns of the output that are compared


@dataclass(frozen=True)
class SrShape:
    """`size` = fixed (height, width) of the input, None where these are free; `probe` = one that it takes.

    `missing`: how many rows and columns its output has less than `scale` times those of its input.
    `others`: more that it takes, an uneven one and a larger one. What is found by running the network has to
    hold at all of them. `written`: the layout of the output.
    """

    layout: Layout
    channels: int
    scale: int
    size: tuple[int, int] | None
    probe: tuple[int, int]
    others: tuple[tuple[int, int], ...] = ()
    missing: int = 0
    written: Layout = "nchw"

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The probe's and the others."""
        return (self.probe, *self.others)

    def output_sides(self, size: tuple[int, int]) -> tuple[int, int]:
        """The height and width of what it makes of an image of `size`."""
        return self.scale * size[0] - self.missing, self.scale * size[1] - self.missing

    def input_shape(self, size: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
        """One image of `size`, by default the probe's."""
        return laid_out(self.layout, 1, self.channels, size or self.probe)


def laid_out(layout: Layout, batch: int, channels: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The shape of images of `size` = (height, width)."""
    return (batch, channels, *size) if layout == "nchw" else (batch, *size, channels)


def to_layout(pixels: NDArray[Number], layout: Layout) -> NDArray[Number]:
    """[N, H, W, C] in the layout of a network."""
    return np.ascontiguousarray(pixels if layout == "nhwc" else pixels.transpose(0, 3, 1, 2))


def from_layout(output: NDArray[Number], layout: Layout) -> NDArray[Number]:
    """[N, H, W, C] from the layout of a network."""
    return np.ascontiguousarray(output if layout == "nhwc" else output.transpose(0, 2, 3, 1))


# Layout, channels, scale ---------------------------------------------------------------------------------


def find_shape(model: ModelProto, name: str) -> SrShape:
    """Layout, channels and scale of a model of one input and one output; `name` is for the messages.

    Raises ModelError when it reads or writes no images, or does not enlarge both sides by one whole factor:
    1 of a network that restores.
    """
    source = Graph(model.graph).inputs[0]
    dims = _checked_dims(source, name)
    session = open_session(model.SerializeToString(), threads=1)

    def output(layout: Layout, channels: int, size: tuple[int, int]) -> NDArray[Any]:
        image = np.full(laid_out(layout, 1, channels, size), 0.5, np.float32)
        return np.asarray(session.run(None, {source.name: image})[0])

    no_image, failed = "", f"it reads {_shown(dims)}, and grey (1) or RGB (3) channels are needed"
    for layout, channels, size in _possibilities(dims):
        try:
            written = output(layout, channels, size)
        except Exception as error:  # onnxruntime's many exception types share no base but Exception
            if not failed.startswith("onnxruntime"):  # the likeliest possibility's is told
                failed = f"onnxruntime says: {first_line(error)}"
            continue
        other_sizes = partial(output, layout, channels) if None in _spatial(dims, layout) else None
        turned: Layout = "nhwc" if layout == "nchw" else "nchw"
        for out in (layout, turned):
            found = _enlarging(written, SrShape(layout, channels, 1, None, size, written=out), other_sizes)
            if isinstance(found, SrShape):
                return found if other_sizes is None else replace(found, others=_others(found, other_sizes))
            no_image = no_image or found
    raise ModelError(f"{name} is no super-resolution network that can be calibrated: {no_image or failed}")


def _checked_dims(source: ValueInfoProto, name: str) -> list[int | None]:
    """What a network declares of its input, None for free sizes. Raises ModelError for what is no image."""
    dims = declared_sizes(source)
    kind = source.type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        raise ModelError(f"{name} reads {TYPE_NAMES[kind]}: a float32 network is needed, export it as one")
    if len(dims) != 4:
        raise ModelError(
            f"{name} reads {_shown(dims)}: images [N, C, H, W] or [N, H, W, C] are needed, export it so"
        )
    if dims[0] not in (None, 1):
        raise ModelError(f"{name} reads {dims[0]} images at a time: export it for one, or for any number")
    if math.prod(size or 1 for size in dims) > 3 * MOST_PIXELS:
        raise ModelError(
            f"{name} reads {_shown(dims)}, more than {MOST_PIXELS} pixels: export it for images of any size"
        )
    return dims


def _others(shape: SrShape, output: Output) -> tuple[tuple[int, int], ...]:
    """The first uneven size, and twice the probe's, that the network enlarges as it does the probe."""
    height, width = shape.probe

    def taken(size: tuple[int, int]) -> bool:
        try:
            made = output(size)
        except Exception:  # onnxruntime's many exception types share no base but Exception
            return False
        return _spatial(list(made.shape), shape.written) == shape.output_sides(size)

    uneven = next(filter(taken, UNEVEN), None)
    return tuple(size for size in (uneven, (2 * height, 2 * width)) if size is not None and taken(size))


def _possibilities(dims: list[int | None]) -> Iterator[tuple[Layout, int, tuple[int, int]]]:
    """(layout, channels, (height, width)) that fit the declared input, the likeliest first."""
    layouts: tuple[Layout, ...] = ("nchw", "nhwc")
    forms = [(layout, c) for c, layout in product(CHANNELS, layouts) if _channels(dims, layout) in (c, None)]
    forms.sort(key=lambda form: _channels(dims, form[0]) is None)
    for layout, c in forms:
        height, width = _spatial(dims, layout)
        sizes = dict.fromkeys((height or h, width or w) for h, w in SIZES)
        yield from ((layout, c, size) for size in sizes)


def _channels(dims: list[int | None], layout: Layout) -> int | None:
    return dims[1] if layout == "nchw" else dims[3]


def _spatial(dims: list[int | None], layout: Layout) -> tuple[int | None, int | None]:
    return (dims[2], dims[3]) if layout == "nchw" else (dims[1], dims[2])


def _enlarging(written: NDArray[Any], shape: SrShape, output: Output | None) -> SrShape | str:
    """What a network is that makes `written` of the probe of `shape`, if in that layout; or why it is not.

    `output`: what it makes of an image of another size; None where it takes no other.
    """
    if written.dtype != np.float32 or written.ndim != 4:
        return f"it writes {written.dtype} {list(written.shape)}, not float32 images"
    dims, channels, size = list(written.shape), shape.channels, shape.probe
    made = _channels(dims, shape.written)
    height, width = (side or 0 for side in _spatial(dims, shape.written))
    shown = f"it turns {size[1]}x{size[0]} pixels of {channels} channels to {width}x{height} of {made}"
    if made != channels:
        return f"{shown}: the channels have to be the same"
    scale = _growth(shape, (height, width), output)
    missing = scale * size[0] - height
    if scale < 1 or not 0 <= missing < scale * min(size) or scale * size[1] - width != missing:
        return f"{shown}: one whole factor for both sides is needed"
    return replace(shape, scale=scale, missing=missing, size=size if output is None else None)


def _growth(shape: SrShape, made: tuple[int, int], output: Output | None) -> int:
    """By how much the output grows with the input: of a network of one size the next whole factor, 0 where it
    is none."""
    size = shape.probe
    if not (made[0] % size[0] or made[1] % size[1]) or output is None:
        return -(-made[0] // size[0])
    larger = (2 * size[0], 2 * size[1])
    try:
        height, width = _spatial(list(output(larger).shape), shape.written)
    except Exception:  # onnxruntime's many exception types share no base but Exception
        return 0
    growth = {((height or 0) - made[0]) / size[0], ((width or 0) - made[1]) / size[1]}
    scale = int(next(iter(growth)))
    return scale if growth == {scale} else 0


def _shown(dims: list[int | None]) -> str:
    return "x".join("?" if d is None else str(d) for d in dims) or "a tensor of unknown shape"


# White ---------------------------------------------------------------------------------------------------


def probe_image(size: tuple[int, int], channels: int) -> NDArray[np.float64]:
    """Grey levels [H, W, C] within 20..235: coloured patches with soft borders, always the same."""
    coarse = np.random.default_rng(0).uniform(20, 235, (-(-size[0] // 8), -(-size[1] // 8), channels))
    return np.clip(resize_bicubic(coarse, size), 20, 235)


@dataclass(frozen=True)
class White:
    """The value of a white pixel, and a line for the user: how it was found, or that it is a guess."""

    value: float
    explanation: str


def find_white(model: ModelProto, shape: SrShape, bound: float | None, name: str) -> White:
    """1.0 or 255.0; `bound` is the upper bound of the network's final clip. ModelError when it is neither."""
    image = probe_image(shape.probe, shape.channels)
    height, width = (side * shape.scale for side in shape.probe)
    first = shape.missing // 2
    rows, columns = (min(side, LARGEST_PROBE) for side in shape.output_sides(shape.probe))
    box = (first, first, columns, rows)
    wanted = resize_bicubic(image, (height, width), box)
    session = open_session(model.SerializeToString(), threads=1)
    results = {}
    for white in WHITES.values():
        x = to_layout((image * white / 255).astype(np.float32)[None], shape.layout)
        results[white] = session.run(None, {session.get_inputs()[0].name: x})[0]
    nearness = {(i, o): _nearness(y, o, wanted, shape) for i, y in results.items() for o in WHITES.values()}
    same = {white: nearness[white, white] for white in WHITES.values()}
    seen = f"{same[1.0]:.1f} dB to bicubic in 0..1, {same[255.0]:.1f} dB in 0..255"
    best = max(nearness, key=lambda pair: nearness[pair])
    if max(same.values()) < NEAR_DB:
        hint = "is it trained on images of another range? then say which: --input-range 0..1 or 0..255"
        if nearness[best] >= NEAR_DB:
            hint = f"it seems to read 0..{best[0]:g} and to write 0..{best[1]:g}: let it write what it reads"
        does = "upscales no image" if shape.scale > 1 else "makes no image of the one that it reads"
        raise ModelError(f"{name} {does} ({seen}): {hint}")
    if bound in same and same[bound] >= NEAR_DB:
        return White(bound, f"images are read as 0..{bound:g}, where the final clip ends")
    return _nearer(same, seen)


def _nearer(same: dict[float, float], seen: str) -> White:
    """The unit whose result is nearer to bicubic, `same` in dB, or 1 where neither is near enough."""
    sure = max(same.values()) >= SURE_DB
    value = 255.0 if sure and same[255.0] > same[1.0] + MARGIN_DB else 1.0
    margin = abs(same[255.0] - same[1.0])
    if margin <= MARGIN_DB and sure:
        return White(value, f"images are read as 0..1: either range makes the same of them ({seen})")
    if sure and margin >= SURE_MARGIN_DB:
        return White(value, f"images are read as 0..{value:g} ({seen})")
    return White(
        value,
        f"WARNING: images are read as 0..{value:g}, which is a guess ({seen}): give --input-range 0..1 or "
        "0..255, as the network was trained; the wrong one makes other images",
    )


def _nearness(
    output: NDArray[np.float32], white: float, wanted: NDArray[np.float64], shape: SrShape
) -> float:
    """PSNR in dB of what the network wrote to `wanted` grey levels; without a number in it, -inf."""
    height, width = wanted.shape[:2]
    pixels = from_layout(output, shape.layout)[0, :height, :width].astype(np.float64) * 255 / white
    if not np.isfinite(pixels).all():
        return -np.inf
    error = float(np.mean((pixels - wanted) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-6))
