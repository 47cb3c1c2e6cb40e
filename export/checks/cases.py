"""Which parts of a photograph a runtime upscales, and what each part should become.

A runtime that takes any size gets the centre; one of a fixed size gets tiles of exactly that size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qnas.images.evaluation import Image, shrink
from qnas.images.files import crop_to_multiple, full_range_luma
from qnas.runtimes.runtime import Runner

# How large a part of a photograph is compared: LR pixels a side, and multiplications over all photographs.
LARGEST_SIDE, SLOW_SIDE, SMALLEST_SIDE = 256, 48, 24
BUDGET = 1e10  # what the interpreter does in a second or two
SLOWER = 4  # a slow runner gets that part of it


@dataclass(frozen=True)
class Effort:
    """About how many LR `pixels` of each photograph; at least `smallest` a side where it has them, and whole
    times `multiple`."""

    pixels: float
    smallest: int = SMALLEST_SIDE
    multiple: int = 1


@dataclass(frozen=True)
class Window:
    """A rectangle of LR pixels; what lies outside of the image repeats its edge."""

    top: int
    left: int
    height: int
    width: int


def windows(height: int, width: int, runner: Runner, effort: Effort, first: bool) -> list[Window]:
    """What `runner` gets of an image of `height` x `width`.

    Case 1: a fixed size that is larger than that: one tile of the first image, nothing of the others.
    Case 2: a fixed size: as many tiles as fit.
    Case 3: any size: a square, or the whole image if that is smaller.
    """
    most, pixels = (SLOW_SIDE, effort.pixels / SLOWER) if runner.slow else (LARGEST_SIDE, effort.pixels)
    side = max(effort.smallest, min(most, math.isqrt(int(pixels))))
    tall, wide = (max(1, min(side, s) // effort.multiple) * effort.multiple for s in (height, width))
    centre = _centre(height, width, tall, wide)
    if runner.size is None:  # Case 3
        return [centre]
    tall, wide = runner.size
    rows, columns = centre.height // tall, centre.width // wide
    if not rows or not columns:  # Case 1
        return [_centre(height, width, tall, wide)] if first else []
    return [
        Window(centre.top + row * tall, centre.left + column * wide, tall, wide)
        for row in range(rows)
        for column in range(columns)
    ]  # Case 2


def _centre(height: int, width: int, tall: int, wide: int) -> Window:
    return Window(max(0, (height - tall) // 2), max(0, (width - wide) // 2), tall, wide)


@dataclass
class Case:
    """One photograph: `hr` [s H, s W, C] and `lr` [H, W, C], and what the references make of its parts."""

    name: str
    hr: Image
    lr: Image
    scale: int
    references: Mapping[str, Runner]
    known: dict[Window, dict[str, Image]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, image: Image, scale: int, references: Mapping[str, Runner], channels: int = 3
    ) -> "Case":
        """A photograph [H, W, 3] of any size from `scale` on; with one channel its luma."""
        hr = crop_to_multiple(image, scale)
        lr = shrink(hr, scale)
        if channels == 1:
            hr, lr = full_range_luma(hr), full_range_luma(lr)
        return cls(name, hr, lr, scale, references)

    def part(self, window: Window) -> Image:
        """uint8 [window.height, window.width, C] of the small image."""
        bottom, right = window.top + window.height, window.left + window.width
        inside = self.lr[window.top : bottom, window.left : right]
        missing = [(0, window.height - inside.shape[0]), (0, window.width - inside.shape[1]), (0, 0)]
        return np.pad(inside, missing, mode="edge")

    def photograph(self, window: Window) -> Image:
        """Cut that part out of the photograph itself, without what is padded."""
        top, left, s = window.top * self.scale, window.left * self.scale, self.scale
        return self.hr[top : top + window.height * s, left : left + window.width * s]

    def expected(self, window: Window) -> dict[str, Image]:
        """What every reference that takes its size makes of that part; computed once."""
        if window not in self.known:
            part, size = self.part(window), (window.height, window.width)
            taking = {name: runner for name, runner in self.references.items() if runner.size in (None, size)}
            self.known[window] = {name: runner.upscale(part) for name, runner in taking.items()}
        return self.known[window]
