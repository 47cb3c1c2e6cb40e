"""Any model file as a function of images: ONNX and TFLite of whoever wrote them, and a trained found.pt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.calibration.prepare.sr_shape import InputRange
from qnas.errors import ModelError
from qnas.export.from_qdq.reader import DIVISORS
from qnas.export.sources.quantized import input_range_of, litert_runner
from qnas.export.to_tflite.writer import METADATA
from qnas.images.evaluation import Image
from qnas.onnx.files import read_model
from qnas.onnx.session import first_line, open_session
from qnas.onnx.stored_weights import is_quantized
from qnas.tflite.reader import is_tflite, read_tflite
from qnas.tflite.to_onnx.convert import onnx_of

ONE_IMAGE = "use a model with one image input and one image output, [N, 3, H, W] or [N, 1, H, W]"


@dataclass(frozen=True)
class ImageModel:
    """`run`: uint8 [H, W, C] -> uint8 [H', W', C], or ModelError where the model cannot run on that size.

    `channels` C: 3, or 1 of a grey one. `note`: how its images are read, where that was found out.
    """

    run: Callable[[Image], Image]
    channels: int
    note: str = ""


def open_image_model(path: Path, input_range: InputRange | None = None, threads: int = 0) -> ImageModel:
    """Open a model. `input_range`: what an image is to one of float32 that does not say so itself.

    Raises ModelError where it cannot be loaded or reads no images of free height and width, UsageError where
    what runs such files is not installed.
    """
    if is_tflite(path):
        return _tflite(path, input_range)
    if path.suffix == ".pt":
        return _found(path)
    session = open_session(path, threads)
    unit = _unit(path, session)
    if unit is not None or _is_bytes(session):
        return _onnx(path, session, None if _is_bytes(session) else unit)
    model = read_model(path)
    if is_quantized(model):
        chosen, note = (input_range, "") if input_range else input_range_of(model)
        return _onnx(path, session, 1 / DIVISORS[chosen], note)
    network = read_float_model(path, input_range)
    return ImageModel(
        partial(_rounded, Runner(network, threads=threads)), network.channels, network.white_found
    )


def _rounded(run: Callable[[Any], Any], image: Image) -> Image:
    """What a float function of grey levels [1, H, W, C] makes, rounded half to even and clipped."""
    output = run(image[None])[0]
    if not np.isfinite(output).all():
        raise ModelError("the model's output holds values that are not finite: export it again")
    pixels: Image = np.clip(np.rint(output), 0, 255).astype(np.uint8)
    return pixels


def _tflite(path: Path, input_range: InputRange | None) -> ImageModel:
    model = read_tflite(path)
    image = model.tensors[model.inputs[0]] if model.inputs else None
    if image is not None and METADATA in model.metadata and -1 not in image.signature:
        _, height, width, _ = image.shape
        raise ModelError(
            f"{path} takes images of {width}x{height} alone: use the ONNX file, or export it without --size"
        )
    floats = model.tensors[model.inputs[0]].kind == "FLOAT32" if model.inputs else False
    note = ""
    if floats and input_range is None:
        as_onnx = onnx_of(model)
        if is_quantized(as_onnx):
            input_range, note = input_range_of(as_onnx)
        else:
            found = read_float_model(path)
            input_range, note = ("0..255" if found.white > 1 else "0..1"), found.white_found
    runner = litert_runner(path, DIVISORS[input_range or "0..1"])
    channels = model.tensors[model.inputs[0]].shape[-1]
    if channels not in (1, 3):
        raise ModelError(f"{path} reads {channels} channels: {ONE_IMAGE}")
    return ImageModel(runner.upscale, channels, note)


def _found(path: Path) -> ImageModel:
    from qnas.torch.checkpoint import load_found  # torch, which all others do without
    from qnas.torch.inference import upscaler

    return ImageModel(upscaler(load_found(path).network), 3)


# ONNX ------------------------------------------------------------------------------------------------------


def _is_bytes(session: Any) -> bool:
    return [each.type for each in (session.get_inputs()[0], session.get_outputs()[0])] == [
        "tensor(uint8)"
    ] * 2


def _unit(path: Path, session: Any) -> float | None:
    """What one grey level is to a float model whose metadata says it; ModelError where that is wrong."""
    ends = len(session.get_inputs()), len(session.get_outputs())
    if ends != (1, 1):
        raise ModelError(f"{path} has {ends[0]} inputs and {ends[1]} outputs: {ONE_IMAGE}")
    written = session.get_modelmeta().custom_metadata_map.get("qnas.input_scale")
    if written is None:
        return None
    try:
        unit = float(written)
    except ValueError:
        unit = math.nan
    if not (math.isfinite(unit) and unit > 0):
        raise ModelError(
            f"{path} does not say what a grey level is: set its metadata qnas.input_scale, "
            f"such as 0.00390625, to a positive number (it is {written!r})"
        )
    return unit


def _onnx(path: Path, session: Any, unit: float | None, note: str = "") -> ImageModel:
    """The session as it is; `unit` is what one grey level is in a float model, None in one of bytes."""
    source, output = session.get_inputs()[0], session.get_outputs()[0]
    shape = source.shape
    last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels, sides = (
        (shape[3], shape[1:3]) if last else (shape[1], shape[2:]) if len(shape) == 4 else (0, [])
    )
    if channels not in (1, 3) or (isinstance(shape[0], int) and shape[0] != 1):
        raise ModelError(f"{path} has an input of shape {shape}: {ONE_IMAGE}")
    if any(isinstance(side, int) for side in sides):
        raise ModelError(
            f"{path} takes only images of {sides[1]}x{sides[0]}: export it with free height and width"
        )
    kind = "tensor(uint8)" if unit is None else "tensor(float)"
    if {source.type, output.type} != {kind}:
        raise ModelError(
            f"{path} maps {source.type} to {output.type}: use a model of uint8 or float32 images"
        )

    def run(image: Image) -> Image:
        planes = np.ascontiguousarray(image[None] if last else image.transpose(2, 0, 1)[None])
        feed = planes if unit is None else planes.astype(np.float32) * np.float32(unit)
        try:
            made = session.run(None, {source.name: feed})[0]
        except Exception as error:  # onnxruntime's exception types share no base but Exception
            raise ModelError(
                f"the model cannot run on {size_text(image)} pixels: {first_line(error)}"
            ) from error
        if made.ndim != 4 or made.shape[0] != 1 or made.shape[3 if last else 1] != channels:
            wanted = f"[1, H, W, {channels}]" if last else f"[1, {channels}, H, W]"
            raise ModelError(f"the model's output has shape {list(made.shape)}, not {wanted}")
        turned = made if last else made.transpose(0, 2, 3, 1)
        return turned[0] if unit is None else _rounded(lambda _: turned / np.float32(unit), image)

    return ImageModel(run, channels, note)


def size_text(image: Image) -> str:
    """ "640x480"."""
    return f"{image.shape[1]}x{image.shape[0]}"
