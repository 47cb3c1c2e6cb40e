"""Small valid files of every kind that qnas reads: what `fuzzing` damages."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from qnas.export.integers import integer_network
from qnas.export.model import build_float32, build_qdq
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_tflite.writer import write_tflite
from qnas.network.architecture import Architecture, find_architecture
from qnas.network.lowering import uniform_layers
from qnas.testing.mutations import plain_archive
from qnas.testing.random_networks import build
from qnas.testing.released_network import Genes, random_state
from qnas.testing.small_networks import pixels
from qnas.torch.checkpoint import Found, save_found, save_plain

SIZE = (24, 20)  # of images
Seeds = Mapping[str, bytes]  # name -> file


def _tiny(space: str, channels: int, bits: int, **options: Any) -> Architecture:
    draft = Architecture(space, channels, 1, 2, {}, **options)  # type: ignore[arg-type]
    op = "simple_1x1" if space == "rfdn_space" else "simple_3x3"
    return replace(draft, layers=uniform_layers(draft, op, bits))


@cache
def architectures() -> dict[str, Architecture]:
    return {
        "rfdn": _tiny("rfdn_space", 6, 4, normalization="adq"),
        "basic": _tiny("basic", 3, 4, normalization="bn", levels="lloyd"),
        "float": _tiny("basic", 3, 32),
        "espcn": find_architecture("espcn-w4"),
    }


@cache
def _found() -> dict[str, Found]:
    return {name: build(architecture) for name, architecture in architectures().items()}


@cache
def documents() -> Seeds:
    return {name: a.to_json().encode() for name, a in architectures().items()}


def written(write: Callable[[Path], object], suffix: str) -> bytes:
    """The bytes of the file that `write` makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        write(path)
        return path.read_bytes()


@cache
def found_files() -> Seeds:
    found = _found()
    files = {
        name: written(lambda path, f=found[name]: save_found(path, f.architecture, f.network, {}), ".pt")
        for name in ("rfdn", "basic", "float")
    }
    return {name: plain_archive(data) for name, data in files.items()}


GENES = Genes(
    body=[[("decenc_3x3_2", 4), ("conv_3x1_1x3", 8), ("simple_3x3_grouped_full", 3), ("simple_1x1", 2)]],
    skip=[[("conv_3x1_1x3", 4), ("growth2_1x1", 8), ("simple_1x1_grouped_3", 2)]],
    upsample=[("simple_1x1", 4)],
    tail=[("growth1_1x1", 8)],
)
PLAIN = Genes(
    body=[[("simple_1x1", 8)] * 4] * 2, skip=[[("simple_1x1", 4)] * 3] * 2, upsample=[("simple_1x1", 8)],
    tail=[("simple_1x1", 8)],
)  # fmt: skip


@cache
def checkpoints() -> Seeds:
    state = random_state(GENES, 12, 2, True)
    held = {"adq": state, "training": {"epoch": 3, "state_dict": state}}
    files = {name: written(lambda path, d=d: save_plain(path, d, False), ".tar") for name, d in held.items()}
    return {name: plain_archive(data) for name, data in files.items()}


@cache
def genotypes() -> Seeds:
    return {"varied": str(GENES).encode(), "plain": str(PLAIN).encode()}


@cache
def models() -> Seeds:
    found = _found()
    built = {f"{name}-{target}": build_qdq(found[name], TARGETS[target])
              for name, target in (("rfdn", "onnxruntime"), ("basic", "portable-int4"))}  # fmt: skip
    built |= {"float": build_float32(found["float"])}
    return {name: model.SerializeToString() for name, model in built.items()} | {"static": _static()}


def _static() -> bytes:
    """A model of onnxruntime's quantize_static."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter([{"image": (pixels(*SIZE) / 256).astype(np.float32)}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "float.onnx"
            source.write_bytes(build_float32(_found()["float"]).SerializeToString())
            return written(lambda path: quantize_static(source, path, Images()), ".onnx")
    finally:
        logging.disable(logging.NOTSET)


@cache
def tflite_files() -> Seeds:
    networks = {
        name: fitted(integer_network(_found()[name]), TARGETS["litert"]) for name in ("rfdn", "basic")
    }
    return {
        "rfdn": write_tflite(networks["rfdn"], *SIZE).data,
        "basic": write_tflite(networks["basic"], *SIZE, resizable=True, properties={"scale": "2"}).data,
    }
