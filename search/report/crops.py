"""Before and after: the same small part of a photograph by bicubic, by networks, and as it was."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from qnas.errors import CheckpointError
from qnas.html_page import Markup, element
from qnas.images.evaluation import Image, shrink
from qnas.images.files import crop_to_multiple
from qnas.images.quality import luma, psnr_y
from qnas.images.resize import resize_bicubic
from qnas.torch.checkpoint import Found, load_found
from qnas.torch.inference import upscaler

SIDE = 96  # pixels of a crop, shown twice as large
LARGEST = 512  # side of what is upscaled of a photograph, its middle
Upscale = Callable[[Image], Image]


@dataclass(frozen=True)
class Panel:
    """A crop, uint8 [H, W, 3], and its PSNR on Y in dB, None of the original."""

    label: str
    pixels: Image
    psnr: float | None


def panels(photograph: Image, networks: Mapping[str, Upscale], scale: int) -> list[Panel]:
    """Bicubic, the networks, the original, where bicubic of a photograph uint8 [H, W, 3] is worst.

    Raises ImageError when the photograph is smaller than `scale` pixels.
    """
    original = crop_to_multiple(_middle(photograph), scale)
    small = shrink(original, scale)
    bicubic: Image = resize_bicubic(small, original.shape[:2])
    where = hardest(bicubic, original, scale)
    upscaled = {"bicubic": bicubic, **{name: upscale(small) for name, upscale in networks.items()}}
    wanted = original[where]
    made = [Panel(name, whole[where], psnr_y(whole[where], wanted, 0)) for name, whole in upscaled.items()]
    return [*made, Panel("original", wanted, None)]


def hardest(upscaled: Image, original: Image, border: int) -> tuple[slice, slice]:
    """Rows and columns of the crop, off the border where there is room, whose luma is farthest off."""
    error = (luma(upscaled) - luma(original)) ** 2
    height, width = error.shape
    side_y, side_x = min(SIDE, height), min(SIDE, width)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tall = sums[side_y:] - sums[:-side_y]
    inside = tall[:, side_x:] - tall[:, :-side_x]
    rows, columns = (_places(length, border) for length in inside.shape)
    candidates = inside[rows][:, columns]
    row, column = np.unravel_index(int(candidates.argmax()), candidates.shape)
    top, left = int(rows[row]), int(columns[column])
    return slice(top, top + side_y), slice(left, left + side_x)


def _places(count: int, border: int) -> NDArray[np.intp]:
    """Where a crop may begin: every fourth pixel inside the border."""
    places = np.arange(border, count - border, 4)
    return places if len(places) else np.zeros(1, np.intp)


def _middle(photograph: Image) -> Image:
    starts = [max(0, (length - LARGEST) // 2) for length in photograph.shape[:2]]
    return photograph[starts[0] : starts[0] + LARGEST, starts[1] : starts[1] + LARGEST]


def crops_section(found: Mapping[str, Path], photographs: Sequence[tuple[str, Image]]) -> Markup:
    """A row for each of the named photographs; `found`: label -> trained network.

    What cannot be read is said instead. Raises ImageError when a photograph is too small.
    """
    networks, problems = {}, []
    for label, path in found.items():
        try:
            networks[label] = load_found(path)
        except CheckpointError as error:
            problems.append(element("p", f"{label}: {error}", class_="warn"))
    scales = [each.architecture.scale for each in networks.values()]
    rows = [
        _row(name, panels(photograph, _of_scale(networks, scale), scale), scale)
        for scale in dict.fromkeys(scales)
        for name, photograph in photographs
    ]
    return element("div", *problems, element("div", *rows, class_="photographs"))


def _of_scale(networks: Mapping[str, Found], scale: int) -> dict[str, Upscale]:
    same = {label: found for label, found in networks.items() if found.architecture.scale == scale}
    return {label: upscaler(found.network) for label, found in same.items()}


def _row(name: str, shown: Sequence[Panel], scale: int) -> Markup:
    heading = element("h3", f"{name}, \N{MULTIPLICATION SIGN}{scale}")
    return element("div", heading, element("div", *map(_figure, shown), class_="crops"))


def _figure(panel: Panel) -> Markup:
    height, width = panel.pixels.shape[:2]
    picture = element("img", src=_data_url(panel.pixels), alt=panel.label, width=2 * width, height=2 * height)
    quality = "" if panel.psnr is None else f"{panel.psnr:.2f} dB"
    return element(
        "figure", picture, element("figcaption", element("span", panel.label), element("span", quality))
    )


def _data_url(pixels: Image) -> str:
    written = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(pixels)).save(written, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"


STYLE = """
.photographs { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
.crops { display: flex; flex-wrap: wrap; gap: .8rem; margin: .2rem 0 1.2rem; }
.crops figure { width: 192px; margin: 0; } .crops img { display: block; border-radius: .3rem; }
.crops figcaption { gap: .5rem; } .crops figcaption span { overflow-wrap: anywhere; }
.crops figcaption span:last-child { white-space: nowrap; }
"""
