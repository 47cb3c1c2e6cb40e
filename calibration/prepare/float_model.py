"""A float32 super-resolution network from elsewhere: read, prepared, and run on grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from qnas.calibration.prepare.final_clip import find_final_clip, without_final_rounding
from qnas.calibration.prepare.float_file import read_float_file
from qnas.calibration.prepare.preparation import finished, prepared, simplified
from qnas.calibration.prepare.size_dependence import size_dependent
from qnas.calibration.prepare.sr_shape import (
    SIZES,
    WHITES,
    InputRange,
    Layout,
    SrShape,
    White,
    find_white,
    from_layout,
    laid_out,
    probe_image,
    to_layout,
)
from qnas.errors import ModelError
from qnas.images.evaluation import Batch
from qnas.onnx.files import damage_refused
from qnas.onnx.session import first_line, open_session
from qnas.onnx.shapes import declared_sizes, infer_shapes


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A network as `qnas.calibration.prepare.preparation` leaves it; `input` and `output` are tensor names.

    `name` is that of its file, `sha256` of the file and of the weights beside it. `white` is the value of a
    white pixel, in and out; `size` the fixed (height, width) of its input, None where these are free.
    `white_found` says how that was found, `remarks` how the file was read, a sentence each.
    `size_dependent`: tensors whose values depend on the image's size, so that no patch shows their range.
    """

    name: str
    sha256: str
    model: ModelProto
    input: str
    output: str
    layout: Layout
    channels: int
    scale: int
    white: float
    size: tuple[int, int] | None
    size_dependent: frozenset[str] = frozenset()
    white_found: str = ""
    remarks: tuple[str, ...] = ()

    def shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The shape of one image as the network reads it; a network of one size reads that."""
        return laid_out(self.layout, 1, self.channels, self.size or (height, width))

    def feed(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Grey levels [N, H, W, C], 0..255, in the units and the layout of the network."""
        return to_layout(np.asarray(pixels, np.float32) * np.float32(self.white / 255), self.layout)

    def pixels(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network wrote as grey levels [N, H, W, C], neither clipped nor rounded."""
        return from_layout(output, self.layout) * np.float32(255 / self.white)

    @property
    def batched(self) -> bool:
        """Whether it takes any number of images at once."""
        return declared_sizes(self.model.graph.input[0])[0] is None


def read_float_model(path: Path, input_range: InputRange | None = None) -> FloatModel:
    """Read and prepare the network at `path`, with the weights that lie beside it.

    Without `input_range` the value of white is found out by upscaling an image. Raises ModelError for what
    is no float32 super-resolution network of one image in and one out, saying what it is instead.
    """
    file = read_float_file(path)
    with damage_refused(path):
        model, shape = prepared(file.model, path.name)
        if input_range is not None:
            white = White(WHITES[input_range], f"images are read as {input_range}, as was said")
        else:
            white = find_white(model, shape, find_final_clip(model).high, path.name)
        if without_final_rounding(model, white.value):
            model = finished(simplified(model), shape)
    network = FloatModel(
        name=path.name,
        sha256=file.sha256,
        model=model,
        input=model.graph.input[0].name,
        output=model.graph.output[0].name,
        layout=shape.layout,
        channels=shape.channels,
        scale=shape.scale,
        white=white.value,
        white_found=white.explanation,
        size=shape.size,
        remarks=(*file.remarks, *_freed(file.model, shape)),
    )
    if shape.size is not None:
        return network
    image = network.feed(probe_image(min(shape.sizes, key=prod), shape.channels)[None])
    axes = (2, 3) if shape.layout == "nchw" else (1, 2)
    return replace(network, size_dependent=size_dependent(model, activations(network), image, axes))


def _freed(model: ModelProto, shape: SrShape) -> tuple[str, ...]:
    """A remark where the file names a size that the network does not need."""
    declared = declared_sizes(model.graph.input[0])
    height, width = declared[2:] if shape.layout == "nchw" else declared[1:3]
    if shape.size is not None or height is None or width is None:
        return ()
    return (
        f"the file says images of {width}x{height} alone, which none of its operations needs: it is read for "
        "any size, and computes the same at that one",
    )


class Runner:
    """The network in onnxruntime, with the values of `tensors` beside its output."""

    kind = TensorProto.FLOAT  # of the tensors

    def __init__(
        self, network: FloatModel, tensors: Sequence[str] = (), threads: int = 1, optimized: bool = True
    ) -> None:
        """Open the session; ModelError when the network has no such tensor."""
        model = deepcopy(network.model)
        written = {name for node in model.graph.node for name in node.output}
        for name in dict.fromkeys(tensors):
            if name not in written | {network.input}:
                raise ModelError(f"{network.name} has no tensor {name!r}: it was calibrated as another file")
            if name not in (network.input, network.output):
                model.graph.output.append(helper.make_tensor_value_info(name, self.kind, None))
        self.network, self.names = network, tuple(tensors)
        self._session = open_session(model.SerializeToString(), threads, optimized)

    def __call__(self, pixels: NDArray[Any]) -> Batch:
        """Grey levels [N, H, W, C] -> [N, scale H, scale W, C], neither clipped nor rounded."""
        return self.shown(self._run((self.network.output,), self.feed(pixels))[0])

    def feed(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """What the network reads for grey levels [N, H, W, C]."""
        return self.network.feed(pixels)

    def shown(self, output: NDArray[Any]) -> Batch:
        """What the network wrote, as grey levels [N, H, W, C]."""
        return self.network.pixels(output)

    def tensors(self, pixels: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The values of the tensors asked for, in the network's units and layout."""
        x = self.feed(pixels)
        asked = [name for name in self.names if name != self.network.input]
        found = dict(zip(asked, self._run(asked, x), strict=True)) | {self.network.input: x}
        return {name: found[name] for name in self.names}

    def _run(self, names: Sequence[str], x: NDArray[Any]) -> list[NDArray[Any]]:
        """At once, or image by image where the network takes only one; ModelError when it fails."""
        if not names:
            return []
        parts = [x] if self.network.batched or len(x) == 1 else [x[i : i + 1] for i in range(len(x))]
        try:
            results = [self._session.run(list(names), {self.network.input: part}) for part in parts]
        except Exception as error:  # onnxruntime's many exception types share no base but Exception
            raise ModelError(
                f"{self.network.name} does not run on {'x'.join(map(str, x.shape))} ({first_line(error)}): "
                "use images of a size that it takes"
            ) from error
        return [np.concatenate(each) for each in zip(*results, strict=True)]


def activations(network: FloatModel) -> tuple[str, ...]:
    """Names of all float tensors that an image determines, in order, input and output included."""
    shapes = infer_shapes(network.model, {network.input: network.shape(*SIZES[0])})
    names = (network.input, *(name for node in network.model.graph.node for name in node.output))
    return tuple(name for name in names if name not in shapes.derived and _is_float(shapes.types.get(name)))


def _is_float(known: Any) -> bool:
    return known is not None and known.elem_type == TensorProto.FLOAT
