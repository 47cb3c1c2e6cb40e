"""Float networks, images and ranges for tests of post-training quantization."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from qnas.calibration.prepare.float_model import FloatModel, Runner, activations, read_float_model
from qnas.calibration.ranges.ranges import Range
from qnas.images.samples import sample_photographs
from qnas.testing import sr_modules
from qnas.testing.text_models import text_model

NETWORKS: dict[str, Callable[[], sr_modules.Network]] = {
    "abpn": lambda: sr_modules.abpn_like(clip=False),
    "abpn with a clip": lambda: sr_modules.abpn_like(clip=True),
    "xlsr with a clip": lambda: sr_modules.xlsr_like(clip=True),
    "espcn with a clip": lambda: sr_modules.espcn(clip=True),
    "rfdn": lambda: sr_modules.rfdn_like(clip=False),
    "every operation": lambda: sr_modules.every_operation(),
}


def float_network(name: str, folder: Path, opset: int = 17) -> FloatModel:
    """One of NETWORKS, as a file of torch's exporter is read."""
    path = folder / "network.onnx"
    sr_modules.export(NETWORKS[name](), path, opset)
    return read_float_model(path, "0..1")


def text_network(
    graph: str, opset: int = 21, white: float = 1.0, **constants: NDArray[np.float32]
) -> FloatModel:
    """A network [N, 3, H, W] in text form, from `image` to `upscaled`; `constants` by name."""
    model = text_model(graph, opset)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in constants]
    new = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *new])
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return FloatModel("text", "", model, "image", "upscaled", "nchw", 3, 1, white, None)


def patches(count: int = 5, side: int = 32) -> NDArray[np.float32]:
    """Grey levels [count, side, side, 3] of photographs, a third of their size."""
    images = [image for _, image in sample_photographs()]
    return np.stack([images[i % len(images)][20 * i :: 3, 30::3][:side, :side] for i in range(count)]).astype(
        np.float32
    )


def ranges_of(network: FloatModel, images: NDArray[np.float32]) -> dict[str, Range]:
    """The least and the largest value of every tensor."""
    names = [name for name in activations(network) if name != network.output]
    found = {
        name: Range(float(x.min()), float(x.max()))
        for name, x in Runner(network, names).tensors(images).items()
    }
    return found | {network.output: Range(0.0, network.white)}


def pixels_of(network: FloatModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the float network shows: clipped, not rounded."""
    return np.clip(Runner(network)(images), 0, 255)


def psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """In dB, of grey levels."""
    return float(10 * np.log10(255**2 / np.square(a.astype(np.float64) - b).mean()))
