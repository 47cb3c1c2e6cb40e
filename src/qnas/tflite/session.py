"""Runs a .tflite file in LiteRT; the only place that turns its errors into ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError
from qnas.onnx.session import first_line
from qnas.tflite.check import check_tflite
from qnas.tflite.reader import TfliteModel, read_tflite


class LiteRtSession:
    """A model of one image in and one image out, uint8 or int8 [1, H, W, C]; `raw` runs float ones too.

    `xnnpack`: with the delegate that LiteRT uses by default, or with its built-in kernels alone, which round
    differently and are there for comparison.
    Raises ModelError when `model` is no such .tflite file; UsageError without ai-edge-litert.
    """

    def __init__(self, model: bytes, threads: int = 1, xnnpack: bool = True) -> None:
        litert = load_litert()
        resolver = litert.OpResolverType
        kind = resolver.BUILTIN if xnnpack else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        _check_ends(read_tflite(model))
        try:
            self._runtime = litert.Interpreter(
                model_content=model, num_threads=threads, experimental_op_resolver_type=kind
            )
            self._runtime.allocate_tensors()
            (self._input,), (self._output,) = (
                self._runtime.get_input_details(), self._runtime.get_output_details()
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise _unusable(error) from error

    def run(self, images: NDArray[np.uint8], any_size: bool = False) -> NDArray[np.uint8]:
        """uint8 [N, C, H, W] -> uint8 [N, C', s H, s W].

        Raises ModelError when the file was made for another size; with `any_size` when it cannot run on it.
        """
        if not any_size:
            self._resize(images.shape)
        return np.concatenate([self._one(image) for image in images])

    @property
    def takes_bytes(self) -> bool:
        """Whether an image is uint8 or int8 to it."""
        return bool(np.dtype(self._input["dtype"]).itemsize == 1)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of the only images that it takes, None when these may have any size."""
        _, height, width, _ = (int(n) for n in self._input["shape"])
        return None if -1 in self._input["shape_signature"] else (height, width)

    @property
    def delegated(self) -> tuple[int, int]:
        """(operators that XNNPACK runs, operators)."""
        every = len(operators(self._runtime))
        return every - len(self.left_out), every

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of the operators that XNNPACK does not run, in order."""
        inside = delegated_operators(self._runtime)
        return tuple(node["op_name"] for node in operators(self._runtime) if node["index"] not in inside)

    def raw(self, image: NDArray[Any]) -> NDArray[Any]:
        """[1, H, W, C] of the input's type -> what the model writes.

        A file for one size runs on others where its operators can. Raises ModelError elsewhere.
        """
        try:
            if tuple(self._runtime.get_input_details()[0]["shape"]) != image.shape:
                self._runtime.resize_tensor_input(self._input["index"], image.shape)
                self._runtime.allocate_tensors()
            self._runtime.set_tensor(self._input["index"], np.ascontiguousarray(image))
            self._runtime.invoke()
        except (RuntimeError, ValueError) as error:
            raise _unusable(error) from error
        return np.asarray(self._runtime.get_tensor(self._output["index"]))

    def _one(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pixels = image.transpose(1, 2, 0)[None]
        result: NDArray[np.uint8] = self.raw(_signed(np.ascontiguousarray(pixels), self._input["dtype"]))
        return (result.view(np.uint8) ^ _flip(self._output["dtype"])).transpose(0, 3, 1, 2)

    def _resize(self, shape: Sequence[int]) -> None:
        _, channels, height, width = shape
        wanted, now = (1, height, width, channels), tuple(self._runtime.get_input_details()[0]["shape"])
        if wanted == now:
            return
        if -1 not in self._input["shape_signature"]:
            raise ModelError(
                f"the model takes images of {now[1]}x{now[2]} with {now[3]} channels, not {height}x{width} "
                f"with {channels}: export it for that size, or resizable"
            )
        try:
            self._runtime.resize_tensor_input(self._input["index"], wanted, strict=True)
            self._runtime.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise _unusable(error) from error


def operators(runtime: Any) -> list[dict[str, Any]]:
    """The file's operators in an interpreter, without the nodes that delegates put in their place.

    Each has `index`, `op_name` and, as indices of tensors, `inputs` and `outputs`.
    """
    return [node for node in runtime._get_ops_details() if node["op_name"] != "DELEGATE"]


def delegated_operators(runtime: Any) -> set[int]:
    """Indices of operators between the inputs and the outputs of a DELEGATE node: it took their place."""
    writer = {int(t): node for node in operators(runtime) for t in node["outputs"]}
    found: set[int] = set()
    for node in runtime._get_ops_details():
        if node["op_name"] != "DELEGATE":
            continue
        given = {int(t) for t in node["inputs"]}
        todo = [int(t) for t in node["outputs"]]
        while todo:
            source = writer.get(t) if (t := todo.pop()) not in given else None
            if source is not None and source["index"] not in found:
                found.add(source["index"])
                todo += [int(each) for each in source["inputs"]]
    return found


def _signed(pixels: NDArray[np.uint8], kind: type) -> NDArray[np.uint8] | NDArray[np.int8]:
    """Pixels as the input takes them: int8 ones are `pixel - 128`."""
    return (pixels ^ _flip(kind)).view(kind)


def _flip(kind: type) -> np.uint8:
    return np.uint8(128 if kind is np.int8 else 0)


def _check_ends(model: TfliteModel) -> None:
    check_tflite(model)
    read, written = len(model.inputs), len(model.outputs)
    if (read, written) != (1, 1):
        raise ModelError(
            f"the TFLite model has {read} inputs and {written} outputs: name one of an image in and one out"
        )


def _unusable(error: Exception) -> ModelError:
    return ModelError(f"LiteRT cannot run the model: {first_line(error)}; export it again")


def resized_shapes(model: bytes, shapes: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The shape of every tensor when the inputs (by index) have others; nothing is run.

    Sizes that depend on values stay those of the file. Raises ModelError when the model cannot be resized so.
    """
    litert = load_litert()
    check_tflite(read_tflite(model))
    kind = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        runtime = litert.Interpreter(model_content=model, experimental_op_resolver_type=kind)
    except (RuntimeError, ValueError) as error:
        raise _unusable(error) from error
    try:
        for index, shape in shapes.items():
            runtime.resize_tensor_input(index, shape, strict=True)
        runtime.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes.values())
        raise ModelError(
            f"LiteRT cannot run the model on {sizes}: {first_line(error)}; choose another --shape"
        ) from error
    return {int(t["index"]): tuple(map(int, t["shape"])) for t in runtime.get_tensor_details()}


def load_litert() -> ModuleType:
    """LiteRT's Python interface; UsageError where it is not installed."""
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise UsageError(f"running .tflite files needs {error.name}: pip install 'qnas[tflite]'") from error
    module: ModuleType = interpreter
    return module
