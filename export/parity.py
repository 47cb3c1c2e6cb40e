"""Parity: do the files that were written compute what the trained network computes?

Every image is shrunk by the network's scale, upscaled by torch (`eval()`), by the ONNX reference evaluator
(the graph node by node, unfused) and by onnxruntime with all optimisations, and compared as uint8 pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qnas.errors import UsageError
from qnas.evaluation import Image, shrink
from qnas.fusion import FusionReport
from qnas.images import crop_to_multiple, list_images, read_image
from qnas.inference import upscaler
from qnas.network import Network
from qnas.quality import psnr_y
from qnas.quantization import GREY_LEVEL
from qnas.samples import sample_photographs

# The reference evaluator runs numpy loops; a part of each photograph shows as much as the whole.
LARGEST_SIDE = 256


@dataclass(frozen=True)
class BackendParity:
    """One backend against torch over all images: pixels are counted per colour channel.

    `psnr` compares its uint8 output with torch's (inf: equal), `psnr_y` its output with the photographs.
    """

    backend: str
    pixels: int
    equal: float
    largest_difference: int
    psnr: float
    psnr_y: float


@dataclass(frozen=True)
class ParityReport:
    """What `qnas-export` prints and saves beside the model."""

    model: str
    images: tuple[str, ...]
    torch_psnr_y: float
    backends: tuple[BackendParity, ...]
    fusion: FusionReport
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite PSNR becomes null."""
        document = asdict(self)
        for backend in document["backends"]:
            backend["psnr"] = None if math.isinf(backend["psnr"]) else backend["psnr"]
        return {"format": "qnas-parity", "version": 1, **document}


def parity_images(folder: Path | None) -> tuple[list[tuple[str, Image]], tuple[str, ...]]:
    """(name, HR image) pairs of `folder` or the sample photographs, and notes on what was used instead."""
    if folder is not None:
        return [(path.name, read_image(path)) for path in list_images(folder)], ()
    try:
        return sample_photographs(), ()
    except UsageError as error:
        rng = np.random.default_rng(0)
        image = np.kron(rng.integers(0, 256, (32, 32, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        return [("random blocks", image)], (f"parity on a made-up image: {error}",)


def check_parity(
    network: Network, scale: int, model: onnx.ModelProto, images: Sequence[tuple[str, Image]]
) -> tuple[float, tuple[BackendParity, ...]]:
    """(PSNR-Y of torch in dB, parity of each backend)."""
    ours = upscaler(network)
    backends = {"reference evaluator": _reference(model), "onnxruntime": _onnxruntime(model)}
    tallies = {name: _Tally() for name in backends}
    torch_psnr = []
    for _, image in images:
        hr = _centre(crop_to_multiple(image, scale), LARGEST_SIDE * scale)
        lr = shrink(hr, scale)
        expected = ours(lr)
        torch_psnr.append(psnr_y(expected, hr, scale))
        for name, run in backends.items():
            tallies[name].add(run(lr), expected, hr, scale)
    return float(np.mean(torch_psnr)), tuple(tally.result(name) for name, tally in tallies.items())


class _Tally:
    """Differences summed over images."""

    def __init__(self) -> None:
        self.pixels = self.equal = self.largest = self.squares = 0
        self.psnr_y: list[float] = []

    def add(self, got: Image, expected: Image, hr: Image, scale: int) -> None:
        difference = np.abs(got.astype(np.int64) - expected)
        self.pixels += difference.size
        self.equal += int((difference == 0).sum())
        self.largest = max(self.largest, int(difference.max()))
        self.squares += int(np.square(difference).sum())
        self.psnr_y.append(psnr_y(got, hr, scale))

    def result(self, name: str) -> BackendParity:
        psnr = 10 * math.log10(255**2 * self.pixels / self.squares) if self.squares else math.inf
        return BackendParity(
            name, self.pixels, self.equal / self.pixels, self.largest, psnr, float(np.mean(self.psnr_y))
        )


def _centre(image: Image, side: int) -> Image:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _reference(model: onnx.ModelProto) -> Callable[[Image], Image]:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return _pixels(lambda feed: np.asarray(next(iter(evaluator.run(None, feed)))), model)


def _onnxruntime(model: onnx.ModelProto) -> Callable[[Image], Image]:
    from qnas.session import open_session

    session = open_session(model.SerializeToString())
    return _pixels(lambda feed: session.run(None, feed)[0], model)


def _pixels(
    run: Callable[[dict[str, NDArray[Any]]], Any], model: onnx.ModelProto
) -> Callable[[Image], Image]:
    """uint8 images in and out of a model that takes uint8, or float32 in network units."""
    entry = model.graph.input[0]
    floats = entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT

    def upscale(image: Image) -> Image:
        x = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        y = run({entry.name: x.astype(np.float32) * np.float32(GREY_LEVEL) if floats else x})
        if floats:
            y = np.clip(np.rint(y / GREY_LEVEL), 0, 255).astype(np.uint8)
        result: Image = y[0].transpose(1, 2, 0)
        return result

    return upscale
