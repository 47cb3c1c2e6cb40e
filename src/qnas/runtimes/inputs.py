"""Shapes and random values for the inputs of any ONNX model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.cost.macs import Shape
from qnas.errors import ModelError, UsageError

Feed = dict[str, NDArray[Any]]
DEFAULT = (1, 3, 128, 128)  # one RGB image, [N, C, H, W]
NUMBERS = frozenset({
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "bool",
})  # fmt: skip
CHANNELS = (1, 3, 4)  # of an image: gray, RGB, RGB with alpha


@dataclass(frozen=True)
class Input:
    """What a model declares; a free dimension is its symbol, or None. `dtype`: by numpy, or the runtime."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]


@dataclass(frozen=True)
class ShapeRequest:
    """One --shape: for the input `name`, or for whichever fits when None; two sizes are height and width."""

    name: str | None
    sizes: Shape


def parse_shape(text: str) -> ShapeRequest:
    """Read "1x3x64x64", "64x64" (height x width) or "name:1x3x64x64"; UsageError when it is none of these."""
    name, _, sizes = text.rpartition(":")
    if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", sizes):
        raise UsageError(
            f"--shape {text}: write sizes as 1x3x128x128, 128x128 (height x width) or name:1x3x64x64"
        )
    return ShapeRequest(name or None, tuple(map(int, sizes.split("x"))))


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as `parse_shape` reads it: "1x3x64x64"."""
    return "x".join(map(str, shape)) or "scalar"


def image_axes(dims: Sequence[object]) -> tuple[int, int] | None:
    """Where height and width are among four dimensions, the channels last only when they look so."""
    if len(dims) != 4:
        return None
    return (1, 2) if dims[3] in CHANNELS and dims[1] not in CHANNELS else (2, 3)


def resolve_shapes(declared: Sequence[Input], requests: Sequence[ShapeRequest]) -> dict[str, Shape]:
    """The shape of every input: as asked for, else as declared, else `DEFAULT`.

    Free dimensions of inputs that are no image become 1; those that share a symbol share their size. A name
    that the model has not is passed over: another model may have it. Raises UsageError when one does not fit.
    """
    inputs = {each.name: each.dims for each in declared}
    asked = {name: _asked(name, dims, requests, len(inputs)) for name, dims in inputs.items()}
    sizes: dict[object, int] = {}
    for name, shape in asked.items():
        sizes.update(zip(inputs[name], shape or (), strict=False))
    return {name: asked[name] or _default(dims, sizes) for name, dims in inputs.items()}


def _asked(name: str, dims: Sequence[object], requests: Sequence[ShapeRequest], count: int) -> Shape | None:
    found: Shape | None = None
    for request in requests:
        if request.name not in (None, name):
            continue
        sizes, axes = request.sizes, image_axes(dims)
        if len(sizes) == 2 and axes is not None:
            full = list(_default(dims, {}))
            full[axes[0]], full[axes[1]] = sizes
            sizes = tuple(full)
        elif request.name is None and count > 1:
            if len(sizes) == 2:
                continue  # height and width, and this is no image
            raise UsageError(
                f"the model has {count} inputs: name the one meant, as --shape {name}:1x3x128x128"
            )
        _check_fit(name, dims, sizes)
        found = sizes
    return found


def _check_fit(name: str, dims: Sequence[object], sizes: Shape) -> None:
    if len(dims) != len(sizes) or any(
        isinstance(d, int) and d != s for d, s in zip(dims, sizes, strict=True)
    ):
        shown = ", ".join("?" if dim is None else str(dim) for dim in dims)
        raise UsageError(f"input {name!r} is [{shown}]: a shape of {shape_text(sizes)} does not fit")


def _default(dims: Sequence[object], sizes: Mapping[object, int]) -> Shape:
    free: tuple[int, ...] = (1,) * len(dims)
    if axes := image_axes(dims):
        free = DEFAULT if axes == (2, 3) else (1, *DEFAULT[2:], DEFAULT[1])
    return tuple(
        dim if isinstance(dim, int) else sizes.get(dim, size) if isinstance(dim, str) else size
        for dim, size in zip(dims, free, strict=True)
    )


def random_inputs(declared: Sequence[Input], shapes: Mapping[str, Shape], seed: int) -> Feed:
    """Random values for every input: floats in [0, 1), any of 8 bits, 0 or 1 in wider integers (indices?).

    Raises ModelError for an input that is no tensor of numbers, UsageError when the memory does not hold it.
    """
    generator = np.random.default_rng(seed)
    feed: Feed = {}
    for each in declared:
        if each.dtype not in NUMBERS:
            raise ModelError(f"input {each.name!r} is a {each.dtype}: only tensors of numbers can be made up")
        shape = shapes[each.name]
        try:
            feed[each.name] = _random(generator, np.dtype(each.dtype), shape)
        except (MemoryError, ValueError) as error:  # numpy's, for more than it can hold or address
            raise UsageError(
                f"input {each.name!r} of {shape_text(shape)} does not fit into memory: choose less"
            ) from error
    return feed


def _random(generator: np.random.Generator, dtype: np.dtype[Any], shape: Shape) -> NDArray[Any]:
    if dtype.kind == "f":
        return generator.random(shape, np.float32).astype(dtype, copy=False)
    if dtype.kind == "b" or dtype.itemsize > 1:
        return generator.integers(0, 2, shape, dtype)
    ends = np.iinfo(dtype)
    return generator.integers(ends.min, ends.max, shape, dtype, endpoint=True)
